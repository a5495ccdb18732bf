"""Maps of best images: of layers whose units see most of an image, read again from these images alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support_scanning import QUIET
from torch import Tensor, nn

import vizcnn
from vizcnn.geometry import Box
from vizcnn.models.model import Model
from vizcnn.models.terms import Unit
from vizcnn.scanning import Index, find_best, read_maps, scan, sees_most

pytestmark = pytest.mark.usefixtures("one_thread")


def make_detector() -> nn.Sequential:
    """A channel that responds to red, in places of 8 px whose units see the whole image of 64 px: the last kernel is of
    15 places, all of them zero but the middle one, and a field is what has a path, whatever its weight."""
    red, wide = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, 15, padding=7, bias=False)
    with torch.no_grad():
        red.weight[:] = torch.tensor([1.0, -1, 0]).view(1, 3, 1, 1)
        red.bias[:] = 0  # type: ignore[index]
        wide.weight.zero_()
        wide.weight[0, 0, 7, 7] = 1
    return nn.Sequential(red, nn.ReLU(), nn.AvgPool2d(8), wide, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def crooked() -> nn.Sequential:
    """Strides, padding and pooling over sizes that they do not divide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
            nn.Conv2d(6, 4, 5, padding=2, dilation=2),
            nn.ReLU(inplace=True),  # of what was captured before
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


@pytest.mark.parametrize(("corner", "side"), [((16, 40), 16), ((0, 0), 8), ((48, 24), 16), ((20, 12), 24)])
def test_the_mask_lies_on_the_square_that_the_channel_was_made_to_find(corner: tuple[int, int], side: int) -> None:
    images, (top, left) = torch.zeros(3, 3, 64, 64), corner
    images[1, 0, top : top + side, left : left + side] = 1
    (one,) = vizcnn.TopImages(count=1)(Model(make_detector(), size=64), images, "4:0", progress=False).rows[0].exemplars
    assert (one.number, one.mask is not None) == (1, True)
    assert one.mask is not None
    cover, square = one.mask.cover(), np.zeros((64, 64), bool)
    square[top : top + side, left : left + side] = True
    assert (cover & square).sum() / (cover | square).sum() > 0.6
    assert not cover[~_grow(square, 8)].any()  # never further than a place of the layer
    assert one.box == Box(0, 0, 64, 64)
    assert one.crop.shape[:2] == (one.part.bottom - one.part.top, one.part.right - one.part.left)
    assert one.crop[..., 0].mean() > 0.6


def _grow(mask: np.ndarray[Any, Any], by: int) -> np.ndarray[Any, Any]:
    values = torch.from_numpy(mask).float()[None, None]
    return np.asarray(F.max_pool2d(values, 2 * by + 1, 1, by)[0, 0] > 0)


@pytest.mark.parametrize("place", [(30, 60), (90, 130), (40, 118)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_it_lies_there_in_the_photograph_too_whatever_the_contract_cuts_off(
    tmp_path: Path, place: tuple[int, int], fit: Any
) -> None:
    pixels, (top, left) = np.zeros((160, 240, 3), np.uint8), place
    pixels[top : top + 40, left : left + 40, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(np.zeros_like(pixels)).save(tmp_path / "black.png")
    model = Model(make_detector(), size=64, fit=fit, resize=80 if fit == "crop" else None)
    (one,) = vizcnn.TopImages(count=1)(model, tmp_path, "4:0", progress=False).rows[0].exemplars
    assert one.name.endswith("photo.png")
    down, across = (16, 16) if fit == "crop" else (20, 30)  # px of the photograph for a place of the layer
    part = one.part
    assert top - down <= part.top <= top + down
    assert top + 40 - down <= part.bottom <= top + 40 + down
    assert left - across <= part.left <= left + across
    assert left + 40 - across <= part.right <= left + 40 + across
    assert one.crop[..., 0].mean() > 0.5


@pytest.mark.parametrize("size", [(33, 47), (50, 60), (21, 30)])
def test_maps_and_levels_are_those_of_a_plain_hook_in_float64(size: tuple[int, int]) -> None:
    model = Model(crooked(), size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    images = torch.rand(7, 3, *size, generator=torch.Generator().manual_seed(1))
    found = vizcnn.TopImages(count=3)(model, images, ["4:0-3"], progress=False)
    maps = _read_slowly(model, images)
    masks = 0
    for c, row in enumerate(found.rows):
        for one in row.exemplars:
            values = maps[one.number, c]
            level = (maps[:, c].mean() + values.max()) / 2
            large = F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            if one.mask is None:
                assert not (large > level + 1e-5).any()
                continue
            masks += 1
            np.testing.assert_allclose(one.mask.activations, values, atol=1e-5)
            assert one.mask.level == pytest.approx(float(level), abs=1e-5)
            unsure = (large - level).abs() < 1e-5
            assert ((torch.from_numpy(one.mask.cover()) == (large > level)) | unsure).all()
    assert masks > 6


def _read_slowly(model: Model, images: Tensor) -> Tensor:
    """The maps of layer 4 for all images (N, C, h, w), before a later layer changes them in place."""
    network = copy.deepcopy(model.network).double().eval()
    seen: list[Tensor] = []
    network[4].register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))  # type: ignore[index]
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (model.input.mean, model.input.std))
    with torch.no_grad():
        for image in images:
            network((image[None].double() - mean) / std)
    return torch.cat(seen)


def test_half_of_what_the_network_sees_decides_for_all_units_of_a_layer(tmp_path: Path) -> None:
    """Kernels of 11 and 12 px see 121 and 144 of 256 px; at the border both see less."""
    layers = nn.Conv2d(3, 2, 11, padding=5), nn.Conv2d(2, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model, images = Model(nn.Sequential(*layers), size=16), torch.rand(4, 3, 16, 16)
    index = scan(model, images, tmp_path, layers=["0", "1", "2", "output"], **QUIET)
    assert [sees_most(index, layer) for layer in ("0", "1", "2", "output")] == [False, True, False, False]
    targets = ["0:0", "1:0", "2:0", 1]
    rows = vizcnn.TopImages(count=1)(
        model, images, targets, progress=False
    ).rows  # of the best, which has a mask always
    assert [row.exemplars[0].mask is not None for row in rows] == [False, True, False, False]


def test_a_layer_whose_field_is_not_known_has_masks_too(tmp_path: Path) -> None:
    index = scan(Model(make_detector(), size=64), torch.rand(3, 3, 64, 64), tmp_path, **QUIET)
    unknown = Index(index.folder, index.identity, {**index.facts, "fields": {}}, index.images)
    assert not sees_most(index, "0")
    assert sees_most(unknown, "0")


def test_a_network_whose_output_is_maps_has_masks_for_its_classes(tmp_path: Path) -> None:
    """As for segmentation. The scan knows no field of the output, so where a class is found is all there is to show."""
    network, images = make_detector()[:5], torch.zeros(3, 3, 64, 64)
    images[2, 0, 8:24, 32:48] = 1
    model = Model(network, size=64)
    probe = vizcnn.TopImages(count=1)
    index = scan(model, images, tmp_path, **QUIET)
    for found in (probe(model, images, 0, progress=False), probe.answer(index, 0, model, progress=False)):
        (one,) = found.rows[0].exemplars
        assert one.mask is not None
        assert one.number == 2
        assert one.part == Box(8, 32, 24, 48)
        assert vizcnn.load_result(found.save(tmp_path / "x.npz")).describe() == found.describe()


def test_each_image_is_run_once_for_a_layer_and_only_the_best_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = Model(crooked(), size=32), torch.rand(9, 3, 32, 32)
    index = scan(model, images, tmp_path, layers=["4"], top=2, **QUIET)
    units = [Unit("4", c) for c in (0, 1, 1, 3)]
    best = {one.number for unit in units for one in find_best(index, unit, 2)}
    ran: list[int] = []
    network = model.network
    handle = network.register_forward_pre_hook(
        lambda _module, inputs: None if inputs[0].is_meta else ran.append(len(inputs[0]))
    )
    monkeypatch.setattr("vizcnn.scanning.maps.default_batch", lambda _size, _device: 2)
    with model.borrowed():
        maps = read_maps(index, model, units, 2, progress=False)
    handle.remove()
    assert sum(ran) == len(best)
    assert max(ran) <= 2
    assert {number for _, _, number in maps} == best
    assert {each.shape for each in maps.values()} == {index.layers["4"][1:]}

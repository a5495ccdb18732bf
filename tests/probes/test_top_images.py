"""TopImages: the same answer from memory and from an index, and only for what has an answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import (
    DegenerateResult,
    ImageError,
    LayerNotFound,
    NonFiniteResult,
    OutputError,
    ParameterError,
    TargetError,
)
from vizcnn.models.model import Model
from vizcnn.probes.top_images import TopImages
from vizcnn.results import Exemplars
from vizcnn.scanning import Index, Part, scan

QUIET: Any = {"progress": False, "loaders": 0}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(14):
        place = tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(i).integers(0, 256, (30, 40 + i, 3), np.uint8)
        Image.fromarray(values).resize((300, 200) if i == 3 else (40 + i, 30)).save(place)
    return tmp_path / "photos"


def model_of(**settings: Any) -> Model:
    return Model(small_cnn(), size=16, labels=list("vwxyz"), name="net", **settings)


def assert_equal(one: Exemplars, other: Exemplars) -> None:
    a, b = one.arrays(), other.arrays()
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)
    assert [row.target for row in one.rows] == [row.target for row in other.rows]
    assert one.ranked_by == other.ranked_by


@pytest.mark.parametrize("rank", ["max", "mean", "sum"])
def test_the_probe_and_an_index_give_the_same(photos: Path, tmp_path: Path, rank: Any) -> None:
    wanted = ["0:1", "3:0-2", "x", 4, "7:2"]
    probe = TopImages(count=5, rank=rank)(model_of(), photos, wanted, progress=False)
    index = scan(model_of(), photos, tmp_path / "index", top=7, rank=rank, **QUIET)
    assert_equal(probe, TopImages(count=5).answer(Index.open(index.folder), wanted))
    assert [row.target for row in probe.rows] == ["0:1", "3:0", "3:1", "3:2", "x", "z", "7:2"]


def test_values_are_what_the_network_says(photos: Path) -> None:
    model = model_of()
    row = TopImages(count=3)(model, photos, "x", progress=False).rows[0]
    inputs = torch.stack([model.prepared(vizcnn.inputs.images.open_photo(p))[0] for p in sorted(photos.rglob("*.png"))])
    with torch.no_grad(), model.borrowed():
        logits = model(inputs)[:, 2]
    best = logits.topk(3)
    assert [one.number for one in row.exemplars] == best.indices.tolist()
    np.testing.assert_allclose([one.value for one in row.exemplars], best.values, atol=1e-5)


def test_without_targets_four_channels_of_the_last_convolution_are_shown(photos: Path) -> None:
    found = TopImages()(model_of(), photos, progress=False)
    assert [row.target for row in found.rows] == ["3:0", "3:1", "3:2", "3:3"]
    dense = Model(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), size=8)
    assert [row.target for row in TopImages()(dense, photos, progress=False).rows] == ["0"]


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ("0:1@3,3", TargetError, "images are ranked for channels"),
        ("p(x)", TargetError, "images are ranked for channels"),
        ("energy(0)", TargetError, "images are ranked for channels"),
        (vizcnn.target("0:1") - vizcnn.target("0:2"), TargetError, "images are ranked for channels"),
        (2 * vizcnn.target("0:1"), TargetError, "images are ranked for channels"),
        (lambda output: output[:, 0], TargetError, "images are ranked for channels"),
        ("0:8", TargetError, "channels 0 to 7, got 8"),
        ("9:0", LayerNotFound, "no layer named '9'"),
        ("nobody", TargetError, "no class or layer target named 'nobody'"),
    ],
)
def test_what_is_no_channel_is_refused(photos: Path, wanted: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TopImages()(model_of(), photos, wanted, progress=False)


@pytest.mark.parametrize("count", [0, 101])
def test_the_number_of_images_has_bounds(count: int) -> None:
    with pytest.raises(ParameterError, match="count must be at"):
        TopImages(count=count)


def test_a_rank_that_the_index_does_not_have_is_refused(photos: Path, tmp_path: Path) -> None:
    index = scan(model_of(), photos, tmp_path / "index", rank="sum", **QUIET)
    with pytest.raises(ParameterError, match="are ranked by their sum, not their mean"):
        TopImages(rank="mean").answer(index, "0:0")
    assert TopImages().answer(index, "0:0").provenance.options["rank"] == "sum"


def test_what_the_pictures_do_not_show_is_said(photos: Path, tmp_path: Path) -> None:
    (photos / "a" / "bad.png").write_text("no image")
    index = scan(model_of(), photos, tmp_path / "index", top=3, shard_size=5, part=Part(1, 2), **QUIET)
    assert TopImages(count=5).answer(index, ["0:0", "0:1"]).notes == (
        "the scan kept 3 images for each channel of layer '0', not 5",
        "the scan is not complete: 1 of 3 shards are missing",
    )
    index = scan(model_of(), photos, tmp_path / "index", top=3, shard_size=5, **QUIET)
    (note,) = TopImages(count=3).answer(index, "0:0").notes
    assert note.startswith("1 of 15 images could not be read, the first: ")
    assert TopImages(count=3)(model_of(), photos, "0:0", progress=False).notes == (note,)
    index.shard_file(1).unlink()
    with pytest.raises(OutputError, match="1 of 3 shards of .*index are missing or damaged, the first is 1. Run"):
        TopImages(count=3).answer(Index.open(index.folder), "0:0")


class Fragile(nn.Module):
    """NaN in the second layer for dark images, in the third for all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x) / (x.mean((1, 2, 3), keepdim=True) > 0.3))
        self.third(y * torch.nan)
        return y.mean((2, 3))


def test_images_that_give_nan_are_told_of_and_a_channel_without_others_is_refused() -> None:
    images = torch.rand(6, 3, 8, 8) * torch.tensor([1.0, 0.1, 1, 1, 0.1, 1]).view(6, 1, 1, 1)
    model = Model(Fragile(), size=8)
    found = TopImages()(model, images, "second:0", progress=False)
    assert found.notes == ("2 images gave NaN or infinity in layer 'second' and were left out",)
    assert len(found.rows[0].exemplars) == 4
    with pytest.raises(NonFiniteResult, match="no image that can be read and gives layer 'third' finite activations"):
        TopImages()(model, images, "third:0", progress=False)


def test_nothing_but_unreadable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_text("no image")
    with pytest.raises(ImageError, match="none of the images of .*photos can be read: bad.png"):
        TopImages()(model_of(), tmp_path / "photos", "0:0", progress=False)


def test_the_picture_has_a_photograph_and_a_crop_for_each_image(photos: Path, tmp_path: Path) -> None:
    found = TopImages(count=3)(model_of(), photos, ["3:0", "x"], progress=False)
    (ax,) = found.figure().axes
    assert len(ax.get_images()) == 3 * 2 + 3  # a class has no boxes
    for kind in (".png", ".svg", ".html"):
        assert found.save(tmp_path / f"x{kind}").stat().st_size > 1000


def test_crops_are_the_boxes_contents(photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    for one in TopImages()(model_of(), photos, "3:1", progress=False).rows[0].exemplars:
        assert one.box is not None
        pixels = np.asarray(Image.open(files[one.number]), np.float32) / 255
        assert one.size == pixels.shape[:2]
        rows = slice(int(np.floor(one.box.top + 1e-6)), int(np.ceil(one.box.bottom - 1e-6)))
        columns = slice(int(np.floor(one.box.left + 1e-6)), int(np.ceil(one.box.right - 1e-6)))
        if max(one.size) <= 256:
            np.testing.assert_array_equal(one.crop, pixels[rows, columns])
            np.testing.assert_array_equal(one.pixels, pixels)
        assert max(one.pixels.shape) <= 256


def test_numbers_are_saved(photos: Path, tmp_path: Path) -> None:
    found = TopImages(count=20)(model_of(), photos, ["3:0", "7:1"], progress=False)
    saved = np.load(found.save(tmp_path / "x.npz"))
    assert saved["values"].shape == saved["images"].shape == (2, 14)
    assert saved["places"].shape == (2, 14, 2)
    assert saved["boxes"].shape == (2, 14, 4)
    assert np.isfinite(saved["boxes"][0]).all()
    assert np.isnan(saved["boxes"][1]).all()
    assert (saved["places"][1] == -1).all()
    for values in saved["values"]:
        assert (np.diff(values) <= 0).all()
    manifest = json.loads(found.save(tmp_path / "x.json").read_text())
    assert manifest["provenance"]["probe"] == "top-images"
    assert manifest["provenance"]["details"] == {"dataset": str(photos), "pictures": 14}
    assert manifest["rows"][0]["exemplars"][0]["label"] in ("a", "b")
    assert "NaN" not in (tmp_path / "x.json").read_text()
    assert found.describe().startswith("3:0: ")


def test_the_worst_image_of_a_class_is_ranked_too() -> None:
    for count in (1, 3):
        found = TopImages()(model_of(), torch.rand(count, 3, 16, 16), "x", progress=False)
        assert len(found.rows[0].exemplars) == count


def test_a_grey_network(tmp_path: Path) -> None:
    model = vizcnn.load("lecture")
    for i in range(12):
        values = np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(values).save(tmp_path / f"{i:02}.png")
    found = TopImages(count=4)(model, tmp_path, progress=False)
    index = scan(model, tmp_path, tmp_path / "index", **QUIET)
    assert_equal(found, TopImages(count=4).answer(index, [row.target for row in found.rows]))
    assert found.rows[0].exemplars[0].pixels.shape == (28, 28, 1)
    found.save(tmp_path / "x.png")


def test_tensors_are_their_own_photographs() -> None:
    images = torch.rand(5, 3, 20, 24)
    one = TopImages(count=1)(model_of(), images, "0:3", progress=False).rows[0].exemplars[0]
    assert one.size == (20, 24)
    np.testing.assert_allclose(one.pixels, images[one.number].permute(1, 2, 0))


def test_a_bundled_network_over_photographs() -> None:
    found = TopImages(count=2)(
        vizcnn.load("tiny"), ["sample:china", "sample:flower"], "layer4.0.conv2:5", progress=False
    )
    assert {one.name for one in found.rows[0].exemplars} == {"sample:china", "sample:flower"}


class Gated(nn.Module):
    """Three rectified channels: the first image's red above a half, nothing ever, and always one."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        red = (x[:, :1] - 0.5).relu()
        return torch.as_tensor(self.maps(torch.cat([red, 0 * red, 0 * red + 1], 1))).mean((2, 3))  # (N, 3)


def test_images_that_leave_a_rectified_channel_at_zero_are_not_shown_as_exciting_it() -> None:
    images = torch.full((4, 3, 8, 8), 0.2)
    images[2, 0, 5, 3] = 0.9
    found = TopImages()(Model(Gated(), size=8), images, "maps:0", progress=False)
    (shown,) = found.rows[0].exemplars
    assert (shown.number, shown.at) == (2, (5, 3))
    assert np.isnan(found.arrays()["values"]).sum() == 0


def test_a_dead_channel_is_said_to_be_one_and_alone_refused(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 8, 8)
    found = TopImages()(Model(Gated(), size=8), images, ["maps:0", "maps:1", "maps:2"], progress=False)
    assert [len(row.exemplars) for row in found.rows] == [4, 0, 0]
    assert "maps:1: no image excites it, its value is always 0" in found.describe()
    assert "maps:2: no image excites it, its value is always 1" in found.describe()
    found.save(tmp_path / "x.png")
    with pytest.raises(DegenerateResult, match="no image excites any of maps:1, maps:2"):
        TopImages()(Model(Gated(), size=8), images, ["maps:1", "maps:2"], progress=False)
    with pytest.raises(DegenerateResult, match="maps:1, maps:1, maps:1, maps:1, maps:1 and 4 more. Dead units"):
        TopImages()(Model(Gated(), size=8), images, ["maps:1"] * 9, progress=False)


def test_a_single_image_is_the_best_for_a_class() -> None:
    found = TopImages()(model_of(), torch.rand(1, 3, 16, 16), 2, progress=False)
    assert len(found.rows[0].exemplars) == 1


def test_the_kernel_and_an_optimised_picture_stand_beside_the_photographs(photos: Path, tmp_path: Path) -> None:
    model = model_of()
    found = TopImages(count=2, beside=("filter", "maximize"))(model, photos, ["0:1", "3:2", "0:4"], progress=False)
    assert [[title for title, _ in row.beside] for row in found.rows] == [
        ["filter", "maximize"],
        ["maximize"],
        ["filter", "maximize"],
    ]
    kernel = dict(found.rows[2].beside)["filter"]
    weights = dict(model.network.named_parameters())["0.weight"][4].permute(1, 2, 0).detach()
    np.testing.assert_allclose(kernel, 0.5 + weights / weights.abs().max() / 2, atol=1e-6)
    alone = vizcnn.Maximize()(model, target=["0:1", "0:4"], progress=False)
    np.testing.assert_array_equal(dict(found.rows[2].beside)["maximize"], alone.panels[0].values[1])
    np.testing.assert_array_equal(found.arrays()["beside.2.0"], kernel)
    found.save(tmp_path / "x.png")


def test_ctrl_c_while_a_picture_is_optimised_keeps_the_photographs(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    whole = TopImages(count=2)(model_of(), photos, "0:1", progress=False)
    monkeypatch.setattr("vizcnn.probes.top_images.optimize", stop)
    with pytest.raises(vizcnn.Interrupted) as caught:
        TopImages(count=2, beside=("maximize",))(model_of(), photos, "0:1", progress=False)
    kept = caught.value.result
    assert kept.partial
    assert kept.summary()["partial"] is True
    assert "stopped before what stands beside was made" in kept.describe()
    assert any(text.get_text().endswith("PARTIAL") for text in kept.figure().texts)
    np.testing.assert_array_equal(kept.arrays()["values"], whole.arrays()["values"])


def deep_model(**settings: Any) -> Model:
    """A network whose second convolution sees 13 of 16 px both ways."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(4, 5, 5, padding=2), nn.ReLU()
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Model(network, size=16, labels=list("vwxyz"), name="deep", **settings)


@pytest.mark.parametrize("rank", ["max", "mean", "sum"])
def test_an_index_and_its_network_give_what_the_probe_gives(photos: Path, tmp_path: Path, rank: Any) -> None:
    wanted = ["2:0-2", "0:1", "x"]
    probe = TopImages(count=4, rank=rank)(deep_model(), photos, wanted, progress=False)
    index = scan(deep_model(), photos, tmp_path / "index", rank=rank, **QUIET)
    found = TopImages(count=4).answer(Index.open(index.folder), wanted, deep_model(), progress=False)
    assert_equal(probe, found)
    assert found.notes == ()
    masked = [[one.mask is not None for one in row.exemplars] for row in probe.rows]
    shown = [one for row in probe.rows for one in row.exemplars]
    for one, record in zip(shown, probe.records(), strict=True):
        assert record.get("responds_top") == (one.mask and one.mask.box.top)
        assert record.get("responds_right") == (one.mask and one.mask.box.right)
    assert masked == [[True] * 4] * 3 + [[False] * 4] * 2
    np.testing.assert_array_equal(np.isnan(probe.arrays()["levels"]), ~np.array(masked))
    assert probe.arrays()["map.2.3"].shape == (8, 8)
    assert probe.arrays()["regions"].shape == (5, 4, 4)


def test_an_index_alone_has_boxes_and_says_what_is_missing(photos: Path, tmp_path: Path) -> None:
    index = scan(deep_model(), photos, tmp_path / "index", **QUIET)
    found = TopImages(count=4).answer(index, ["2:0", "0:1"])
    assert all(one.box and not one.mask for row in found.rows for one in row.exemplars)
    (note,) = found.notes
    assert "layer 2 see most of an image" in note
    assert TopImages().answer(index, ["0:1", "x"]).notes == ()


def test_a_network_that_is_not_the_scans_is_refused(photos: Path, tmp_path: Path) -> None:
    index = scan(deep_model(), photos, tmp_path / "index", **QUIET)
    with pytest.raises(ParameterError, match="is the index of another network, deep with other weights"):
        TopImages().answer(index, "2:0", model_of(), progress=False)
    with pytest.raises(ParameterError, match="or of other images: 2:0 scores .* there. Scan again"):
        TopImages().answer(index, "2:0", deep_model(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)), progress=False)


def test_masks_are_saved_and_opened_again(photos: Path, tmp_path: Path) -> None:
    found = TopImages(count=2)(deep_model(), photos, ["2:1", "0:1"], progress=False)
    for ending in ("npz", "safetensors"):
        opened = vizcnn.load_result(found.save(tmp_path / f"x.{ending}"))
        assert isinstance(opened, Exemplars)
        for row, again in zip(found.rows, opened.rows, strict=True):
            for one, other in zip(row.exemplars, again.exemplars, strict=True):
                assert (one.mask is None) == (other.mask is None)
                assert one.part == other.part
                if one.mask and other.mask:
                    np.testing.assert_array_equal(one.mask.cover(), other.mask.cover())
                    assert one.mask.level == other.mask.level
    responds = json.loads(found.save(tmp_path / "x.json").read_text())["rows"][0]["exemplars"][0]["responds"]
    assert responds["box"] == asdict(found.rows[0].exemplars[0].part)


@pytest.mark.parametrize("from_index", [False, True])
def test_ctrl_c_while_maps_are_read_keeps_the_photographs(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_index: bool
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    model, probe = deep_model(), TopImages(count=2)
    index = scan(model, photos, tmp_path / "index", **QUIET)
    whole = probe(model, photos, "2:1", progress=False)
    monkeypatch.setattr("vizcnn.scanning.maps.run_batches", stop)
    ask = partial(probe.answer, index, "2:1", model) if from_index else partial(probe, model, photos, "2:1")
    with pytest.raises(vizcnn.Interrupted) as caught:
        ask(progress=False)
    kept = caught.value.result
    assert "stopped before it was seen where in the images the channels respond" in kept.describe()
    np.testing.assert_array_equal(kept.arrays()["values"], whole.arrays()["values"])
    assert not any(module._forward_hooks for module in model.network.modules())


def test_from_an_index_something_stands_beside_only_with_the_network(photos: Path, tmp_path: Path) -> None:
    index = scan(model_of(), photos, tmp_path / "index", **QUIET)
    probe = TopImages(count=2, beside=("filter", "maximize"))
    with pytest.raises(ParameterError, match="an index holds no network"):
        probe.answer(index, "0:1")
    there = probe(model_of(), photos, "0:1", seed=5, progress=False)
    assert_equal(there, probe.answer(index, "0:1", model_of(), seed=5, progress=False))


def test_what_cannot_stand_beside_is_refused() -> None:
    with pytest.raises(ParameterError, match="got 'filters'. Did you mean 'filter'?"):
        TopImages(beside="filters")  # type: ignore[arg-type]

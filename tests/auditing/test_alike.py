"""Copies that were changed: a pattern at another size, half-transparent or compressed is found again, chance is not."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support import noise, picture
from support_audit import CORNER, SIDE, TAG, Tagged, draw_images, make_model, plant_tags
from torch import Tensor

import vizcnn
from vizcnn.auditing.copies import CopySearch
from vizcnn.auditing.cues import Patch
from vizcnn.auditing.matching import Template, correlate, measure_correlations
from vizcnn.auditing.network import Network
from vizcnn.auditing.proving import COPIED, prove
from vizcnn.auditing.run import measure_margins
from vizcnn.auditing.suspects import Ground, Halves, Suspect, recurs_at


def test_correlations_are_those_of_a_loop() -> None:
    images, pixels = picture((9, 10), count=2), picture((4, 3), seed=1)[0]
    found = measure_correlations(images, pixels)
    assert found.shape == (2, 6, 8)
    for n, y, x in product(range(2), range(6), range(8)):
        part = images[n, :, y : y + 4, x : x + 3]
        assert float(found[n, y, x]) == pytest.approx(float(correlate(part[None], pixels)), abs=1e-4)


def test_noise_on_a_plain_wall_has_no_pattern() -> None:
    wall = 0.5 + 1e-3 * (noise(1, 3, 20, 20).float())
    assert float(measure_correlations(wall, wall[0, :, 4:10, 4:10]).abs().max()) < 0.1


def enlarge(tag: Tensor, side: int) -> Tensor:
    return F.interpolate(tag[None], (side, side), mode="bilinear", antialias=True)[0]


def compress(image: Tensor) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=60)
    return torch.from_numpy(np.asarray(Image.open(stream)) / 255).float().permute(2, 0, 1)


def test_a_changed_tag_is_found_by_its_pattern() -> None:
    tag = enlarge((picture((4, 4), seed=5)[0] > 0.5).float(), 12)
    images, others = picture((40, 40), count=5), picture((40, 40), count=6, seed=1)
    images[0, :, 20:35, 5:20] = enlarge(tag, 15)
    images[1, :, 7:17, 28:38] = enlarge(tag, 10)
    images[2, :, 3:15, 4:16] = (images[2, :, 3:15, 4:16] + tag) / 2
    images[3, :, 11:23, 9:21] = tag
    images[3] = compress(images[3])
    cue = Patch(tag, (0, 0, 12, 12), others)
    found = cue.find_alike(images)
    assert min(found.likeness[:4]) > 0.85
    assert np.abs(found.corners[:4] - [(21, 6), (6, 27), (3, 4), (11, 9)]).max() <= 1
    assert max(found.likeness[4], *cue.find_alike(others).likeness) < 0.7
    assert max(cue.find(images).likeness[:3]) < COPIED


def test_a_template_larger_than_an_image_at_some_sizes_is_found_at_the_others() -> None:
    images = picture((12, 12), count=2)
    found = Template(images[1], images).find_alike(images)
    assert found.likeness[1] == pytest.approx(1, abs=1e-4)
    assert found.corners[1].tolist() == [0, 0]


def test_images_without_texture_have_no_copies() -> None:
    flat = torch.linspace(0.2, 0.8, 12)[:, None, None, None].expand(12, 3, 32, 32).contiguous()
    sample = torch.cat([flat[:4], picture((32, 32), count=8)])
    assert CopySearch(sample, 0).find(flat, flat, 4) == []


def lay_ground(images: Tensor) -> Ground:
    none, labels = np.empty(0, np.int64), np.zeros(len(images), np.int64)
    model = make_model()
    with model.borrowed():
        network = Network(model, images)
    halves = Halves(none, none, labels, labels, labels)
    return Ground(network, halves, np.zeros((len(images), 3)), images[0], np.random.default_rng(0))


def test_a_cue_is_known_where_half_of_the_carriers_have_it_at_the_same_place() -> None:
    images = draw_images(4)[0]
    top, left = CORNER
    place = (top, left, top + 6, left + 6)
    planted, others = plant_tags(images, range(6)), images[6:]
    ground, tag = lay_ground(planted), Patch(TAG, place, others)
    part = Patch(TAG[:, 1:, :5], (top + 1, left, top + 6, left + 5), others)
    spots = [(i, CORNER) for i in range(6)]
    assert recurs_at(ground, part, tag, spots)
    assert recurs_at(ground, tag, part, spots)
    assert recurs_at(ground, part, tag, [*spots[:3], *((i, CORNER) for i in range(6, 9))])
    assert not recurs_at(ground, part, tag, [*spots[:2], *((i, CORNER) for i in range(6, 9))])
    assert not recurs_at(ground, part, tag, [(i, (top + 20, left - 20)) for i in range(6)])


def find_ground(model: vizcnn.Model, images: Tensor, labels: list[int]) -> Ground:
    """Images of which the second half is tested, all of them named as they are labelled."""
    with model.borrowed(), torch.no_grad():
        network = Network(model, images)
        logits = network.read_logits()
    known, everything = np.array(labels), np.arange(len(images))
    halves = Halves(everything[::2], everything[1::2], known, known, known)
    return Ground(network, halves, measure_margins(logits), images.mean(0), np.random.default_rng(0))


@pytest.mark.parametrize(("use", "found"), [(8.0, ("shortcut", "alike")), (0.0, ("dismissed", None))])
def test_a_half_transparent_tag_is_a_shortcut_where_it_decides(use: float, found: tuple[str, str | None]) -> None:
    images, labels = draw_images(72)
    module = Tagged(use)
    module.match.bias.data = torch.tensor([-0.3])  # type: ignore[union-attr]
    model = vizcnn.Model(module, size=SIDE, labels=("red", "green", "blue"), head="logits", name="tagged")
    shone = (images + plant_tags(images, range(0, 72, 3), moving=True)) / 2
    ground = find_ground(model, shone, labels)
    top, left = np.random.default_rng(1).integers(0, SIDE - 6, 2).tolist()  # of the first image's tag
    place = (top, left, top + 6, left + 6)
    cue = Patch(shone[0][:, top : top + 6, left : left + 6], place, shone[72:])
    with model.borrowed(), torch.no_grad():
        evidence = prove(ground, Suspect(0, cue, 0, (top, left), copied=False))
    assert evidence is not None
    assert (evidence.verdict, evidence.carriers.copies) == found
    if use:
        assert sorted(image for image, _ in evidence.carriers.spots) == [*range(3, 72, 6)]
        assert evidence.carriers.share_outside == 0

"""The parts of an audit against slow references: margins, places, likeness, controls, statistics."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from support import noise, picture

from vizcnn.auditing.cues import Colour, Frame, Patch, Spot, read_levels, set_levels
from vizcnn.auditing.matching import Template, measure_distances
from vizcnn.auditing.network import find_margins, to_logits
from vizcnn.auditing.places import Place, choose_apart, choose_control, make_windows, measure_common, mirror
from vizcnn.auditing.proving import compare_with_controls, judge
from vizcnn.auditing.run import measure_margins
from vizcnn.auditing.statistics import find_smallest_share, measure_interval
from vizcnn.results.evidence import Effect


def list_px(place: Place) -> set[tuple[int, int]]:
    return set(product(range(place[0], place[2]), range(place[1], place[3])))


def test_the_margin_is_the_lead_over_the_best_other_class() -> None:
    logits, labels = noise(20, 5), torch.arange(20) % 5
    for row, label, margin in zip(logits.tolist(), labels.tolist(), find_margins(logits, labels).tolist(), strict=True):
        assert margin == pytest.approx(row[label] - max(row[:label] + row[label + 1 :]))


def test_the_margins_of_all_classes_are_those_of_each() -> None:
    logits = noise(20, 5)
    logits[3, 1] = logits[3, 4] = 9.0  # two that lead together have no lead
    each = [find_margins(logits, torch.full((20,), k)).numpy() for k in range(5)]
    assert np.array_equal(measure_margins(logits.numpy()), np.stack(each, 1))


def test_all_heads_give_the_same_margins() -> None:
    logits, labels = noise(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = find_margins(logits, labels)
    for output, head in ((logits.softmax(1), "softmax"), (logits.log_softmax(1), "log-softmax")):
        assert torch.allclose(find_margins(to_logits(output, head), labels), wanted)  # type: ignore[arg-type]
    one = noise(6, 1)
    assert torch.allclose(to_logits(one.sigmoid(), "sigmoid"), to_logits(one, "logits"))
    assert torch.allclose(find_margins(to_logits(one, "logits"), torch.ones(6).long()), one[:, 0])


def test_windows_that_do_not_touch_are_the_best_that_are_apart() -> None:
    windows = make_windows((28, 32), 7, 0.2)
    assert len(windows) == 49
    assert {(bottom - top, right - left) for top, left, bottom, right in windows} == {(6, 6)}
    assert max(window[3] for window in windows) == 32
    values = noise(5, 49).numpy()
    for row, chosen in zip(values, choose_apart(values, windows, 4), strict=True):
        taken: list[int] = []
        for k in np.argsort(-row):
            if len(taken) < 4 and not any(list_px(windows[k]) & list_px(windows[j]) for j in taken):
                taken.append(int(k))
        assert chosen.tolist() == taken


@pytest.mark.parametrize("place", [(1, 2, 6, 9), (0, 24, 5, 32), (12, 13, 18, 19), (2, 2, 30, 30)])
def test_a_control_is_as_large_and_apart_where_there_is_room(place: Place) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        control = choose_control(place, (32, 32), rng)
        assert len(list_px(control)) == len(list_px(place))
        assert list_px(control) <= list_px((0, 0, 32, 32))
        assert measure_common(place, control) == len(list_px(place) & list_px(control))
        assert place == (2, 2, 30, 30) or not measure_common(place, control)
    for other in mirror(place, (32, 32)):
        assert min(other[0], 32 - other[2]) == min(place[0], 32 - place[2])


def test_distances_are_those_of_a_loop() -> None:
    images, pixels = picture((9, 10), count=2), picture((4, 3), seed=1)[0]
    found = measure_distances(images, pixels)
    for n, y, x in product(range(2), range(6), range(8)):
        part = images[n, :, y : y + 4, x : x + 3]
        assert float(found[n, y, x]) == pytest.approx(float((part - pixels).square().sum()), abs=1e-4)


def test_a_copy_is_found_at_its_place_and_smooth_px_are_no_copy() -> None:
    images, others = picture((40, 40), count=4), picture((40, 40), count=6, seed=1)
    tag = (noise(3, 8, 8).float() > 0).float()
    images[2, :, 20:28, 5:13] = tag
    found = Template(tag, others).find(images)
    assert found.corners[2].tolist() == [20, 5]
    assert found.likeness[2] == pytest.approx(1, abs=1e-4)
    assert max(found.likeness[[0, 1, 3]]) < 0.8
    ramp = torch.linspace(0.5, 0.52, 40).expand(3, 40, 40)
    sky, paint = ramp[:, 10:18, 10:18], ramp.mT[None]
    assert not Template(sky, others).has_texture
    assert Template(sky, others).find(paint).likeness[0] < 0.8


@pytest.mark.parametrize(("size", "side"), [((160, 160), 40), ((61, 83), 13)])
def test_a_template_is_found_at_any_px(size: tuple[int, int], side: int) -> None:
    others = picture(size, count=8, seed=1)
    stripes = ((torch.arange(side) % 3 == 0).float() * torch.tensor([0.9, 0.7, 0.2])[:, None, None]).expand(3, side, -1)
    for tag in (picture((side, side), seed=7)[0], stripes):
        images, corners = picture(size, count=6), [(1, 0), (0, 7), (10, 11), (47, 46), (13, 20), (8, 3)]
        for image, (top, left) in zip(images, corners, strict=True):
            image[:, top : top + side, left : left + side] = tag
        found = Template(tag, others).find(images)
        assert found.corners.tolist() == [list(corner) for corner in corners]
        assert found.likeness == pytest.approx(1, abs=1e-4)


def test_pasting_and_removing_change_the_place_and_nothing_else() -> None:
    image, donor, other, fill = (picture((20, 20), seed=seed)[0] for seed in range(4))
    cue, rng = Patch(donor[:, 2:7, 3:8], (2, 3, 7, 8), picture((20, 20), count=3)), np.random.default_rng(0)
    pasted = cue.paste(image, donor, Spot((10, 4), rng))
    inside = torch.zeros(20, 20, dtype=torch.bool)
    inside[10:15, 4:9] = True
    assert torch.equal(pasted, torch.where(inside, donor, image))
    for removed in cue.remove(image, Spot((10, 4), rng), other, fill):
        assert torch.equal(removed[:, ~inside], image[:, ~inside])
        assert not torch.equal(removed, image)
    control = cue.paste(image, donor, Spot((10, 4), rng, control=True))
    assert torch.equal(control[:, inside], image[:, inside])
    assert int((control != image).any(0).sum()) <= 25


def test_a_frame_is_the_outermost_px() -> None:
    image, donor = picture((20, 24))[0], picture((20, 24), seed=1)[0]
    cue, rng = Frame(donor, 2, picture((20, 24), count=3, seed=2)), np.random.default_rng(0)
    pasted = cue.paste(image, donor, Spot((0, 0), rng))
    assert torch.equal(pasted[:, 2:-2, 2:-2], image[:, 2:-2, 2:-2])
    assert torch.equal(pasted[:, :2], donor[:, :2])
    assert cue.find(torch.stack([pasted, image])).likeness.tolist() == pytest.approx(
        [1, cue.find(image[None]).likeness[0]]
    )
    assert cue.find(image[None]).likeness[0] < 0.8


@pytest.mark.parametrize("size", [(28, 28), (20, 24), (9, 9)])
def test_each_way_to_remove_a_frame_has_a_control(size: tuple[int, int]) -> None:
    image, donor, other, fill = (picture(size, seed=seed)[0] for seed in range(4))
    cue, rng = Frame(donor, 1 + size[0] // 10, picture(size, count=3, seed=5)), np.random.default_rng(0)
    for control in (False, True):
        made = cue.remove(image, Spot((0, 0), rng, control), other, fill)
        changed = [(one != image).any(0) for one in made]
        assert all(torch.equal(each, changed[0]) for each in changed), "the same px in three ways"
        assert changed[0].any()
        assert bool(changed[0][0, 0]) != control


def test_a_frame_ends_and_a_plain_background_does_not() -> None:
    others = picture((30, 30), count=4)
    framed, catalogue = picture((30, 30), seed=1)[0], torch.ones(3, 30, 30)
    framed[:, 2:-2, 2:-2] *= 0.8
    framed[:, :2], framed[:, -2:], framed[:, :, :2], framed[:, :, -2:] = 1, 1, 1, 1
    catalogue[:, 1:28, 8:20] = picture((27, 12), seed=2)[0]
    assert Frame(framed, 2, others).may_be_copied
    assert not Frame(catalogue, 1, others).may_be_copied
    assert not Frame(catalogue, 2, others).may_be_copied


def test_levels_are_given_and_stretched_no_more_than_twice() -> None:
    image, donor = picture((30, 30))[0], 0.4 + 0.2 * picture((30, 30), seed=1)[0]
    levels = read_levels(donor[None])[0]
    assert torch.allclose(levels, torch.quantile(donor.flatten(1), torch.tensor([0.02, 0.98]), dim=1).T, atol=0.01)
    assert torch.allclose(read_levels(set_levels(image, levels)[None])[0].mean(1), levels.mean(1), atol=1e-4)
    narrow = 0.5 + 0.01 * image
    wide = set_levels(narrow, torch.tensor([[0.0, 1.0]] * 3))
    assert float(wide.std()) <= 2.01 * float(narrow.std())
    assert not Colour(donor, picture((30, 30), count=4, seed=2)).may_be_copied


def test_the_stricter_of_two_controls_counts() -> None:
    rng = np.random.default_rng(0)
    cue, mirrored, same = rng.normal(2, 1, 30), rng.normal(-1, 1, 30), rng.normal(0, 1, 30)
    effect = compare_with_controls(cue, [mirrored, same])
    differences = [a - b for a, b in zip(cue, same, strict=True)]
    mean = sum(differences) / 30
    deviation = math.sqrt(sum((each - mean) ** 2 for each in differences) / 29)
    half = stats.t.ppf(0.975, 29) * deviation / math.sqrt(30)
    assert (effect.difference, effect.low, effect.high) == pytest.approx((mean, mean - half, mean + half))
    assert effect.rate == sum(each > 0 for each in cue) / 30
    assert effect.control == max(sum(each > 0 for each in control) / 30 for control in (mirrored, same))


def test_an_interval_of_one_image_is_infinite_and_of_equal_ones_has_a_width() -> None:
    assert measure_interval(np.array([3.0]))[1:] == (-math.inf, math.inf)
    mean, low, high = measure_interval(np.full(5, 2.0))
    assert low < mean == 2 < high


@pytest.mark.parametrize(("images", "share"), [(64, 0.2), (128, 0.1)])
def test_what_a_folder_can_prove_is_what_draws_of_halves_say(images: int, share: float) -> None:
    found = find_smallest_share(images, images // 2)
    assert found is not None
    assert found == pytest.approx(share, abs=0.01)
    carriers, rng = round(found * images), np.random.default_rng(0)
    draws = np.array([(rng.permutation(images)[: images // 2] < carriers).sum() for _ in range(2000)])
    assert ((draws >= 3) & (carriers - draws >= 3)).mean() > 0.97
    assert find_smallest_share(6, 3) is not None
    assert find_smallest_share(5, 2) is None


def effect(rate: float = 0.5, difference: float = 2.0, low: float = 1.0, control: float = 0.0) -> Effect:
    return Effect(rate, control, difference, low, difference + 1, 20)


@pytest.mark.parametrize(
    ("pasted", "removed", "carriers", "copied", "verdict"),
    [
        (effect(), effect(), 5, True, "shortcut"),
        (effect(), effect(), 5, False, "part"),
        (effect(), effect(), 2, True, "suspicion"),
        (effect(), None, 5, True, "suspicion"),
        (effect(), effect(low=-0.1), 5, True, "suspicion"),
        (effect(), effect(difference=0.9, low=0.5), 5, True, "suspicion"),
        (effect(difference=0.9, low=0.5), effect(), 5, True, "dismissed"),
        (effect(low=-0.1), effect(), 5, True, "dismissed"),
        (effect(rate=0.05), effect(rate=0.05), 5, True, "dismissed"),
        (effect(rate=0.05), effect(rate=0.5), 5, True, "shortcut"),
        (effect(rate=0.5, control=0.45), effect(rate=0.05), 5, True, "dismissed"),
    ],
)
def test_a_verdict_needs_both_interventions(
    pasted: Effect, removed: Effect | None, carriers: int, copied: bool, verdict: str
) -> None:
    assert judge(pasted, removed, usual=4.0, carriers=carriers, copied=copied) == verdict

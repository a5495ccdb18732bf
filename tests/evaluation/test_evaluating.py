"""evaluate: anyone's maps of one image, of networks of which it is known what they need."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from support import picture, small_cnn
from support_evaluation import Counting, Maps, Regions, bump, regions
from torch import nn

import vizcnn
from vizcnn.errors import (
    DegenerateResult,
    NonFiniteResult,
    ParameterError,
    ShapeError,
    TargetError,
    VizcnnError,
)
from vizcnn.evaluation.cells import compare
from vizcnn.evaluation.steadiness import choose_distance, measure_steadiness, move_image
from vizcnn.results.trust import Trust

SIZE = (48, 48)
IMAGE = 0.6 + 0.4 * picture(SIZE)[0]  # bright all over, so that black costs everywhere
ASK: dict[str, Any] = {"fill": "black", "progress": False}


def judge(maps: Any, target: Any = "upper left", model: vizcnn.Model | None = None, **options: Any) -> Any:
    return vizcnn.evaluate(model or regions(), IMAGE, maps, target, **{**ASK, **options})


def explain(index: int) -> Maps:
    """What the network looks at for a class."""
    return bump(SIZE, index)


def draw_edges(_: Any) -> Maps:
    """Where the image changes, whatever is asked."""
    grey = IMAGE.mean(0).numpy()
    found: Maps = np.hypot(*np.gradient(grey))
    return found


def test_a_map_of_what_the_network_sums_is_supported_and_one_of_elsewhere_is_not() -> None:
    found = judge({str(k): bump(SIZE, k) for k in range(4)}, contrast={"0": explain})
    assert found["0"].need > 98
    assert found["0"].verdict == "supported"
    assert all(found[str(k)].need < 70 for k in (1, 2, 3))
    assert all(found[str(k)].verdict == "no better than chance" for k in (1, 2, 3))
    assert found["0"].correlation > 0.8 > 0.2 > found["0"].blob
    assert {one.runs for one in found.values()} == {101}


def test_each_class_needs_its_own_quarter() -> None:
    for k, name in enumerate(("upper left", "upper right", "lower left", "lower right")):
        found = judge([*bump(SIZE, k)], name, contrast=explain)
        assert isinstance(found, Trust)
        assert found.verdict == "supported"
        assert found.contrast is not None
        assert found.contrast < 0.1
        assert found.contrast_target not in ("", name)


def test_a_map_that_knows_no_class_is_not_to_be_read_as_reasons() -> None:
    found = judge(draw_edges(0), contrast=draw_edges)
    assert found.contrast == pytest.approx(1)
    assert found.verdict == "do not read as reasons"
    assert found.sentences[0].startswith("much the same map (1.00) for ")


def test_of_two_classes_a_map_without_signs_may_be_the_same_for_both() -> None:
    """What speaks for one speaks against the other: only signs could tell the maps apart."""
    signed = draw_edges(0) - draw_edges(0).mean()
    two = nn.Sequential(Regions(), nn.AdaptiveAvgPool1d(2))
    found = judge(
        {"magnitudes": draw_edges(0), "signed": signed},
        0,
        vizcnn.Model(two, size=SIZE),
        contrast={"magnitudes": draw_edges, "signed": lambda _: signed},
    )
    assert found["magnitudes"].contrast is None
    assert "can be the same for both of two classes" in found["magnitudes"].describe()
    assert found["signed"].verdict == "do not read as reasons"


def test_without_contrast_nothing_is_called_supported() -> None:
    found = judge(explain(0))
    assert (found.contrast, found.verdict) == (None, "contrast not tested")
    assert "not tested on another class: no map of another class was given" in found.describe()


def test_the_contrast_is_the_class_of_middling_rank_by_its_index() -> None:
    """Of the others: never the second, whose evidence may be shared, nor the last."""
    asked: list[int] = []

    def make(index: int) -> Maps:
        asked.append(index)
        return explain(index)

    model = regions()
    found = judge(explain(1), "upper right", model, contrast=make)
    output = model(IMAGE[None])[0]
    others = [i for i in output.argsort(descending=True).tolist() if i != 1]
    assert asked == [others[2]]
    assert type(asked[0]) is int
    assert found.contrast_target == model.class_name(others[2])


@pytest.mark.parametrize(
    ("network", "target", "labels", "note"),
    [
        (nn.Sequential(small_cnn(classes=1)), None, None, "has one output, and no other class"),
        (Regions(), vizcnn.target("upper left") - vizcnn.target("upper right"), True, "is no class"),
        (Regions(), -vizcnn.target("upper left"), True, "is the opposite of a class"),
        (Regions(), lambda raw: raw[:, 0] * raw[:, 1], True, "is no class"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "0@5,7", None, "no class of the whole image"),
        (small_cnn(), "0:3", None, "is no class"),
    ],
)
def test_where_there_is_no_other_class_this_is_said(network: nn.Module, target: Any, labels: Any, note: str) -> None:
    torch.manual_seed(0)
    model = regions(network=network) if labels else vizcnn.Model(network, size=SIZE)

    def never(index: int) -> Maps:
        raise AssertionError(index)

    found = judge(draw_edges(0), target, model, contrast=never)
    assert note in found.contrast_note
    assert note in found.describe()
    assert found.verdict in ("contrast not tested", "no better than chance")


def test_maps_of_any_form_and_resolution_are_judged_alike() -> None:
    whole = explain(0)
    forms = {
        "array": whole,
        "tensor": torch.from_numpy(whole).requires_grad_(),
        "bfloat16": torch.from_numpy(whole).bfloat16(),
        "with a channel": whole[None],
        "of a batch": torch.from_numpy(whole)[None, None],
        "lists": whole.tolist(),
        "mask of a pen": whole > 0.3,
        "bytes": (255 * whole).astype(np.uint8),
        "twice as fine": whole.repeat(2, 0).repeat(2, 1),
        "coarse": whole.reshape(12, 4, 12, 4).mean((1, 3)),
        "coarser than the grid": whole.reshape(4, 12, 4, 12).mean((1, 3)),
    }
    found = judge(forms)
    assert list(found) == list(forms)
    assert all(one.need > 95 for one in found.values())
    assert found["array"] == found["tensor"] == found["with a channel"] == found["of a batch"] == found["lists"]
    assert found["array"] == judge(whole)


def test_a_map_spans_what_the_network_sees(photo_file: Path) -> None:
    """Of a photograph of 60 x 90 px, its middle."""
    model = vizcnn.Model(Regions(), size=SIZE, labels=["a", "b", "c", "d", "e"])
    seen = vizcnn.evaluate(model, photo_file, explain(0), "a", progress=False)
    assert seen.runs == 101
    with pytest.raises(ShapeError, match=r"the photograph's size, \(60, 90\), .*map\[0:60, 15:75\]"):
        vizcnn.evaluate(model, photo_file, np.random.default_rng(0).random((60, 90)), "a", progress=False)
    with pytest.raises(ShapeError, match="sides are as 20 to 30 and those of the network's input as 48 to 48"):
        vizcnn.evaluate(model, photo_file, np.random.default_rng(0).random((20, 30)), "a", progress=False)
    whole = vizcnn.Model(Regions(), size=SIZE, fit="stretch", labels=["a", "b", "c", "d", "e"])
    assert vizcnn.evaluate(whole, photo_file, np.random.default_rng(0).random((60, 90)), "a", progress=False).runs


WRONG: dict[str, tuple[Any, type[VizcnnError], str]] = {
    "channels": (np.zeros((3, 48, 48)), ShapeError, r"got \(3, 48, 48\). Of .*give the sum over channels"),
    "a batch of channels": (torch.zeros(1, 3, 48, 48), ShapeError, "the sum over channels"),
    "two maps": (np.zeros((2, 48, 48)), ShapeError, "a map is"),
    "a row": (np.zeros(48), ShapeError, r"got \(48,\)"),
    "nothing": (np.zeros((0, 48)), ShapeError, r"got \(0, 48\)"),
    "a number": (3.0, ShapeError, r"got \(\)"),
    "a text": ("map.png", ParameterError, "real numbers, got 'map.png'"),
    "None": (None, ParameterError, "real numbers, got None"),
    "lists of several lengths": ([[1.0], [1.0, 2.0]], ParameterError, "got list"),
    "complex numbers": (np.zeros(SIZE, complex), ParameterError, "ndarray of complex128"),
    "NaN": (np.full(SIZE, np.nan), NonFiniteResult, "NaN or infinity"),
    "the same all over": (np.ones(SIZE), DegenerateResult, "even all over"),
    "no maps": ({}, ParameterError, "at least one"),
    "names that are none": ({1: np.ones(SIZE)}, ParameterError, "from texts to maps"),
    "one bad of two": ({"good": bump(SIZE, 0), "bad": np.ones(SIZE)}, DegenerateResult, "map 'bad': the map is even"),
}


@pytest.mark.parametrize(("maps", "kind", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_map_is_refused(maps: Any, kind: type[VizcnnError], said: str) -> None:
    with pytest.raises(kind, match=said):
        judge(maps)


def test_what_else_is_wrong_is_refused_before_any_covering() -> None:
    counting = Counting(Regions())
    model, good = regions(network=counting), explain(0)
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"contrast": np.zeros((2, 48, 48))}, "contrast: a map is"),
        ({"maps": np.ones(SIZE)}, "even all over"),
        ({"steadiness": good}, "steadiness is a function from an image to a map, got ndarray"),
        ({"target": ["upper left", "lower left"]}, "the maps explain one target, got 2"),
        ({"maps": {"a": good}, "contrast": explain}, "contrast of maps with names is a mapping by the same names"),
        ({"maps": {"a": good}, "contrast": {"A": explain}}, "contrast names 'A', .* Did you mean 'a'"),
        ({"fill": "blurr"}, "fill must be"),
        ({"seed": 1.5}, "evaluate: seed must be a whole number of at least 0 .* got 1.5"),
    ]
    for options, said in mistakes:
        counting.images = 0
        with pytest.raises(VizcnnError, match=said):
            judge(**{"maps": good, "model": model, **options})
        assert counting.images < 10
    with pytest.raises(ParameterError, match="takes one image, got 2"):
        vizcnn.evaluate(model, [IMAGE, IMAGE], good, 0, progress=False)
    with pytest.raises(ParameterError, match=r"evaluate needs a vizcnn.Model, got Regions"):
        vizcnn.evaluate(Regions(), IMAGE, good)  # type: ignore[call-overload]
    with pytest.raises(TargetError, match="no class or layer target named 'uper left'"):
        judge(good, "uper left")


class Empty(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :0]


def test_a_target_that_nothing_changes_and_empty_outputs_are_refused() -> None:
    with pytest.raises(DegenerateResult, match="by no more than rounding"):
        judge(explain(0), "same")
    with pytest.raises(VizcnnError):
        judge(explain(0), None, regions(network=Empty()))
    with pytest.raises(TargetError):
        judge(explain(0), 0, vizcnn.Model(Empty(), size=SIZE))


def test_a_result_of_ours_is_judged_for_its_own_targets() -> None:
    model = regions()
    occlusion = vizcnn.Occlusion(window=16, stride=8, fill="black", engine="plain")
    result = occlusion(model, IMAGE, ["upper left", "lower right"], progress=False)
    others = occlusion(model, IMAGE, ["lower right", "upper right"], progress=False)
    found = vizcnn.evaluate(model, IMAGE, result, contrast=others, **ASK)
    assert list(found) == ["upper left", "lower right"]
    assert [one.verdict for one in found.values()] == ["supported"] * 2
    assert [one.contrast_target for one in found.values()] == ["lower right", "upper right"]
    assert found["lower right"] == vizcnn.evaluate(
        model, IMAGE, result.values[0, 1], 3, contrast=replace(
            others, values=others.values[:, 1:], provenance=replace(
                others.provenance, targets=(("upper right",),), target_specs=(("1",),)
            )
        ), **ASK
    )  # fmt: skip
    shared = vizcnn.evaluate(model, IMAGE, result, contrast=explain, **ASK)
    assert all(one.contrast_target for one in shared.values())


def test_a_result_of_another_image_or_target_is_refused() -> None:
    model = regions()
    make = vizcnn.Occlusion(window=16, stride=8, fill="black", engine="plain")
    result = make(model, IMAGE, "upper left", progress=False)
    several = make(model, torch.stack([IMAGE, IMAGE.flip(-1)]), "upper left", progress=False)
    for maps, target, options, said in [
        (make(model, IMAGE.flip(-1), "upper left", progress=False), None, {}, "pixels are others"),
        (result, "upper right", {}, "the Heatmap explains 0, and the target is 1"),
        ({"ours": result}, "upper right", {}, "map 'ours': the Heatmap explains 0"),
        (several, None, {}, r"is of 2 images. Take one of them: heatmap.select\(\[0\]\)"),
        ({"ours": several}, "upper left", {}, "is of 2 images"),
        (result, None, {"contrast": result}, "contrast: it explains upper left, as the map does"),
    ]:
        with pytest.raises(ParameterError, match=said):
            judge(maps, target, model, **options)
    assert judge(several.select([0]), None, model)["upper left"].need > 90


def test_a_map_finer_than_a_tiny_input_is_shared_out_by_its_pixels() -> None:
    size = (5, 7)
    network = nn.Sequential(nn.Flatten(), nn.Linear(35, 3))
    model, image = vizcnn.Model(network, size=size, channels=1), picture(size, 1)[0]
    values = np.random.default_rng(0).random(size)
    coarse, fine = (
        vizcnn.evaluate(model, image, maps, 0, contrast=np.zeros(size), progress=False)
        for maps in (values, values.repeat(40, 0).repeat(40, 1))
    )
    assert fine == coarse


def test_another_class_need_not_be_one_that_was_not_chosen() -> None:
    """For a class that was not predicted the person's own contrast may be the one that was."""
    said = judge(explain(0), contrast=explain(0)).describe()
    assert said.startswith("! do not read as reasons: much the same map (1.00) for another class; better than")
    assert "choose" not in said


def test_the_same_seed_gives_the_same_and_another_other_halves() -> None:
    image, model = picture(SIZE, seed=4)[0], vizcnn.Model(small_cnn(), size=SIZE)
    values = np.random.default_rng(1).standard_normal(SIZE)
    one, same, other = (vizcnn.evaluate(model, image, values, 2, seed=s, progress=False) for s in (0, 0, 1))
    assert one == same
    assert one.correlation != other.correlation
    state = torch.get_rng_state()
    judge(explain(0))
    assert torch.equal(state, torch.get_rng_state())


def test_more_maps_take_no_more_runs() -> None:
    counts = []
    for maps in (explain(0), {str(k): np.random.default_rng(k).random(SIZE) for k in range(20)}):
        network = Counting(Regions())
        judge(maps, "upper left", regions(network=network))
        counts.append(network.images)
    assert counts[0] == counts[1] <= 100 + 5  # the image alone, and beside others in two memory formats


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails: bool) -> None:
    network = small_cnn().train()
    first, second = network[0], network[3]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    first.weight.requires_grad_(False)
    second.weight.grad = torch.ones_like(second.weight)
    calls: list[bool] = []
    handle = first.register_forward_hook(lambda *_: calls.append(True))
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def look(_: int) -> Maps:
        assert network.training  # as the person has it
        if fails:
            raise ZeroDivisionError
        return explain(1)

    model = vizcnn.Model(network, size=SIZE)
    if fails:
        with pytest.raises(ZeroDivisionError):
            judge(explain(0), 2, model, contrast=look)
    else:
        judge(explain(0), 2, model, contrast=look)
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == [False, *[True] * 5]
    assert torch.equal(second.weight.grad, torch.ones_like(second.weight))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [*first._forward_hooks] == [handle.id]


def test_maps_of_captum_are_taken_as_they_are() -> None:
    """Integrated gradients of a linear network add up exactly to the difference."""
    model, image = regions(), IMAGE.double()[None]

    def attribute(index: int, image: torch.Tensor = image) -> torch.Tensor:
        found: torch.Tensor = IntegratedGradients(model).attribute(image, target=index, n_steps=2).sum(1)
        return found

    asked: dict[str, Any] = {"contrast": attribute, "steadiness": lambda image: attribute(0, image)}
    found = judge(attribute(0), 0, model, completeness=torch.zeros(3, *SIZE), **asked)
    assert found.verdict == "supported"
    assert found.missing == pytest.approx(0, abs=1e-5)
    half = judge({"half": attribute(0) / 2, "whole": attribute(0)}, 0, model, completeness={"half": "black"})
    assert half["half"].missing == pytest.approx(0.5, abs=1e-5)
    assert half["whole"].missing is None
    assert found.steadiness is not None
    for baseline, said in [("blur", "the blurred image itself"), (torch.zeros(3, 5, 5), "a baseline is a fill or an")]:
        with pytest.raises(ParameterError, match=said):
            judge(attribute(0), 0, model, completeness=baseline)
    with pytest.raises(DegenerateResult, match="scores the same for the baseline"):
        judge(attribute(0), 0, model, completeness=IMAGE)


@pytest.mark.parametrize(("side", "distance"), [(224, 4), (64, 1), (20, 1), (112, 2), (299, 5)])
def test_the_picture_is_moved_by_a_56th(side: int, distance: int) -> None:
    assert choose_distance((side, side + 10)) == distance
    image = torch.arange(2.0 * 9 * 7).view(2, 9, 7)
    moved = move_image(image, 2)
    assert torch.equal(moved[:, 2:, 2:], image[:, :-2, :-2])
    assert torch.equal(moved[:, :3, 2:], image[:, :1, :-2].expand(2, 3, 5))


def test_a_map_that_moves_with_the_picture_is_steady_and_one_that_stays_is_not() -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 112, 112)))
    own = image[0].numpy()

    def enlarge(image: torch.Tensor) -> Maps:
        found: Maps = image[0, 0].numpy().repeat(2, 0).repeat(2, 1)
        return found

    assert measure_steadiness(own, image, lambda x: x[0, 0].numpy()) == pytest.approx(1)
    assert measure_steadiness(enlarge(image[None]), image, enlarge) == pytest.approx(1)
    stays = measure_steadiness(own, image, lambda _: own)
    assert stays == pytest.approx(compare(own[:-2, :-2], own[2:, 2:]))
    assert stays < 0.9


def test_a_black_box_can_be_asked() -> None:
    plain = regions()
    own = regions(network=lambda x: plain(torch.from_numpy(x)).numpy())  # type: ignore[arg-type]
    right, found = judge(explain(0), contrast=explain), judge(explain(0), "upper left", own, contrast=explain)
    assert found.verdict == right.verdict == "supported"
    assert found.correlation == pytest.approx(right.correlation, abs=0.01)


def test_needs_fall_as_maps_get_worse() -> None:
    noise = np.random.default_rng(0).standard_normal(SIZE)
    found = judge({str(share): explain(0) + share * noise for share in (0, 3, 30)})
    assert all(a.correlation > b.correlation for a, b in pairwise(found.values()))

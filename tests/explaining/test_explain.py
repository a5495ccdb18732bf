"""explain(): what it says of networks of which the answer is known, what it refuses, and what it leaves behind."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from support import draw_photo, picture, small_cnn
from support_explaining import CELL, cells_of, light_cell, make_lamp
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, ParameterError, TargetError, UnsuitableNetwork
from vizcnn.evaluation.cells import compare
from vizcnn.explaining.explain import Explain


def explain(model: vizcnn.Model, image: Any, target: Any = None, **options: Any) -> vizcnn.Explanation:
    return vizcnn.explain(model, image, target, **{"quick": True, "progress": False, **options})


@pytest.fixture(scope="module")
def lit() -> vizcnn.Explanation:
    return explain(make_lamp(), light_cell(), quick=False)


def test_the_cell_that_decides_is_all_that_changes_and_all_that_keeps_the_answer(lit: vizcnn.Explanation) -> None:
    assert (lit.top.label, lit.rival.label) == ("lit", "dark")
    assert lit.flip is not None
    assert lit.keep is not None
    assert np.array_equal(lit.flip.covered, cells_of(CELL))
    assert lit.flip.answer.label == "dark"
    assert np.array_equal(lit.keep.covered, ~cells_of(CELL))
    assert lit.keep.answer.label == "lit"


def test_what_is_reported_of_a_covering_is_what_the_network_says_of_that_picture(lit: vizcnn.Explanation) -> None:
    model = make_lamp()
    for change in (lit.flip, lit.keep):
        assert change is not None
        with torch.no_grad():
            output = model(torch.from_numpy(change.pixels).permute(2, 0, 1)[None])[0]
        assert float(output[change.answer.number]) == pytest.approx(change.answer.score, abs=1e-5)
        assert change.answer.probability == pytest.approx(float(output.softmax(0).max()), abs=1e-6)


def test_maps_point_at_the_cell_and_words_say_so(lit: vizcnn.Explanation) -> None:
    assert {one.method for one in lit.maps} >= {"Occlusion", "Integrated gradients", "RISE"}
    assert all(one.trust.runs == 101 for one in lit.maps)
    assert lit.consensus is not None
    rows, columns = lit.consensus.ranks.shape
    row, column = divmod(int(lit.consensus.ranks.argmax()), columns)
    assert (row * 6 // rows, column * 6 // columns) == CELL
    assert 3 <= len(lit.sentences) <= 4
    assert "“lit”" in lit.sentences[0]
    assert "Covering 1 of 36 parts of the image changes the answer to “dark”" in lit.sentences[2]


def test_a_map_of_the_answer_rather_than_its_rival_is_that_of_their_difference(lit: vizcnn.Explanation) -> None:
    assert lit.rather is not None
    model = make_lamp()
    apart = vizcnn.target("lit") - vizcnn.target("dark")
    found = vizcnn.Occlusion(stride=1)(model, light_cell(), apart, progress=False)
    assert lit.rather.values == pytest.approx(found.values[0, 0], abs=1e-5)
    other = vizcnn.target("third") - vizcnn.target("dark")
    third = vizcnn.Occlusion(stride=1)(model, light_cell(), other, progress=False).values[0, 0].astype(float)
    likeness = compare(lit.rather.values.astype(float), third)
    assert lit.rather.trust.contrast == pytest.approx(likeness, abs=0.02)


def test_the_class_that_is_asked_for_is_compared_with_what_the_network_says() -> None:
    found = explain(make_lamp(), light_cell(), "dark")
    assert (found.asked.label, found.rival.label, found.top.label) == ("dark", "lit", "lit")
    assert found.flip is not None
    assert np.array_equal(found.flip.covered, cells_of(CELL))
    assert "this page is about “dark”" in found.sentences[0]


def test_an_answer_that_nothing_changes_is_said_to_stay() -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([9 + images.mean((1, 2, 3)), images.amax((1, 2, 3))], 1)

    found = explain(vizcnn.Model(Blind(), size=12, name="blind"), picture((12, 12)))
    assert found.flip is None
    assert found.keep is not None
    assert found.keep.covered.all()
    assert "even with everything covered" in found.sentences[2]


class Skipping(nn.Module):
    """The last maps come from a sum with what lies before their layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.act = nn.ReLU()  # runs twice

    def forward(self, images: Tensor) -> Tensor:
        first = self.act(self.first(images))
        return self.last(self.act(first[:, :, 1:-1, 1:-1] + self.second(first)).mean((2, 3)))  # type: ignore[no-any-return]


class Counting(nn.Module):
    """Takes the number of images from its input: what lies behind a layer cannot be run with more of them."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.last = nn.Conv2d(3, 5, 4, stride=4), nn.Linear(45, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.maps(images).relu().reshape(len(images), -1))  # type: ignore[no-any-return]


class Concatenating(Counting):
    """Maps that meet others of the input: joining them needs as many images of both."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(72, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(torch.cat([self.maps(images), images[:, :, ::4, ::4]], 1).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [lambda: small_cnn(classes=4), Skipping, Counting, Concatenating])
def test_the_effect_of_a_unit_is_what_a_run_without_it_loses(make: Any) -> None:
    torch.manual_seed(0)
    network, image = make().eval(), picture((12, 12))
    found = explain(vizcnn.Model(network, size=12, name="made"), image)
    module, index = network.get_submodule(found.layer), found.asked.number
    effects, calls = {}, [0, 0]
    with torch.no_grad():
        counted = module.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
        clean = network(image[None] if image.dim() == 3 else image)[0, index]
        counted.remove()
        for channel in range(found.channels):

            def silence(_module: nn.Module, _inputs: Any, output: Tensor, channel: int = channel) -> Tensor | None:
                calls[1] += 1
                if calls[1] % calls[0]:
                    return None
                output = output.clone()
                output[:, channel] = 0
                return output

            handle = module.register_forward_hook(silence)
            effects[f"{found.layer}:{channel}"] = float(clean - network(image.view(1, 3, 12, 12))[0, index])
            handle.remove()
    best = sorted((name for name in effects if effects[name] > 1e-6), key=lambda name: -effects[name])[:4]
    assert [unit.target for unit in found.units] == best
    for unit in found.units:
        assert unit.effect == pytest.approx(effects[unit.target], abs=1e-5)


def test_a_layer_with_a_channel_for_each_class_gives_way_to_the_one_before() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    assert explain(vizcnn.Model(network, size=12), picture((12, 12))).layer == "1"


def test_a_black_box_is_explained_by_what_covering_it_does() -> None:
    lamp = make_lamp().network

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return lamp(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]

    model = vizcnn.Model(answer, size=24, labels=["dark", "lit", "third"], name="box")
    found = explain(model, light_cell(), quick=False)
    assert [one.method for one in found.maps] == ["Occlusion", "RISE"]
    assert [name for name, _ in found.left_out] == ["Grad-CAM", "Integrated gradients"]
    assert not found.units
    assert "black box" in found.units_note
    assert found.flip is not None
    assert np.array_equal(found.flip.covered, cells_of(CELL))
    with pytest.raises(ParameterError, match="a black box has no units to show from an index"):
        explain(model, light_cell(), index="nowhere")


def test_quick_leaves_rise_out_and_says_so() -> None:
    found = explain(make_lamp(), light_cell())
    assert ("RISE", "left out to be quick") in found.left_out
    assert {one.trust.runs for one in found.maps} == {53}


def test_two_classes_have_no_third_to_compare_their_difference_with() -> None:
    found = explain(vizcnn.Model(small_cnn(classes=2), size=12), picture((12, 12)))
    assert {one.trust.contrast_target for one in found.maps} == {found.rival.label}
    assert all(one.trust.contrast is not None for one in found.maps)
    assert found.rather is not None
    assert found.rather.trust.verdict in ("contrast not tested", "no better than chance")
    assert not any("rather than" in sentence for sentence in found.sentences)


def test_a_network_that_takes_one_image_at_a_time_gets_the_same_answer() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = small_cnn()

        def forward(self, images: Tensor) -> Tensor:
            assert len(images) == 1
            return self.inside(images)  # type: ignore[no-any-return]

    with pytest.warns(vizcnn.errors.VizcnnWarning, match="each runs alone"):
        alone = explain(vizcnn.Model(Single(), size=12), picture((12, 12)))
    plain = explain(vizcnn.Model(small_cnn(), size=12), picture((12, 12)))
    assert [unit.effect for unit in alone.units] == pytest.approx([unit.effect for unit in plain.units], abs=1e-5)
    assert (alone.flip is None) == (plain.flip is None)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Sequential(nn.Conv2d(3, 1, 12), nn.Flatten()), r"gives an output \(1, 1\)\. Ask occlusion"),
        (nn.Conv2d(3, 4, 3, padding=1), r"gives an output \(1, 4, 12, 12\)\. Ask occlusion"),
    ],
)
def test_what_is_no_classifier_is_refused(network: nn.Module, said: str) -> None:
    model = vizcnn.Model(network, size=12, name="other")
    with pytest.raises(UnsuitableNetwork, match=said):
        explain(model, picture((12, 12)))
    with pytest.raises(UnsuitableNetwork, match=said):
        explain(model, picture((12, 12)), "0")


def test_an_answer_that_no_part_of_the_image_changes_is_refused() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([9 + 0 * images.mean((1, 2, 3)), images.mean((1, 2, 3))], 1)

    with pytest.raises(DegenerateResult, match=r"no covering of any part of the image changes 0 .* \(it stays 9\)"):
        explain(vizcnn.Model(Constant(), size=12), picture((12, 12)))


def test_a_probability_is_told_as_one_and_its_units_too() -> None:
    found = explain(make_lamp(), light_cell(), "p(lit)")
    assert found.quantity == "probability"
    assert found.score == pytest.approx(found.asked.probability, abs=1e-6)
    assert 0 < found.units[0].effect <= found.score


def test_a_method_without_a_map_is_told_in_a_few_words() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(432, 4))
    torch.manual_seed(0)
    found = explain(vizcnn.Model(flat, size=12, name="flat"), picture((12, 12)))
    reasons = [*dict(found.left_out).values(), found.units_note]
    assert any("of more than one position" in reason for reason in reasons)
    assert not any("input (" in reason or " on flat" in reason for reason in reasons)


def test_what_is_no_class_is_refused() -> None:
    model = vizcnn.Model(small_cnn(), size=12)
    with pytest.raises(TargetError, match="explain is about a class of the network's output, got 0:1"):
        explain(model, picture((12, 12)), "0:1")
    with pytest.raises(TargetError, match="explain is about a class of the network's output, got -"):
        explain(model, picture((12, 12)), -vizcnn.target("0"))
    with pytest.raises(TargetError, match="explain is about one target"):
        explain(model, picture((12, 12)), ["0", "1"])
    with pytest.raises(ParameterError, match="explain takes one image, got 2"):
        explain(model, picture((12, 12), count=2))


def test_the_network_is_as_before_also_after_ctrl_c() -> None:
    class Stopping(nn.Sequential):
        left = 10**6

        def forward(self, images: Tensor) -> Tensor:
            self.left -= 1
            if self.left <= 0:
                raise KeyboardInterrupt
            return super().forward(images)  # type: ignore[no-any-return, no-untyped-call]

    network = Stopping(*small_cnn()).train()
    before = copy.deepcopy(network.state_dict())
    for left in (10**6, 12, 40):
        network.left = left
        with pytest.raises(KeyboardInterrupt) if left < 10**6 else nullcontext() as stopped:
            explain(vizcnn.Model(network, size=12), picture((12, 12)))
        assert not isinstance(stopped and stopped.value, vizcnn.Interrupted)  # half of one method is no explanation
        assert network.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
        assert not any(module._forward_hooks for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_units_are_shown_by_their_best_crops_where_an_index_has_their_layer(tmp_path: Any) -> None:
    model = vizcnn.Model(small_cnn(), size=24, name="small")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        draw_photo(30 + i, 40).save(tmp_path / "photos" / f"{i}.png")
    layer = explain(model, picture((24, 24))).layer
    vizcnn.scan(model, tmp_path / "photos", tmp_path / "index", layers=[layer], progress=False)
    found = explain(model, picture((24, 24)), index=str(tmp_path / "index"))
    assert found.tiles_are == "crops"
    assert all(1 <= len(unit.tiles) <= 3 for unit in found.units)
    vizcnn.scan(model, tmp_path / "photos", tmp_path / "other", layers=["0"], progress=False)
    with pytest.raises(ParameterError, match=rf"has nothing of layer '{layer}', .* --layers {layer}"):
        explain(model, picture((24, 24)), index=str(tmp_path / "other"))


def test_the_same_call_gives_the_same_and_can_be_told_without_making_it() -> None:
    one, other = (explain(make_lamp(), light_cell(), seed=3) for _ in range(2))
    assert one.summary() == other.summary()
    told = Explain(quick=True).identify_call(make_lamp(), light_cell(), seed=3)
    assert (told.targets, told.images, told.options) == (
        one.provenance.targets,
        one.provenance.images,
        one.provenance.options,
    )

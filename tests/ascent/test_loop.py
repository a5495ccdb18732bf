"""The loop of gradient ascent, on networks whose answer is known."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.ascent import RECIPES, Objective, Outcome, Penalty, Pixels, Recipe, optimize, score_pictures
from vizcnn.ascent.diversity import measure_similarity
from vizcnn.errors import NonFiniteResult, NotDifferentiable, TargetError, VizcnnWarning
from vizcnn.models.borrowing import borrow
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.targets import OUTPUT, Target, target

Array = npt.NDArray[np.float64]


PLAIN = Recipe("plain", Pixels(), optimiser="ascent", rate=0.1, steps=40)


def model(network: nn.Module, size: int = 8, channels: Any = 3, **more: Any) -> vizcnn.Model:
    return vizcnn.Model(network, size=size, channels=channels, **more)


def ascend(
    of: vizcnn.Model, wanted: Sequence[str | int | Target | Objective], recipe: Recipe = PLAIN, **more: Any
) -> Outcome:
    objectives = [one if isinstance(one, Objective) else Objective(target(one)) for one in wanted]
    with borrow(of, "Test"):
        return optimize(of, objectives, recipe, progress=False, **more)


def linear_filter(*weights: float) -> nn.Module:
    """A filter whose total weight for each colour is given; round the edges, so that all pixels are equal."""
    conv = nn.Conv2d(len(weights), 1, 3, padding=1, padding_mode="circular", bias=False)
    with torch.no_grad():
        for i, each in enumerate(weights):
            conv.weight[0, i] = torch.tensor([[0, -1, 0], [1, each, 1], [0, -1, 0]])
    return nn.Sequential(conv)


@pytest.mark.parametrize(("optimiser", "rate"), [("ascent", 0.1), ("adam", 0.1), ("nadam", 0.1), ("lbfgs", 8.0)])
def test_a_linear_filter_likes_each_colour_full_or_not_at_all(optimiser: Any, rate: float) -> None:
    found = ascend(model(linear_filter(1.0, -1.0, 0.5)), ["0:0"], replace(PLAIN, optimiser=optimiser, rate=rate))
    expected = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert torch.equal(found.pictures, expected)
    assert found.scores.item() == pytest.approx(1.5, rel=1e-5)
    assert found.moved.tolist() == [True]
    assert found.finished


def test_lbfgs_finds_the_lowest_point_of_a_bowl_that_is_far_longer_than_wide() -> None:
    """Where |W x - W y|^2 is least is known; plain steps would need hundreds."""
    wanted = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(-0.5, 0.5, 3).view(1, 3, 1, 1)
    far = target(lambda seen: ((seen["0"] - wanted) * scale).square().sum((1, 2, 3)), layers="0")
    recipe = replace(PLAIN, optimiser="lbfgs", rate=1.0, steps=40, keep="best")
    found = ascend(model(nn.Sequential(nn.Identity())), [Objective(far, lowered=True)], recipe)
    torch.testing.assert_close(found.pictures, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("lowered", [False, True])
def test_the_best_state_is_kept_where_a_recipe_says_so(lowered: bool) -> None:
    """Steps that are too long jump over a summit whose place is known; the penalty counts with the target."""
    sign = 1 if lowered else -1
    summit = target(lambda seen: sign * (seen["0"] - 0.6).square().sum((1, 2, 3)), layers="0")
    penalty = Penalty(l2=0.5, origin="black")
    of, start = model(nn.Sequential(nn.Identity())), torch.full((1, 3, 8, 8), 0.45)

    def heights(keep: Any) -> Array:
        recipe = replace(PLAIN, rate=0.2, penalty=penalty, keep=keep)
        each = [
            ascend(of, [Objective(summit, lowered=lowered)], replace(recipe, steps=n), start=start) for n in range(1, 9)
        ]
        penalties = [float(penalty(one.pictures, torch.zeros(1))) for one in each]
        return np.array([float(one.scores) * -sign - down for one, down in zip(each, penalties, strict=True)])

    last, best = heights("last"), heights("best")
    assert (np.diff(last) < 0).any()  # some steps lead downwards
    before = float(-(start - 0.6).square().sum() - penalty(start, torch.zeros(1)))
    np.testing.assert_allclose(best, np.maximum.accumulate([before, *last])[1:], rtol=1e-5)


def test_lowering_gives_the_opposite() -> None:
    found = ascend(model(linear_filter(1.0, -1.0, 0.5)), [Objective(target("0:0"), lowered=True)])
    assert torch.equal(found.pictures[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert found.scores.item() == pytest.approx(-1.0, rel=1e-5)


def test_a_class_of_a_linear_network_likes_its_positive_weights() -> None:
    fc = nn.Linear(48, 4)
    of, adam = model(nn.Sequential(nn.Flatten(), fc), 4), replace(PLAIN, optimiser="adam")
    found = ascend(of, [0, 2, target(0) - 2 * target(2)], adam)
    weights = fc.weight.detach().view(4, 3, 4, 4)
    for picture, liked in zip(found.pictures, (weights[0], weights[2], weights[0] - 2 * weights[2]), strict=True):
        assert torch.equal(picture, (liked > 0).float())


def test_sums_and_differences_of_layers_are_raised_together() -> None:
    network = nn.Sequential(linear_filter(1.0, -1.0, 0.5)[0], nn.Conv2d(1, 1, 1, bias=False))  # type: ignore[index]
    network[1].weight.data.fill_(3.0)  # type: ignore[operator]
    found = ascend(model(network), [target("0:0") - target("1:0")])  # f - 3 f
    assert torch.equal(found.pictures[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))


def test_a_direction_is_raised_as_its_own_sum() -> None:
    of = model(small_cnn().double())
    both = ascend(of, [vizcnn.direction("3", [1, 0, -2] + [0] * 5)], replace(PLAIN, parametrization=Pixels(spread=0.0)))
    parts = ascend(of, [target("3:0") - 2 * target("3:2")], replace(PLAIN, parametrization=Pixels(spread=0.0)))
    torch.testing.assert_close(both.pictures, parts.pictures, atol=1e-5, rtol=0)
    assert both.scores.item() == pytest.approx(parts.scores.item(), rel=1e-6)


def test_pixels_without_influence_fall_to_black_under_the_lectures_l1() -> None:
    network = linear_filter(1.0, 0.0, 0.0)
    with torch.no_grad():
        network[0].weight[0, 1:] = 0  # type: ignore[index]
    lecture = replace(RECIPES["lecture"], penalty=Penalty(l1=1e-3, origin="black"), rate=0.1, steps=60)
    found = ascend(model(network), ["0:0"], lecture).pictures[0]
    assert torch.equal(found[0], torch.ones(8, 8))
    assert found[1:].max() < 0.1
    without = ascend(model(network), ["0:0"], replace(lecture, penalty=Penalty())).pictures[0]
    assert without[1:].min() > 0.3


def test_l1_holds_back_what_is_worth_less_than_it_costs() -> None:
    dear = replace(PLAIN, penalty=Penalty(l1=1.0, origin="black"))  # each pixel is worth 1/64
    assert ascend(model(linear_filter(1.0, 1.0, 1.0)), ["0:0"], dear).pictures.max() < 0.11


def test_one_neuron_changes_its_receptive_field_and_nothing_else() -> None:
    of = model(small_cnn(), 16)
    short, long = (ascend(of, ["3:2@1,6"], replace(PLAIN, steps=n)).pictures for n in (1, 8))
    changed = (short != long).any(1)[0]
    field = torch.zeros(16, 16, dtype=torch.bool)
    field[:7, 9:16] = (
        True  # of one cell of a 3 x 3 convolution over pooled pairs over another: 8 x 8 px, cut at the edge
    )
    assert changed.any()
    assert not changed[~field].any()


def dead(bias: float, weight: float = 1.0) -> vizcnn.Model:
    """A unit whose ReLU is shut by its bias, beside one that is always open."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[0], conv.weight[1] = weight, 1.0
        conv.bias.copy_(torch.tensor([bias, 0.0]))  # type: ignore[union-attr]
    return model(nn.Sequential(conv, nn.ReLU()))


@pytest.mark.parametrize("name", ["lecture", "mahendran", "lucid"])
def test_a_unit_that_starts_behind_a_shut_relu_opens_it(name: str) -> None:
    recipe = replace(RECIPES[name], steps=60)
    of = dead(-1.9)
    assert ascend(of, ["1:0"], replace(recipe, steps=1)).scores.item() == 0
    found = ascend(of, ["1:0"], recipe)
    assert found.scores.item() > 0.02
    assert found.moved.tolist() == [True]


def test_a_unit_that_nothing_reaches_is_known() -> None:
    found = ascend(dead(-1.0, weight=0.0), ["1:0", "1:1"])
    assert found.moved.tolist() == [False, True]
    assert found.scores[0] == 0
    assert found.scores[1] > 2.9


def test_a_unit_that_its_last_step_opens_has_responded() -> None:
    """The neighbourhood of what the network saw was flat in both steps, and yet the picture reaches something."""
    found = ascend(dead(-1.9), ["1:0"], replace(PLAIN, parametrization=Pixels(spread=0), steps=2))
    assert found.scores.item() == pytest.approx(0.2, abs=1e-4)
    assert found.moved.tolist() == [True]


@pytest.mark.parametrize(("bias", "weight", "moved"), [(-1.9, 1.0, True), (-1.0, 0.0, False)])
def test_diversity_neither_keeps_a_unit_shut_nor_hides_that_it_is_dead(bias: float, weight: float, moved: bool) -> None:
    conv = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1))  # two channels in which the copies can differ
        conv.weight[0] = weight
        conv.bias.copy_(torch.tensor([bias, 0.0, 0.0]))  # type: ignore[union-attr]
    of = model(nn.Sequential(conv, nn.ReLU()))
    found = ascend(of, [Objective(target("1:0"), copy) for copy in range(2)], diversity=0.1)
    assert found.moved.tolist() == [moved, moved]
    assert ((found.scores > 0.1) == moved).all()


def test_the_progress_bar_shows_the_first_targets_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("tqdm.std.tqdm.set_postfix_str", lambda _bar, text, **_: said.append(text))
    ascend(dead(-9.0), ["1:1", "1:0"], replace(PLAIN, steps=24))  # the second stays shut and is redirected
    assert len(said) == 3
    assert all(text.startswith("1:1 ") and float(text.split()[1]) > 1 for text in said)


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.LeakyReLU(), nn.Hardswish(), nn.ReLU6(), nn.ELU()])
def test_networks_with_other_activations_are_optimised(activation: nn.Module) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of some weights, a unit behind ReLU6 would be dead
        network = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 4, 3), copy.deepcopy(activation))
    start, end = (ascend(model(network), ["3:1", "3:2"], replace(PLAIN, steps=n)).scores for n in (1, 30))
    assert (end > start).all()


# --- each picture as if it were alone ---------------------------------------------------------------------------------

SPAN = [f"3:{i}" for i in range(8)]


@pytest.mark.parametrize("name", [*RECIPES, "lbfgs"])
def test_eight_channels_together_are_eight_single_runs(name: str) -> None:
    second_order = replace(PLAIN, optimiser="lbfgs", rate=1.0, keep="best")
    of, recipe = model(small_cnn().double(), 12), replace(RECIPES.get(name, second_order), steps=6)
    together = ascend(of, SPAN, recipe)
    for i, one in enumerate(SPAN):
        alone = ascend(of, [one], recipe)
        torch.testing.assert_close(alone.pictures[0], together.pictures[i], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.scores[0], together.scores[i], atol=1e-4, rtol=0)


def test_neither_order_nor_batches_nor_other_layers_change_a_picture() -> None:
    of, recipe = model(small_cnn().double(), 12), replace(RECIPES["lucid"], steps=6)
    wanted: list[str | int] = ["3:1", 2, "0:4", "3:5", 0, "energy(3)"]
    first = ascend(of, wanted, recipe, frames=2)
    backwards = ascend(of, wanted[::-1], recipe, batch=1, frames=2)
    torch.testing.assert_close(first.pictures, backwards.pictures.flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.scores, backwards.scores.flip(0), atol=1e-5, rtol=0)
    assert torch.equal(first.frames[-1], (first.pictures * 255).round().to(torch.uint8))


def test_values_are_the_targets_numbers_for_the_pictures() -> None:
    of = model(small_cnn(), 12)
    found = ascend(of, ["3:1", 2], replace(PLAIN, steps=5))
    with torch.no_grad(), open_reader(of, ["3", OUTPUT]) as read:
        seen = read(found.pictures)
    assert found.scores[0].item() == pytest.approx(seen["3"][0, 1].mean().item(), rel=1e-5)
    assert found.scores[1].item() == pytest.approx(seen[OUTPUT][1, 2].item(), rel=1e-5)
    assert score_pictures(of, [Objective(target(2))], found.pictures[1:]).item() == pytest.approx(
        found.scores[1].item()
    )


def test_copies_of_a_target_differ_and_diversity_makes_them_differ_more() -> None:
    of, recipe = model(small_cnn(), 12), replace(RECIPES["lucid"], steps=20)
    objectives = [Objective(target("3:1"), copy) for copy in range(3)]
    plain, diverse = (ascend(of, objectives, recipe, diversity=weight, batch=1) for weight in (0.0, 30.0))
    assert (plain.pictures[0] - plain.pictures[1]).abs().max() > 0.01

    def similarity(outcome: Outcome) -> float:
        with torch.no_grad(), open_reader(of, ["3"]) as read:
            outputs = {"3": read(outcome.pictures)["3"].split(1)}
        return float(measure_similarity(outputs, [one.group for one in objectives]).mean())

    assert similarity(diverse) < similarity(plain) - 0.001


def test_functions_of_one_name_are_targets_of_their_own() -> None:
    objectives = [Objective(target(lambda out, i=i: out[:, i])) for i in range(2)]  # both are called <lambda>
    plain, diverse = (ascend(model(small_cnn(), 12), objectives, diversity=weight) for weight in (0.0, 30.0))
    assert (plain.pictures[0] - plain.pictures[1]).abs().max() > 0.01
    torch.testing.assert_close(diverse.pictures, plain.pictures)


def test_frames_begin_at_the_start_and_end_at_the_picture() -> None:
    of = model(small_cnn(), 12)
    start = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = ascend(of, ["3:1"], replace(PLAIN, steps=8), frames=4, start=start)
    assert found.frames.dtype == torch.uint8
    assert torch.equal(found.frames[0], (start * 255).round().to(torch.uint8))
    assert torch.equal(found.frames[-1], (found.pictures * 255).round().to(torch.uint8))
    steps = [(a.int() - b.int()).abs().sum().item() for a, b in zip(found.frames[:-1], found.frames[1:], strict=True)]
    assert min(steps) > 0
    assert ascend(of, ["3:1"], replace(PLAIN, steps=2)).frames.shape == (0, 1, 3, 12, 12)


def test_a_start_that_is_given_is_not_changed() -> None:
    start = torch.full((1, 3, 8, 8), 0.5)
    ascend(model(small_cnn()), ["3:1"], replace(PLAIN, steps=2), start=start)
    assert (start == 0.5).all()


# --- reading ----------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x


def test_the_network_runs_no_further_than_the_target() -> None:
    runs = []
    for steps in (3, 20):
        before, behind = Counting(), Counting()
        ascend(model(nn.Sequential(before, nn.Conv2d(3, 2, 3), behind)), ["1:0"], replace(PLAIN, steps=steps))
        runs.append((before.runs, behind.runs))
    assert runs[1][0] - runs[0][0] == 17
    assert runs[1][1] == runs[0][1]


class Twice(nn.Module):
    """One module called three times; the last result has passed through it most often."""

    def __init__(self) -> None:
        super().__init__()
        self.once = nn.Conv2d(1, 1, 1, bias=False)
        self.once.weight.data.fill_(0.5)
        self.behind = Counting()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.behind(self.once(self.once(self.once(x))))
        return out


def test_a_module_called_several_times_is_read_at_its_last_call() -> None:
    of = model(Twice(), channels=1)
    with open_reader(of, ["once"]) as read:
        for _ in range(3):
            assert torch.equal(read(torch.ones(1, 1, 2, 2))["once"], torch.full((1, 1, 2, 2), 0.125))
    assert of.network.behind.runs == 1  # type: ignore[union-attr]
    assert ascend(of, ["once:0"]).scores.item() == pytest.approx(0.125)


class Cautious(nn.Module):
    """Catches every exception on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.behind = nn.Conv2d(3, 2, 3), Counting()

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.conv(x)
        except Exception:
            x = x[:, :2]
        out: Tensor = self.behind(x)
        return out


def test_a_network_that_catches_exceptions_is_stopped_too() -> None:
    of = model(Cautious())
    found = ascend(of, ["conv:0"], replace(PLAIN, steps=10))
    assert found.finished
    assert of.network.behind.runs < 5  # type: ignore[union-attr,operator]


# --- what cannot be optimised -----------------------------------------------------------------------------------------


class Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 2, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.conv(x).detach())
        return out


def test_a_network_without_gradients_is_refused() -> None:
    with pytest.raises(NotDifferentiable, match="detaches or rounds .* Choose an earlier layer"):
        ascend(model(Detaching()), ["end:0"])
    assert ascend(model(Detaching()), ["conv:0"]).moved.all()


def test_a_target_that_becomes_nan_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3))
    network[0].weight.data[0] = torch.nan  # type: ignore[operator]
    with pytest.raises(NonFiniteResult, match="a target became"):
        ascend(model(network), ["0:0"])


@pytest.mark.parametrize("wanted", ["3:8", "7:5", "3:0@9,0"])
def test_channels_and_places_that_do_not_exist_are_refused(wanted: str) -> None:
    with pytest.raises(TargetError, match="channels 0 to|got position"):
        ascend(model(small_cnn()), [wanted])


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((0, 2, 3))[None]  # (1, C)


def test_a_network_with_one_answer_for_several_pictures_has_each_alone() -> None:
    with pytest.warns(VizcnnWarning, match="each runs alone"):
        found = ascend(model(Mixing()), [0, 1])
    assert found.scores.tolist() == pytest.approx([1, 1])
    assert found.pictures[0, 1:].mean() < 1  # only the colour that is asked for is full


class Viewing(nn.Module):
    """A dense network whose forward takes memory as it lies, as many do: it fails on channels last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3 * 64, 4)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.fc(images.view(len(images), -1))
        return scores


@pytest.mark.parametrize("targets", [[1], [0, 2], ["fc:3", "fc:1"]])
def test_a_network_that_views_its_images_as_rows_has_pictures(targets: list[Any]) -> None:
    network = Viewing()
    found = ascend(model(network), targets)
    rows = [int(str(one).removeprefix("fc:")) for one in targets]
    best = network.fc.weight[rows].clamp(min=0).sum(1) + network.fc.bias[rows]  # of pixels in [0, 1]
    assert torch.allclose(found.scores, best.double(), rtol=0.01)

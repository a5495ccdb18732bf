"""trust=True: maps are as they are without, and each is judged by what covering costs and by that of another class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from support import picture
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, Interrupted, ParameterError, VizcnnWarning
from vizcnn.evaluation.contrast import choose_contrast
from vizcnn.evaluation.coverings import cover_image
from vizcnn.evaluation.judging import judge_map
from vizcnn.probing import trusting
from vizcnn.probing.attribution import Map, each_map, heatmap
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Projections, Trust

SIZE, CLASSES = 24, "abcde"
COVERINGS = 100  # 36 cells alone and 64 halves


class Counting(nn.Module):
    """A small network that knows how many images it has seen, and only one at a time if it is told so."""

    def __init__(self, classes: int = 5, dead: tuple[int, ...] = ()) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
            self.last, self.end = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
            self.fc = nn.Linear(8 * 16, classes)
        self.dead, self.seen, self.is_single = [*dead], 0, False

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        maps = self.end(self.last(self.relu(self.conv(x))))  # (N, 8, H, W)
        logits: Tensor = self.fc(nn.functional.adaptive_avg_pool2d(maps, 4).flatten(1))  # (N, K)
        alive = torch.ones(logits.shape[1], dtype=logits.dtype)
        alive[self.dead] = 0
        return (logits * alive).view(1, -1) if self.is_single else logits * alive


def model(network: nn.Module | None = None, **options: Any) -> vizcnn.Model:
    options = {"labels": [*CLASSES]} | options
    return vizcnn.Model(network or Counting(), size=SIZE, **options)


def assert_like(found: Any, expected: Any) -> None:
    """That two trusts are the same up to rounding."""
    one, other = asdict(found), asdict(expected)
    for name, value in other.items():
        assert one[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), name


def images(count: int = 1) -> Tensor:
    return picture((SIZE, SIZE), count=count)


def ask(probe: Any, found: vizcnn.Model | None = None, target: Any = None, count: int = 1, **how: Any) -> Any:
    return probe(found or model(), images(count), target, progress=False, trust=True, **how)


PROBES: list[Any] = [
    vizcnn.Occlusion(window=8, stride=4, engine="plain"),
    vizcnn.Rise(masks=60),
    vizcnn.Saliency(),
    vizcnn.Saliency(method="integrated-gradients", steps=8),
    vizcnn.Cam(method="layer-cam"),
    vizcnn.Cam(),
    vizcnn.Deconvnet(),
]


@pytest.mark.parametrize("probe", PROBES, ids=repr)
@pytest.mark.parametrize("target", [None, ["a", "last:3", "p(b)"]])
def test_the_result_is_the_same_but_for_trust(probe: Any, target: Any) -> None:
    if isinstance(probe, vizcnn.Deconvnet):
        target = ["relu:3", "end:1"] if target else None
    if isinstance(probe, vizcnn.Cam):
        target = ["a", "d"] if target else None
    plain = probe(model(), images(3), target, progress=False)
    found = ask(probe, target=target, count=3)
    assert plain.arrays().keys() == found.arrays().keys()
    for name, values in plain.arrays().items():
        np.testing.assert_allclose(found.arrays()[name], values, rtol=1e-5, atol=1e-7)
    assert [
        line for line in found.describe().splitlines() if not line.startswith("  ")
    ] == plain.describe().splitlines()
    for name in ("images", "targets", "target_specs", "options", "refused"):
        assert getattr(found.provenance, name) == getattr(plain.provenance, name)
    assert (found.provenance.trust, plain.provenance.trust) == (True, False)
    assert (len(found.trust), plain.trust) == (3, ())
    assert all(isinstance(one, Trust) for row in found.trust for one in row)


def test_trust_is_what_its_parts_say() -> None:
    """The coverings, the other class and the judgement, made here by hand for each image and target."""
    network, inputs = model(), images(2)
    probe = vizcnn.Saliency(method="smoothgrad", samples=3)
    found = probe(network, inputs, ["b", "d"], seed=5, progress=False, trust=True)
    for i, image in enumerate(inputs):
        with network.borrowed(), torch.no_grad():
            output = network(image[None])[0]
            targets = [vizcnn.target(one).resolved(network) for one in ("b", "d")]
            coverings = cover_image(network, image, targets, output[[1, 3]].double().numpy(), seed=5, shown=False)
        for t, target in enumerate(targets):
            other = choose_contrast(network, target, output)
            theirs = probe(network, image, other, seed=5, progress=False).values[0, 0]
            expected = judge_map(found.values[i, t], coverings, t, contrast=theirs, contrast_target=str(other), seed=5)
            assert_like(found.trust[i][t], expected)


@pytest.mark.parametrize("targets", [["a"], ["a", "b", "c"]])
def test_occlusion_runs_its_windows_once_for_both_classes(targets: list[str]) -> None:
    def count(**how: Any) -> int:
        network = Counting()
        vizcnn.Occlusion(window=8, stride=8, engine="plain")(model(network), images(), targets, progress=False, **how)
        return network.seen

    assert count(trust=True) == count() + COVERINGS


def test_rise_shows_its_masks_once_for_both_classes() -> None:
    network, plain = Counting(), Counting()
    ask(vizcnn.Rise(masks=50), model(network))
    vizcnn.Rise(masks=50)(model(plain), images(), progress=False)
    assert network.seen == plain.seen + COVERINGS


def test_a_map_for_which_the_class_plays_no_part_is_no_reason() -> None:
    (row,) = ask(vizcnn.Cam(method="eigen-cam")).trust
    assert row[0].contrast == pytest.approx(1)
    assert row[0].verdict == "do not read as reasons"


@contextmanager
def record() -> Iterator[list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VizcnnWarning)
        said = list[str]()
        yield said
    said += [str(each.message) for each in caught]


@pytest.mark.parametrize(
    "probe",
    [
        vizcnn.Saliency(),
        vizcnn.Cam(),
        vizcnn.Occlusion(window=8, stride=8, engine="plain"),
        vizcnn.Rise(masks=50),
    ],
    ids=repr,
)
@pytest.mark.parametrize("how", [{}, {"strict": True}])
def test_an_image_keeps_its_map_where_that_of_the_other_class_is_zero(probe: Any, how: Any) -> None:
    found = ask(probe, model(Counting(dead=(1, 2, 3, 4))), "a", count=2, **how)
    np.testing.assert_allclose(
        found.values, probe(model(Counting(dead=(1, 2, 3, 4))), images(2), "a", progress=False).values, atol=1e-7
    )
    assert found.refused == ()
    for (trust,) in found.trust:
        assert trust.contrast == 0
        assert f"another map for {trust.contrast_target} (zero everywhere)" in trust.sentences


def test_where_the_target_itself_has_no_map_the_error_says_so() -> None:
    with pytest.raises(DegenerateResult, match="the map of a for tensor is zero everywhere"):
        ask(vizcnn.Saliency(), model(Counting(dead=(0,))), "a")


class Dim(nn.Module):
    """Sees nothing in an image that is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counting()

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.inner(x) * (x.amax((1, 2, 3), keepdim=True) > 0.5).to(x)[:, :, 0, 0]
        return seen


def test_trust_is_beside_its_image_where_another_one_is_refused() -> None:
    inputs = images(3)
    inputs[1] *= 0.1
    with record() as said:
        found = vizcnn.Saliency()(model(Dim()), inputs, "a", progress=False, trust=True)
    assert len(found.refused) == 1
    assert "zero everywhere" in said[0]
    alone = [vizcnn.Saliency()(model(Dim()), inputs[i], "a", progress=False, trust=True).trust[0] for i in (0, 2)]
    assert len(found.trust) == 2
    for row, own in zip(found.trust, alone, strict=True):
        assert_like(row[0], own[0])


UNTESTED: list[tuple[Callable[[], vizcnn.Model], Any, str]] = [
    (lambda: model(Counting(1), labels=None), None, "the network has one output, and no other class to compare with"),
    (model, "last:3", "last:3 is no class"),
    (model, vizcnn.target("a") - vizcnn.target("b"), "a - b is no class"),
    (model, vizcnn.target(lambda output: output[:, 0]), "<lambda> is no class"),
    (
        lambda: model(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1))),
        None,
        "is about a part of the output, and no class of the whole image",
    ),
]


@pytest.mark.parametrize(("make", "target", "reason"), UNTESTED)
def test_what_has_no_other_class_is_never_supported(make: Any, target: Any, reason: str) -> None:
    ((trust,),) = ask(vizcnn.Saliency(), make(), target).trust
    assert (trust.contrast, trust.contrast_target) == (None, "")
    assert reason in trust.contrast_note
    assert trust.verdict in ("contrast not tested", "no better than chance")


def test_magnitudes_of_two_classes_are_not_blamed_for_being_alike() -> None:
    """p(0) = 1 - p(1): the magnitudes of both gradients are the same, whatever the network has learned."""
    ((trust,),) = ask(vizcnn.Saliency(), model(Counting(2), labels=["cat", "dog"]), "p(cat)").trust
    assert trust.contrast is None
    assert "can be the same for both of two classes" in trust.contrast_note
    ((signed,),) = ask(vizcnn.Saliency(sign="signed"), model(Counting(2), labels=["cat", "dog"]), "p(cat)").trust
    assert signed.contrast == pytest.approx(-1)


class Boxes(nn.Module):
    """A detector that answers with one box in the brightest corner."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        box = torch.tensor([[2.0, 2, 12, 12]])
        return [
            {"boxes": box, "labels": torch.tensor([1]), "scores": one[:, 2:12, 2:12].mean()[None].clamp(0.05, 1)}
            for one in x
        ]


@pytest.mark.parametrize("probe", [PROBES[0], PROBES[1]], ids=repr)
def test_boxes_of_detectors_are_judged_without_another_class(probe: Any) -> None:
    found = ask(probe, model(Boxes(), labels=["none", "cat"]), "cat#0")
    ((trust,),) = found.trust
    assert trust.need > 90  # the map can only lie in the box
    assert trust.verdict == "contrast not tested"


@pytest.mark.parametrize("probe", [PROBES[0], vizcnn.Rise(masks=300, fill="blur")], ids=repr)
def test_black_boxes_are_judged_too(probe: Any) -> None:
    def answer(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        grain = np.abs(np.diff(x, axis=3)).mean((1, 3))  # (N, H), what a blur takes away
        return np.stack([grain[:, :8].mean(1), grain[:, 8:16].mean(1), grain[:, 16:].mean(1)], 1)

    ((trust,),) = ask(probe, vizcnn.Model(answer, size=SIZE), 0).trust
    assert trust.need > 90
    assert trust.contrast < 0.7  # the other class looks at other rows
    assert trust.verdict == "supported"


def test_a_network_in_half_precision_is_judged() -> None:
    grain = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).round()  # a blur takes it away
    networks = [Counting(), Counting()]
    for network in networks:
        network.fc.bias.data.zero_()  # so that the image moves most of the answer, and not the last digits
    networks[1].half()
    for probe in (vizcnn.Occlusion(window=8, stride=8, engine="plain"), vizcnn.Cam(method="layer-cam")):
        exact, rough = (
            probe(model(network), grain, "b", progress=False, trust=True).trust[0][0] for network in networks
        )
        assert rough is not None
        assert exact is not None
        assert rough.correlation == pytest.approx(exact.correlation, abs=0.05)  # of which need is the rank
        assert rough.contrast == pytest.approx(exact.contrast, abs=0.05)


def test_a_network_that_takes_one_image_only_is_judged() -> None:
    network = Counting()
    network.is_single = True
    with record() as said:
        found = ask(vizcnn.Saliency(), model(network), count=2)
    assert any("each runs alone" in text for text in said)
    for row, plain in zip(found.trust, ask(vizcnn.Saliency(), count=2).trust, strict=True):
        assert_like(row[0], plain[0])


class Taut(nn.Module):
    """Has a gradient, but tells its answer only to the nearest thousand."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counting()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits - logits.detach() + torch.arange(5.0)


class Uneven(nn.Module):
    """One output so large that what moves another is no more than the rounding of that."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counting()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits * torch.tensor([1.0, 1, 1, 1, 0]) + torch.tensor([0.0, 0, 0, 0, 1e7])


def test_what_covering_changes_is_judged_by_the_rounding_of_the_largest_output() -> None:
    with record() as said:
        found = ask(vizcnn.Saliency(), model(Uneven()), "a")
    assert found.trust == ((None,),)
    assert any("no more than rounding" in text for text in said)


def test_a_map_is_kept_without_trust_where_covering_changes_nothing() -> None:
    with record() as said:
        found = ask(vizcnn.Saliency(), model(Taut()), "a")
    assert found.trust == ((None,),)
    assert said == [
        "the map of a for tensor is not judged: covering parts of the image changes the target by no more than "
        "rounding: it needs no part more than another, and no map can be judged by that. Take another target, or "
        "another cover: vizcnn.evaluate(..., fill='black')"
    ]
    assert "– not judged" in found.describe()


class Even(vizcnn.Probe[vizcnn.Heatmap]):
    """A third party's maps, the same all over."""

    makes_maps = True

    def compute(self, subject: Subject) -> Heatmap:
        def make(given: Tensor, _: Any) -> list[Map]:
            return [Map(torch.ones(SIZE, SIZE), None, "is even") for _ in given]

        return heatmap(subject, each_map(subject, make, label="even"), meaning=str, signed=False)


def test_a_third_partys_map_that_points_at_nothing_is_not_judged() -> None:
    with record() as said:
        found = ask(Even(), count=2)
    assert found.trust == ((None,), (None,))
    assert len(said) == 1
    assert "is not judged: the map is even all over" in said[0]


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_what_is_no_seed_is_refused_before_any_run(seed: Any) -> None:
    network = Counting()
    with pytest.raises(ParameterError, match="seed must be a whole number of at least 0"):
        ask(vizcnn.Occlusion(window=8), model(network), seed=seed)
    assert network.seen == 0


def test_other_probes_refuse_before_any_run() -> None:
    network = Counting()
    with pytest.raises(ParameterError, match="trust is of maps .*, and Filters makes none"):
        vizcnn.Filters()(model(network), trust=True)
    assert network.seen == 0


def test_an_option_cannot_be_called_trust() -> None:
    class Trusting(vizcnn.Probe[vizcnn.Heatmap]):
        """Takes the name."""

    with pytest.raises(TypeError, match="has a name that every probe uses already"):

        class Taking(Trusting):
            """Takes the name."""

            trust: bool = vizcnn.param(False, "Mine.")


@pytest.mark.parametrize("name", ["compute", "cover_image"])
def test_what_is_cut_short_is_not_judged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while maps are made, and while they are judged."""
    stopping, runs = Counting(), 20 if name == "compute" else 10_000

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    class Impatient(Counting):
        def forward(self, x: Tensor) -> Tensor:
            if self.seen > runs:
                raise KeyboardInterrupt
            return super().forward(x)

    stopping = Impatient()
    if name == "cover_image":
        monkeypatch.setattr(trusting, "cover_image", stop)
    with record() as said, pytest.raises(Interrupted) as caught:
        ask(vizcnn.Occlusion(window=8, stride=2, batch=4, engine="plain"), model(stopping), ["a", "b"])
    found = caught.value.result
    assert (found.partial, found.trust) == (True, ())
    assert np.isnan(found.values).any() == (name == "compute")
    assert found.provenance.targets == (("a", "b"),)
    assert said == ["the call was interrupted before it was known how far the maps can be believed"]
    assert "how far its maps can be believed is not known" in found.describe()


def test_ctrl_c_ends_a_call_that_makes_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first of two images is done, there is a partial result of both classes, which is not what was asked."""
    compute, calls = vizcnn.Deconvnet.compute, list[int]()

    def stop(probe: vizcnn.Deconvnet, subject: Subject) -> Projections:
        calls.append(len(subject.targets[0]))
        return replace(compute(probe, subject), partial=True)

    monkeypatch.setattr(vizcnn.Deconvnet, "compute", stop)
    network = Counting()
    network.fc.bias.data += 10  # so that each class has something to project
    with pytest.raises(KeyboardInterrupt):
        ask(vizcnn.Deconvnet(), model(network), "a", count=2)
    assert calls == [2]


def test_integrated_gradients_say_what_their_sum_lacks() -> None:
    """With one step they are off, with many they add up, and the share is that of sums made here."""
    network, missing = model(), dict[int, float]()
    for steps in (1, 64):
        found = ask(vizcnn.Saliency(method="integrated-gradients", steps=steps), network, "c")
        with torch.no_grad():
            change = network(images()) - network(torch.zeros_like(images()))
        missing[steps] = found.trust[0][0].missing
        assert missing[steps] == pytest.approx(1 - found.values.sum() / float(change[0, 2]), abs=1e-4)
    assert abs(missing[64]) < 0.02
    absolute = ask(vizcnn.Saliency(method="integrated-gradients", steps=4, sign="abs"), network, "c")
    assert absolute.trust[0][0].missing is None


def test_the_exact_cam_adds_up_and_other_methods_promise_nothing() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )
    found = ask(vizcnn.Cam(method="cam"), model(network), ["a", "b"], count=2)
    assert [one.missing for row in found.trust for one in row] == pytest.approx([0] * 4, abs=1e-3)
    assert ask(vizcnn.Cam(), model(network), "a").trust[0][0].missing is None


def test_a_projection_is_judged_by_the_neuron_that_it_shows() -> None:
    """Covered away from it, the strongest neuron of a channel keeps its value; the channel's mean does not."""
    found = ask(vizcnn.Deconvnet(), target=["relu:3", "a"])
    assert isinstance(found, Projections)
    neuron, of_class = found.trust[0]
    assert neuron is not None
    assert neuron.need > 90
    assert neuron.contrast is None
    assert of_class is not None
    assert of_class.contrast is not None or "to project" in of_class.contrast_note


def test_the_cost_before_names_the_runs_behind_trust() -> None:
    probe = vizcnn.Occlusion(window=8, stride=8, engine="plain")
    plain, more = probe.dry_run(model(), images(2)), probe.dry_run(model(), images(2), trust=True)
    assert plain is not None
    assert more is not None
    assert more.work == f"{plain.work}, and {2 * COVERINGS} full runs for trust"
    assert plain.flops is not None
    assert more.flops == pytest.approx(plain.flops * (18 + 200) / 18)
    assert more.seconds > 0
    assert vizcnn.Saliency().dry_run(model(), images(), trust=True) is None

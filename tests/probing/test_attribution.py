"""The helpers for probes that attribute a target to pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
import vizcnn.probing
from vizcnn.errors import (
    DegenerateResult,
    ImageError,
    NonFiniteResult,
    NotDifferentiable,
    ParameterError,
    ShapeError,
    VizcnnWarning,
)
from vizcnn.geometry import Box
from vizcnn.models.targets import Target
from vizcnn.probing import Map, Subject, each_map, find_densest, find_peak, heatmap, score

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))  # (3, C, H, W)


def asked(compute: Callable[[Subject], Any], targets: Any = (1, 3), images: Any = IMAGES, strict: bool = False) -> Any:
    """What a probe whose answer this is comes to."""

    class Asking(vizcnn.Probe[vizcnn.Heatmap]):
        """Asks."""

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            return compute(subject)  # type: ignore[no-any-return]

    return Asking()(vizcnn.Model(small_cnn(), size=16), images, targets, progress=False, strict=strict)


def made(method: Any, *, batch: int | None = None, strict: bool = False, **options: Any) -> Any:
    return asked(
        lambda subject: heatmap(
            subject,
            each_map(subject, method, label="maps", batch=batch),
            meaning=lambda quantity: quantity,
            signed=True,
            **options,
        ),
        strict=strict,
    )


def test_every_name_that_a_probes_author_needs_is_there() -> None:
    names = vizcnn.probing.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(vizcnn.probing, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vizcnn.probing.nothing  # noqa: B018


def test_scores_of_a_batch_are_those_of_each_images_own_target() -> None:
    network = small_cnn().eval()
    expected = torch.stack([network(IMAGES[i : i + 1])[0, k] for i, k in enumerate((4, 0, 4))])

    def compare(subject: Subject) -> None:
        images, targets = IMAGES.clone().requires_grad_(), [subject.targets[0][t] for t in (1, 0, 1)]
        with torch.enable_grad():
            numbers = score(subject, images, targets)
        torch.testing.assert_close(numbers.detach(), expected.detach())
        (slope,) = torch.autograd.grad(numbers.sum(), images)
        alone = IMAGES[1:2].clone().requires_grad_()
        with torch.enable_grad():
            (own,) = torch.autograd.grad(score(subject, alone, subject.targets[0][0]), alone)
        torch.testing.assert_close(slope[1:2], own)
        assert score(subject, images.requires_grad_(), targets[0]).shape == (3,)
        raise ZeroDivisionError  # there is no result

    with pytest.raises(ZeroDivisionError):
        asked(compare, (0, 4))


def test_a_target_without_a_gradient_is_named_with_its_source() -> None:
    def detached(images: Tensor, targets: Sequence[Target], subject: Subject) -> Any:
        return score(subject, images.detach(), targets, "layer 'x'")

    with pytest.raises(NotDifferentiable, match="target 1, 3 has no gradient with respect to layer 'x'"):
        asked(lambda subject: detached(subject.inputs[:2], subject.targets[0], subject))


def test_each_map_belongs_to_its_image_and_target() -> None:
    def method(images: Tensor, targets: Sequence[Target]) -> list[Map]:
        weights = {"1": 1.0, "3": 10.0}
        return [Map(weights[str(t)] * image.mean(0), None, "is") for image, t in zip(images, targets, strict=True)]

    found = made(method, paper="nobody", details={"window": 3})
    expected = np.stack([IMAGES.mean(1).numpy(), 10 * IMAGES.mean(1).numpy()], 1)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert (found.provenance.paper, found.provenance.details) == ("nobody", {"window": 3})
    given: list[int] = []

    def single(images: Tensor, targets: Sequence[Target]) -> list[Map]:
        given.append(len(images))
        return method(images, targets)

    np.testing.assert_array_equal(made(single, batch=1).values, found.values)
    assert given == [1] * 6


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (torch.zeros(16, 16), DegenerateResult, "is zero everywhere: by this method nothing speaks for it"),
        (torch.full((16, 16), float("nan")), NonFiniteResult, "the map of 1 for tensor holds NaN or infinity"),
        (
            torch.ones(3, 16, 16),
            ShapeError,
            r"the map of 1 for tensor must be of the input's size \(16, 16\), got \(3, 16, 16\)",
        ),
        (None, ShapeError, "there must be one map for each of 6 images, got 0"),
    ],
)
def test_what_is_no_map_is_refused(values: Tensor | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(lambda images, _: [] if values is None else [Map(values, None, "is") for _ in images])


def test_ctrl_c_keeps_the_images_that_are_done() -> None:
    calls = []

    def method(images: Tensor, targets: Sequence[Target]) -> list[Map]:
        calls.append(targets)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [Map(image.mean(0), None, "is") for image in images]

    with pytest.raises(vizcnn.Interrupted) as caught:
        made(method, batch=3)  # the first image with both of its targets, and the second with one
    assert caught.value.result.values.shape == (1, 2, 16, 16)
    assert caught.value.result.partial
    calls[:] = [()]  # the first image is not done
    with pytest.raises(KeyboardInterrupt) as nothing:
        made(method, batch=3)
    assert not isinstance(nothing.value, vizcnn.Interrupted)


def test_a_second_ctrl_c_finds_nothing_left_to_run() -> None:
    class Impatient(nn.Module):
        """Runs until Ctrl-C was pressed, and presses it again in the run after that."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.stopped = small_cnn(), False

        def forward(self, x: Tensor) -> Tensor:
            if self.stopped:
                raise KeyboardInterrupt
            out: Tensor = self.net(x)
            return out

    network, calls = Impatient(), []

    def method(images: Tensor, _targets: Sequence[Target]) -> list[Map]:
        """The mean over colours, which does not ask the network."""
        calls.append(len(images))
        if len(calls) == 3:
            network.stopped = True
            raise KeyboardInterrupt
        return [Map(image.mean(0), None, "is") for image in images]

    class Asking(vizcnn.Probe[vizcnn.Heatmap]):
        """Asks."""

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            maps = each_map(subject, method, label="maps", batch=1)
            return heatmap(subject, maps, meaning=str, signed=True)

    with pytest.raises(vizcnn.Interrupted) as caught:
        Asking()(vizcnn.Model(network, size=16), IMAGES, 1, progress=False)
    np.testing.assert_allclose(caught.value.result.values[:, 0], IMAGES[:2].mean(1), rtol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(caught.value.result.scores[:, 0], network.net(IMAGES)[:2, 1], rtol=1e-5)


def blank_second(images: Tensor, targets: Sequence[Target]) -> list[Map]:
    """The mean over colours, but nothing at all for the second of the images and target 3."""
    bad = [str(target) == "3" and torch.equal(image, IMAGES[1]) for image, target in zip(images, targets, strict=True)]
    return [Map(image.mean(0) * (not nothing), None, "is") for image, nothing in zip(images, bad, strict=True)]


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_one_image_without_a_map_is_left_out_with_its_reason(batch: int | None, tmp_path: Path) -> None:
    with pytest.warns(VizcnnWarning, match=r"1 image was left out, .*\. tensor: the map of 3 .* is zero") as seen:
        found = made(blank_second, batch=batch)
    assert len(seen) == 1
    np.testing.assert_allclose(found.values, IMAGES[[0, 2]].mean(1)[:, None].expand(-1, 2, -1, -1), rtol=1e-6)
    assert len(found.photos) == len(found.predictions) == len(found.scores) == len(found.findings) == 2
    ((name, reason),) = found.refused
    assert name == "tensor"
    assert reason.startswith("the map of 3 for tensor is zero everywhere")
    assert vizcnn.load_result(found.save(tmp_path / "a.npz")).refused == found.refused
    assert found.manifest()["provenance"]["refused"] == [[name, reason]]


def test_where_no_image_is_left_or_with_strict_the_reason_is_raised() -> None:
    with pytest.raises(DegenerateResult, match="the map of 3 for tensor is zero everywhere"):
        made(blank_second, strict=True)
    with pytest.raises(DegenerateResult, match="the map of 1 for tensor is zero everywhere"):
        made(lambda images, _: [Map(torch.zeros(16, 16), None, "is") for _ in images])


def test_images_that_are_left_out_take_no_memory_of_those_that_stay() -> None:
    def compute(subject: Subject) -> None:
        chosen = subject.select([0, 2])
        torch.testing.assert_close(chosen.inputs, IMAGES[[0, 2]], rtol=0, atol=0)
        assert chosen.inputs is chosen.clean.inputs
        raise ZeroDivisionError  # there is no result

    with pytest.raises(ZeroDivisionError):
        asked(compute)


def test_a_probe_without_targets_has_no_maps() -> None:
    class Untargeted(vizcnn.Probe[vizcnn.Heatmap]):
        """Asks for maps of nothing."""

        needs_target = False

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            maps = each_map(subject, blank_second, label="maps")
            return heatmap(subject, maps, meaning=str, signed=True)

    with pytest.raises(ParameterError, match="a probe that explains no target"):
        Untargeted()(vizcnn.Model(small_cnn(), size=16), IMAGES, progress=False)


def test_a_file_that_cannot_be_read_is_left_out_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for i in range(2):
        Image.fromarray(np.full((20, 20, 3), 60 + 40 * i, np.uint8)).save(tmp_path / f"good{i}.png")
    compute = partial(vizcnn.Saliency(), vizcnn.Model(small_cnn(), size=16), tmp_path, 1)
    with pytest.warns(VizcnnWarning, match=r"1 image was left out, .*bad\.png: "):
        found = compute()
    assert [photo.name for photo in found.photos] == ["good0.png", "good1.png"]
    assert [Path(name).name for name, _ in found.refused] == ["bad.png"]
    with pytest.raises(ImageError, match=r"bad\.png"):
        compute(strict=True)
    for i in range(2):
        (tmp_path / f"good{i}.png").unlink()
    with pytest.raises(ImageError, match=r"bad\.png"):
        compute()


def test_the_densest_square_is_found_by_looking_everywhere() -> None:
    values = torch.rand(20, 30, generator=torch.Generator().manual_seed(1)) - 0.5
    box = find_densest(values)
    sums = {(y, x): values[y : y + 4, x : x + 4].abs().sum() for y in range(17) for x in range(27)}
    assert (box.top, box.left) == max(sums, key=lambda at: float(sums[at]))
    assert (box.bottom - box.top, box.right - box.left) == (4, 4)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        (Box(0, 20, 20, 40), "upper left (x 20-40, y 0-20 px)"),
        (Box(30, 50, 50, 70), "centre (x 50-70, y 30-50 px)"),
        (Box(60, 20, 80, 100), "lower part (x 20-100, y 60-80 px)"),
        (Box(5, 52, 75, 68), "middle part (x 52-68, y 5-75 px)"),
        (Box(0, 20, 80, 95), "larger part of the image"),
        (Box(0, 20, 80, 100), "whole image"),
        (Box(-40, -40, 120, 160), "whole image"),
    ],
)
def test_places_are_told_by_names_that_leave_something_out(box: Box, place: str) -> None:
    """Of a photograph of 80 x 120 px the network sees the middle 80 x 80."""

    def tell(subject: Subject) -> None:
        assert subject.seen[0] == Box(0, 20, 80, 100)
        assert subject.place(0, box) == place
        raise ZeroDivisionError  # there is no result

    with pytest.raises(ZeroDivisionError):
        asked(tell, images=np.zeros((80, 120, 3)))


def test_a_map_that_is_even_is_strongest_almost_everywhere() -> None:
    def even(images: Tensor, _targets: Any) -> list[Map]:
        return [Map(one, find_peak(one), "light is strongest") for one in torch.ones(len(images), 16, 16)]

    assert "light is strongest almost everywhere; logit of 1 " in made(even).findings[0][0]


class Mean(nn.Module):
    """The logits of three classes: multiples of an image's mean."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.weights  # (N, 3)


@pytest.mark.parametrize(
    ("scale", "target", "said"),
    [
        (20.0, "p(a)", "probability >0.999"),
        (9.0, "p(b)", "probability of b 0.000123"),
        (20.0, "b", "logit of b 10"),
        (4000.0, "a", "logit 6,000"),
        (1.0, "p(a)", "probability 0.629"),
        (1.0, vizcnn.target("p(a)") - vizcnn.target("p(b)"), "probability of p(a) - p(b) 0.397"),
    ],
)
def test_a_score_is_said_without_an_exponent_and_never_as_certain(scale: float, target: Any, said: str) -> None:
    model = vizcnn.Model(Mean((3 * scale, scale, 0.0)), size=8, mean=[0] * 3, std=[1] * 3, labels=list("abc"))
    found = vizcnn.Saliency()(model, torch.full((1, 3, 8, 8), 0.5), target)
    *_, score = found.findings[0][0].split("; ")
    assert score == said
    assert found.plot().get_title().endswith(f", score {said.split()[-1]}")


def test_more_than_half_of_an_image_is_not_almost_everywhere() -> None:
    def upper(images: Tensor, _targets: Any) -> list[Map]:
        values = torch.ones(len(images), 16, 16)
        values[:, 10:] = 0
        return [Map(one, find_peak(one), "light is strongest") for one in values]

    assert "light is strongest in the larger part of the image; logit" in made(upper).findings[0][0]


def test_the_sentence_may_name_a_tighter_place_than_the_box() -> None:
    def both(images: Tensor, _targets: Any) -> list[Map]:
        box, place = Box(0, 0, 8, 8), Box(2, 2, 4, 4)
        return [Map(one, box, "light is strongest", place=place, mark="its region") for one in images.mean(1)]

    found = made(both)
    assert "light is strongest in the upper left (x 2-4, y 2-4 px); logit" in found.findings[0][0]
    assert (found.marks[0][0].box, found.marks[0][0].text) == (Box(0, 0, 8, 8), "its region")


def test_sentences_have_two_lines_at_most_whatever_the_names() -> None:
    labels = [f"{i} of the classes with names as long as whole sentences, and then some more words" for i in range(5)]
    model = vizcnn.Model(small_cnn(), size=16, labels=labels)
    for probe in (vizcnn.Saliency(), vizcnn.Occlusion(), vizcnn.Rise(masks=20)):
        said = probe(model, IMAGES, [labels[1], labels[2]], progress=False).findings
        assert max(len(sentence) for row in said for sentence in row) <= 200


def test_the_probability_of_an_only_class_is_not_told() -> None:
    """The softmax of one logit is 1 whatever the image."""

    class Certain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None].softmax(1) + 0 * x.sum((1, 2, 3))[:, None]

    def bright(output: Tensor) -> Tensor:
        return output[:, 0]

    model = vizcnn.Model(Certain(), size=16, labels=["lemon"], head="softmax")
    method = lambda images, _: [Map(one, find_densest(one), "light is strongest") for one in images.mean(1)]  # noqa: E731

    class Asking(vizcnn.Probe[vizcnn.Heatmap]):
        """Asks."""

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            return heatmap(subject, each_map(subject, method, label="maps"), meaning=str, signed=True)

    found = Asking()(model, IMAGES, bright, progress=False)
    assert found.predictions == ((),) * 3
    assert found.findings[0][0].startswith("light is strongest")


def test_a_peak_is_a_box_without_weaker_values_that_cannot_grow() -> None:
    for seed in range(20):
        values = torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(seed)) - 0.3
        values = torch.nn.functional.interpolate(values, (24, 30), mode="bilinear")[0, 0]
        box, strong = find_peak(values), values > 0.8 * values.max()
        assert box is not None
        (top, left, bottom, right) = map(int, (box.top, box.left, box.bottom, box.right))
        y, x = divmod(int(values.argmax()), 30)
        assert top <= y < bottom
        assert left <= x < right
        assert strong[top:bottom, left:right].all()
        assert top == 0 or not strong[top - 1, left:right].all()
        assert left == 0 or not strong[top:bottom, left - 1].all()
        assert bottom == 24 or not strong[bottom, left:right].all()
        assert right == 30 or not strong[top:bottom, right].all()


def test_what_was_not_computed_belongs_to_no_peak() -> None:
    field = torch.zeros(4, 6)
    field[1, 1], field[1, 2:], field[2, 5] = 1.0, torch.nan, 0.9
    assert find_peak(field) == Box(1, 1, 2, 2)
    assert find_peak(torch.full((4, 6), torch.nan)) is None
    assert find_peak(-torch.ones(4, 6)) is None

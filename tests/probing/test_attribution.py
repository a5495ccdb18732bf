"""The helpers for probes that attribute a target to pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor

import vizcnn
import vizcnn.probing
from vizcnn.errors import DegenerateResult, NonFiniteResult, NotDifferentiable, ShapeError
from vizcnn.models.targets import Target
from vizcnn.probing import Map, Subject, each_map, find_densest, heatmap, one_by_one, score

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))  # (3, C, H, W)


def asked(compute: Callable[[Subject], Any], targets: Any = (1, 3), images: Tensor = IMAGES) -> Any:
    """What a probe whose answer this is comes to."""

    class Asking(vizcnn.Probe[vizcnn.Heatmap]):
        """Asks."""

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            return compute(subject)  # type: ignore[no-any-return]

    return Asking()(vizcnn.Model(small_cnn(), size=16), images, targets, progress=False)


def made(method: Any, **options: Any) -> Any:
    return asked(
        lambda subject: heatmap(
            subject, each_map(subject, method, label="maps"), meaning=lambda quantity: quantity, signed=True, **options
        )
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
    single = made(one_by_one(lambda image, target: method(image, [target])[0]))
    np.testing.assert_array_equal(single.values, found.values)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (torch.zeros(16, 16), DegenerateResult, "is zero everywhere: by this method nothing speaks for it"),
        (torch.full((16, 16), float("nan")), NonFiniteResult, "the map of 1 for tensor holds NaN or infinity"),
        (torch.ones(3, 16, 16), ShapeError, r"must be one of the input's size \(16, 16\), got \[\(3, 16, 16\)\]"),
        (None, ShapeError, r"got \[\]"),
    ],
)
def test_what_is_no_map_is_refused(values: Tensor | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(lambda *_: [] if values is None else [Map(values, None, "is")])


def test_ctrl_c_keeps_the_images_that_are_done() -> None:
    calls = []

    def method(images: Tensor, targets: Sequence[Target]) -> list[Map]:
        calls.append(targets)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return [Map(image.mean(0), None, "is") for image in images]

    with pytest.raises(vizcnn.Interrupted) as caught:
        made(method)
    assert caught.value.result.values.shape == (1, 2, 16, 16)
    assert caught.value.result.partial
    calls[:] = [()] * 3  # the first image is not done
    with pytest.raises(KeyboardInterrupt) as nothing:
        made(method)
    assert not isinstance(nothing.value, vizcnn.Interrupted)


def test_the_densest_square_is_found_by_looking_everywhere() -> None:
    values = torch.rand(20, 30, generator=torch.Generator().manual_seed(1)) - 0.5
    box = find_densest(values)
    sums = {(y, x): values[y : y + 4, x : x + 4].abs().sum() for y in range(17) for x in range(27)}
    assert (box.top, box.left) == max(sums, key=lambda at: float(sums[at]))
    assert (box.bottom - box.top, box.right - box.left) == (4, 4)

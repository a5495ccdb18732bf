from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn import progress
from vizcnn.errors import DegenerateResult, NonFiniteResult, ParameterError
from vizcnn.models.batches import default_batch, default_part_batch
from vizcnn.models.scoring import Indices, Scores, score_batches

IMAGE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
ALL = np.arange(11)


def dimmed(indices: Indices) -> Tensor:
    """The image at eleven brightnesses."""
    return torch.stack([IMAGE * (float(i) + 1) / 11 for i in indices])


class Watched(nn.Module):
    """Notes how many images each run has; before a run, something may happen."""

    def __init__(self, happens: Callable[[Watched, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        self.inner, self.happens, self.seen = small_cnn(), happens, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        out: Tensor = self.inner(self.happens(self, x))
        return out


def resolved(model: vizcnn.Model, *targets: int | str) -> list[vizcnn.Target]:
    return [vizcnn.target(target).resolved(model) for target in targets]


@torch.no_grad()
def test_scores_are_those_of_runs_one_by_one_in_the_order_asked_for() -> None:
    model = vizcnn.Model(small_cnn(), size=16)
    targets, asked = resolved(model, 3, 1), np.array([7, 2, 10, 0, 4])
    expected = torch.cat([model(dimmed(np.array([i]))) for i in asked])[:, [3, 1]]  # (5, 2)
    for batch in (1, 2, 5, None):
        found = list(score_batches(model, dimmed, asked, targets, batch=batch))
        np.testing.assert_array_equal(np.concatenate([indices for indices, _ in found]), asked)
        scores = np.concatenate([scores for _, scores in found])
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert list(score_batches(model, dimmed, asked[:0], targets)) == []


def test_only_one_batch_of_altered_images_is_made_at_a_time() -> None:
    made: list[int] = []

    def noted(indices: Indices) -> Tensor:
        made.append(len(indices))
        return dimmed(indices)

    model = vizcnn.Model(small_cnn(), size=16)
    batches = score_batches(model, noted, ALL, resolved(model, 0), batch=4, layout=torch.contiguous_format)
    for number, _ in enumerate(batches, 1):
        assert made == [4, 4, 3][:number]


def test_the_batch_halves_until_it_fits_and_stays_there() -> None:
    def hungry(_: Watched, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("out of memory on purpose")
        return x

    network = Watched(hungry)
    model = vizcnn.Model(network, size=16)
    plain, targets = vizcnn.Model(small_cnn(), size=16), resolved(model, 1)
    found, expected = (
        [*score_batches(each, dimmed, ALL, targets, batch=8, layout=torch.contiguous_format)] for each in (model, plain)
    )
    assert network.seen == [8, 4, 2, 2, 2, 2, 2, 1]
    scores, full = (np.concatenate([scores for _, scores in each]) for each in (found, expected))
    np.testing.assert_allclose(scores, full, rtol=1e-5)


def test_memory_that_does_not_suffice_for_one_image_is_an_error() -> None:
    def starving(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("out of memory on purpose")

    network = Watched(starving)
    model = vizcnn.Model(network, size=16)
    with pytest.raises(torch.OutOfMemoryError):
        list(score_batches(model, dimmed, ALL, resolved(model, 1), batch=4, layout=torch.contiguous_format))
    assert network.seen == [4, 2, 1]


def test_after_ctrl_c_whoever_collects_has_what_was_done() -> None:
    def interrupted(network: Watched, x: Tensor) -> Tensor:
        if len(network.seen) == 3:
            raise KeyboardInterrupt
        return x

    model, kept = vizcnn.Model(Watched(interrupted), size=16), dict[int, Scores]()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what is collected is the point
        for indices, scores in score_batches(
            model, dimmed, ALL, resolved(model, 1), batch=4, layout=torch.contiguous_format
        ):
            kept.update(zip(indices.tolist(), scores, strict=True))
    assert sorted(kept) == list(range(8))


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_no_image_is_refused(batch: int) -> None:
    model = vizcnn.Model(Watched(lambda _, x: x), size=16)
    with pytest.raises(ParameterError, match=f"batch must be at least 1, got {batch}"):
        next(score_batches(model, dimmed, ALL, resolved(model, 1), batch=batch))


def test_a_score_that_is_no_number_is_refused() -> None:
    model = vizcnn.Model(Watched(lambda _, x: x / (x.mean((1, 2, 3), keepdim=True) > 0.2)), size=16)
    with pytest.raises(NonFiniteResult, match=r"the score of 1 for an altered image is (inf|nan). Alter the images"):
        list(score_batches(model, dimmed, ALL[::-1].copy(), resolved(model, 1), batch=4))


@pytest.mark.parametrize(
    "careless", [lambda _, x: F.dropout(x), lambda _, x: x - x.mean(0, keepdim=True)], ids=["random", "in company"]
)
def test_a_network_whose_answer_changes_by_itself_is_refused(careless: Callable[[Watched, Tensor], Tensor]) -> None:
    model = vizcnn.Model(Watched(careless), size=16)
    with pytest.raises(DegenerateResult, match="differs by .* between a run alone and a run beside another image"):
        list(score_batches(model, dimmed, ALL, resolved(model, 1)))


def test_no_graph_of_gradients_is_kept() -> None:
    def checked(_: Watched, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return x

    model, weight = vizcnn.Model(Watched(checked), size=16), torch.ones(1, requires_grad=True)
    with torch.enable_grad():
        batches = score_batches(model, lambda indices: dimmed(indices) * weight, ALL, resolved(model, 1))
        assert sum(len(scores) for _, scores in batches) == 11
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_says_how_far_it_is(
    shown: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)

    def slowly(_: Watched, x: Tensor) -> Tensor:
        time.sleep(0.15)  # a bar is drawn ten times a second at most
        return x

    model = vizcnn.Model(Watched(slowly), size=16)
    list(score_batches(model, dimmed, ALL, resolved(model, 1), batch=4, label="dimmed", shown=shown))
    said = capfd.readouterr().err
    assert ("dimmed" in said and "8/11" in said) == shown


@pytest.mark.parametrize(("device", "photographs"), [("cpu", 4), ("meta", 12)])
def test_the_default_batch_holds_the_pixels_of_a_few_photographs(device: str, photographs: int) -> None:
    where = torch.device(device)
    assert default_batch((224, 224), where) == photographs
    assert default_batch((448, 448), where) == photographs
    assert default_batch((112, 112), where) == 4 * photographs
    assert default_part_batch((224, 224), where) == 12, "where less runs for each"
    assert default_part_batch((112, 112), where) == 4 * photographs

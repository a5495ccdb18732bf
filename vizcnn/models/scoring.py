"""Scoring: run a network on many altered images.

Whatever changes an image and asks what that does to a score goes through here: occlusion, Score-CAM, RISE, your own
probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.errors import NonFiniteResult, ParameterError
from vizcnn.models.batches import default_batch, run_batches
from vizcnn.models.clean import run_clean
from vizcnn.models.determinism import score_images
from vizcnn.models.model import Model
from vizcnn.models.targets import Target

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def score_batches(
    model: Model,
    alter: Callable[[Indices], Tensor],
    indices: Indices,
    targets: Sequence[Target],
    *,
    batch: int | None = None,
    layout: torch.memory_format | None = None,
    label: str = "altered images",
    shown: bool = True,
) -> Iterator[tuple[Indices, Scores]]:
    """The targets' scores for many altered images, batch after batch: the indices (B,) and float64 scores (B, T).

    alter: makes the altered images (B, C, H, W), in [0, 1] and on the model's device, for B of the indices. Only one
        batch of them exists at a time.
    targets: resolved (`target.resolved(model)`).
    batch: images per run; by default chosen by their size. When memory runs out, runs go on with half as many.
    layout: how images lie in memory. A probe passes its subject's, which was found out when the network was checked;
        without it the check is made here, on the first image alone and beside another.
    label, shown: of the progress bar that appears for what takes longer than two seconds.

    Each batch is yielded as soon as it is done, so that the caller still has those after Ctrl-C. The network
    should be borrowed meanwhile (`with model.borrowed():`). Raises NonFiniteResult for a score that is NaN or infinite,
    DegenerateResult (from the check) for a network that is random or lets the images of a batch influence each other.

    How bright may a photograph be before the network takes it for something else?

        >>> import numpy as np, torch, vizcnn
        >>> from vizcnn.models.scoring import score_batches
        >>> model = vizcnn.load("tiny")
        >>> image, _ = model.prepared(vizcnn.open_photo("sample:grace_hopper"))
        >>> brightness = np.linspace(0.5, 1, 6)
        >>> def dimmed(indices):
        ...     return torch.stack([image * float(brightness[i]) for i in indices])
        >>> target = vizcnn.target("military uniform").resolved(model)
        >>> with model.borrowed():
        ...     batches = list(score_batches(model, dimmed, np.arange(6), [target]))
        >>> np.concatenate([scores for _, scores in batches]).shape
        (6, 1)
    """
    if batch is not None and batch < 1:
        raise ParameterError(f"batch must be at least 1, got {batch}")
    if not len(indices):
        return
    if batch is None or layout is None:
        first = alter(indices[:1])  # (1, C, H, W)
        batch = batch if batch is not None else default_batch((first.shape[2], first.shape[3]), first.device)
        if layout is None:
            clean = run_clean(model, first, tuple(targets))
            targets, layout = clean.targets[0], clean.layout
    with progress.bar(len(indices), label, "image", shown=shown) as bar:

        def run(part: slice) -> Scores:
            return _score_finite(model, alter(indices[part]).contiguous(memory_format=layout), targets)

        for part, scores in run_batches(len(indices), batch, run):
            yield indices[part], scores
            bar.update(len(scores))


def differ(scores: Scores, clean: Scores, largest: float, dtype: torch.dtype) -> npt.NDArray[np.bool_]:
    """Whether the scores of altered images (n, T) differ by more than rounding from the image's own (T,): bool (T,).

    A map of rounding errors looks like any other map. largest: the magnitude of the network's largest output for the
    image itself; by it and the scores rounding is judged. dtype: of the images."""
    size = np.maximum(np.abs(scores).max(0), largest)
    return np.asarray(np.abs(clean - scores).max(0) > 16 * torch.finfo(dtype).eps * size)


@torch.no_grad()
def _score_finite(model: Model, images: Tensor, targets: Sequence[Target]) -> Scores:
    """The targets' scores for altered images (B, C, H, W), float64 (B, T). Raises NonFiniteResult."""
    scores = score_images(model, images, targets).cpu().double()  # (B, T), moved before anything is read
    finite = scores.isfinite()
    if not finite.all():
        i, t = (~finite).nonzero()[0].tolist()
        raise NonFiniteResult(
            f"the score of {targets[t]} for an altered image is {float(scores[i, t])}. Alter the images in another way "
            "(another fill, another method), or take another target"
        )
    return np.asarray(scores.numpy())

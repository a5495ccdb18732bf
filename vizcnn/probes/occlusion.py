"""Occlusion: cover parts of an image and see what that costs."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from vizcnn import progress
from vizcnn.errors import DegenerateResult, ParameterError
from vizcnn.geometry import Box
from vizcnn.models.scoring import default_batch
from vizcnn.occlusion import How, Sweep, priced
from vizcnn.occlusion.windows import Windows, checked_fill, checked_sides, covering, mean_over_windows, pair, sliding
from vizcnn.probing.probe import Price, Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Heatmap, Mark, Provenance


class Occlusion(Probe[Heatmap]):
    """What happens to the answer when a part of the image is covered?

    A window slides over the image; each position is covered and the network runs again. The map's value at a pixel is
    the mean, over all windows that cover it, of clean score minus occluded score: positive (red) where covering hurts
    the target, negative (blue) where it helps. Windows at the right and bottom edge are clipped to the image; every
    pixel is covered. By default the part is blurred, which takes its detail and keeps its colours: a plain square is
    itself an object that networks react to. Equal to captum's Occlusion with the same windows, fill and target.

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2.
    Raises ParameterError, DegenerateResult (a target that no window moves), NonFiniteResult.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"

    window: int | tuple[int, int] | None = param(
        None,
        "Side of the covering square, or HEIGHTxWIDTH; by default a fifth of the input.",
        min=1,
        unit="px",
        parse=pair,
    )
    stride: int | tuple[int, int] | None = param(
        None,
        "Distance between windows, or DOWNxACROSS; by default a fifth of the window.",
        min=1,
        unit="px",
        parse=pair,
    )
    fill: str = param(
        "blur",
        "What covers: mean (of the image), model (the mean it was trained with), blur, or a colour such as #7f7f7f.",
    )
    batch: int | None = param(None, "Images per forward pass; by default chosen by their size.", min=1)
    engine: Literal["auto", "plain", "incremental"] = param(
        "auto",
        "plain runs the network in full for each window; incremental recomputes only what a window can touch, with the "
        "same result; auto takes whichever pays, checks it and falls back on any doubt.",
    )
    precision: Literal["fp32", "bf16"] = param(
        "fp32", "bf16 is faster and approximate: its error is measured on some windows and reported."
    )
    tolerance: float = param(
        0.0,
        "Above 0 changes that fade are not followed to the end: the share of a layer's change that may be left out. "
        "Faster and approximate; the error is measured and reported.",
        min=0,
        max=0.5,
    )
    max_error: float = param(
        0.05,
        "Of an approximation: the largest error, as a share of the largest drop, before going back to exact.",
        min=0,
    )

    def check(self) -> None:
        if self.engine == "plain" and (self.precision != "fp32" or self.tolerance):
            raise ParameterError(
                "Occlusion: precision and tolerance belong to the incremental engine, got engine plain. Leave one out"
            )
        checked_fill("Occlusion: fill", self.fill)
        if self.window and self.stride:
            checked_sides(_both(self.window), _both(self.stride))

    def compute(self, subject: Subject) -> Heatmap:
        window, stride, sweep = self._sweep(subject)
        windows = sweep.windows
        found, partial = _swept(subject, sweep)
        subject = subject.first(len(found))
        provenance = subject.provenance(
            window=window, stride=stride, windows=len(windows), fill=self.fill, **sweep.details
        )
        result = _heatmap(subject, windows, found, provenance, partial)
        if not partial:
            _refuse_unmoved(subject, result, found)
        return result

    def price(self, subject: Subject) -> Price:
        return priced(self._sweep(subject)[2])

    def _sweep(self, subject: Subject) -> tuple[tuple[int, int], tuple[int, int], Sweep]:
        """The window's sides, the stride, and the sweep, ready to run."""
        size = (int(subject.inputs.shape[2]), int(subject.inputs.shape[3]))
        window, stride = self._sizes(size)
        covers = [covering(self.fill, image, subject.model.input.mean, window) for image in subject.inputs]
        how = How(self.batch or default_batch(size), self.engine, self.precision, self.tolerance, self.max_error)
        return window, stride, Sweep(subject, covers, sliding(size, window, stride), how)

    def _sizes(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        window = _both(self.window or max(1, round(min(size) / 5)))
        stride = _both(self.stride) if self.stride else (max(1, window[0] // 5), max(1, window[1] // 5))
        return window, stride


def _both(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side


def _swept(subject: Subject, sweep: Sweep) -> tuple[list[npt.NDArray[np.float64]], bool]:
    """The targets' numbers under every window, (n, T) per image, and whether Ctrl-C ended the sweep.

    Interrupted, the last image reached has NaN for the windows that did not come."""
    found: list[npt.NDArray[np.float64]] = []
    windows = len(sweep.windows)
    try:
        with progress.bar(len(sweep.covers) * windows, "occlusion", "window", shown=subject.progress) as bar:
            for i in range(len(sweep.covers)):
                for places, numbers in sweep.image(i):
                    first = len(found) == i
                    if first:
                        found.append(np.full((windows, numbers.shape[1]), np.nan))
                    bar.update(int(np.isnan(found[i][places, 0]).sum()))
                    found[i][places] = numbers
                    if first:
                        _refuse_unmovable(subject, i, numbers, sweep.covers[i])
    except KeyboardInterrupt:
        if not found:
            raise
        return found, True
    return found, False


def _heatmap(
    subject: Subject, windows: Windows, found: list[npt.NDArray[np.float64]], provenance: Provenance, partial: bool
) -> Heatmap:
    size = (subject.inputs.shape[2], subject.inputs.shape[3])
    maps, marks, findings = [], [], []
    for i, numbers in enumerate(found):
        came = ~np.isnan(numbers[:, 0])
        drops = subject.scores[i] - numbers[came]  # (n, T)
        maps.append(mean_over_windows(windows[came], drops, size))
        worst = [_worst(subject, i, windows[came], drops[:, t]) for t in range(drops.shape[1])]
        marks.append(
            tuple(Mark(box, f"this window alone: {drop:.3g} lost") if drop > 0 else None for box, drop in worst)
        )
        findings.append(tuple(_finding(subject, i, t, *one) for t, one in enumerate(worst)))
    return Heatmap(
        provenance=provenance,
        values=np.stack(maps),  # (N, T, H, W)
        scores=subject.scores.astype(np.float32),
        meanings=tuple(f"{subject.quantity(t)} lost when covered" for t in range(len(subject.targets[0]))),
        photos=subject.photos,
        seen=subject.seen,
        predictions=subject.predictions(),
        marks=tuple(marks),
        findings=tuple(findings),
        partial=partial,
    )


def _refuse_unmovable(subject: Subject, i: int, numbers: npt.NDArray[np.float64], cover: torch.Tensor) -> None:
    """Refuse a target that nothing can move before all windows are run, given its numbers (n, T) under the first ones.

    Where those do nothing, the whole image is covered, turned into its negative, mirrored and replaced by noise."""
    if _moved(subject, i, numbers).all():
        return
    image = subject.inputs[i]
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    others = (cover, 1 - image, image.flip(-1), noise)
    with torch.no_grad():
        found = torch.cat([subject.model_scores(other[None], i) for other in others]).double().cpu().numpy()  # (4, T)
    for t in np.nonzero(~_moved(subject, i, np.concatenate([numbers, found])))[0]:
        raise DegenerateResult(
            f"no window changes the target {subject.targets[i][t]} of {subject.photos[i].name} by more than rounding "
            f"(it stays {subject.scores[i, t]:g} under the first {len(numbers)}), nor does covering the whole image, "
            "its negative, its mirror image or noise: a dead unit, or one that does not see the input"
        )


def _refuse_unmoved(subject: Subject, result: Heatmap, found: list[npt.NDArray[np.float64]]) -> None:
    """A map of rounding errors looks like any other: refuse one in which no window did more than that."""
    for i, numbers in enumerate(found):
        for t in np.nonzero(~_moved(subject, i, numbers))[0]:
            raise DegenerateResult(
                f"no window changes the target {subject.targets[i][t]} of {result.photos[i].name} by more than "
                f"rounding (it stays {subject.scores[i, t]:g}): a dead unit, or one that does not see the input"
            )


def _moved(subject: Subject, i: int, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether each target's numbers (n, T) differ from the clean score by more than rounding, (T,)."""
    rounding = 16 * torch.finfo(subject.inputs.dtype).eps
    size = 0.0 if subject.output is None else float(subject.output[i].abs().max())
    moved = np.abs(subject.scores[i] - numbers).max(0) > rounding * np.maximum(np.abs(numbers).max(0), size)
    return np.asarray(moved)


def _worst(subject: Subject, i: int, windows: Windows, drops: npt.NDArray[np.float64]) -> tuple[Box, float]:
    """The window whose covering costs most, in px of the photograph, and its cost."""
    most = int(drops.argmax())
    top, bottom, left, right = windows[most].tolist()
    return subject.in_photo(i, Box(top, left, bottom, right)), float(drops[most])


def _finding(subject: Subject, i: int, t: int, box: Box, drop: float) -> str:
    """One sentence: what was predicted, where covering hurts most and by how much."""
    start, score = subject.said(i), float(subject.scores[i, t])
    what = f"the {subject.quantity(t).split(' of ')[0]}{subject.about(i, t)}"
    if drop <= 0:
        return f"{start}covering no part lowers {what} ({score:.3g})"
    return f"{start}covering the {subject.place(i, box)} costs most: {what} falls by {drop:.3g}, from {score:.3g}"

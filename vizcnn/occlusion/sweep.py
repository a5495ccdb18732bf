"""Sweep: choose the engine that pays, check it against full runs, and fall back on any doubt."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vizcnn.errors import ParameterError, VizcnnWarning
from vizcnn.models.failing import is_out_of_memory
from vizcnn.occlusion.incremental import Tape, Untraceable, executed_share, ideal_share, record
from vizcnn.occlusion.partial import Partial
from vizcnn.occlusion.plain import Numbers, Scored, plain
from vizcnn.occlusion.ranks import spearman
from vizcnn.occlusion.windows import Ints, Windows, at_shares
from vizcnn.probing.subject import Subject

PAYS = 0.9
"""Above this share of the FLOPs of full runs the plain engine is as fast."""

LANDMARKS = ((1.0, 1.0), (0.0, 0.5), (0.5, 0.5))
"""The windows that are always checked: a corner, an edge and the centre."""

_EXACT = 1e-4  # largest difference that may be rounding, as a share of the largest drop
_ROUNDING = 256  # and beside that so many units in the last place of the scores
_SHORT = 0.01  # s: what takes less is mostly overhead, and timed again in a full batch


class Doubt(Exception):  # noqa: N818 - the sweep goes on in another way
    """The incremental engine's numbers cannot be trusted. The text says why."""


@dataclass(frozen=True)
class How:
    """How to sweep: see the options of Occlusion."""

    batch: int
    engine: Literal["auto", "plain", "incremental"] = "auto"


@dataclass
class Checks:
    """What checks against full runs have found, over all images.

    error: the largest difference as a share of the image's largest drop.
    rank_correlation: the lowest of the images, Spearman's, over the windows that were checked."""

    checked: int = 0
    error: float = 0.0
    rank_correlation: float = 1.0


class Sweep:
    """One call's sweep over windows (n, 4) of a subject's images, each with its cover (C, H, W)."""

    def __init__(self, subject: Subject, covers: list[Tensor], windows: Windows, how: How) -> None:
        self.subject, self.covers, self.windows, self.how = subject, covers, windows, how
        self.checks, self.shares = Checks(), dict[str, float]()
        self.partial: Partial | None = None
        self.tape: Tape | None = None
        self._settled = how.engine == "incremental"
        if how.engine != "plain":
            self._start()

    def _start(self) -> None:
        try:
            self.tape = recorded(self.subject)
            self._plan()
        except Exception as error:
            self._give_up(error)

    def _plan(self) -> None:
        assert self.tape is not None
        self.partial = Partial(self.subject, self.tape, self.windows, self.how.batch)
        self.shares = {
            "flops_ideal": ideal_share(self.partial.engine, self.partial.touched),
            "flops_executed": executed_share(self.partial.engine, self.partial.plans),
        }
        if self.shares["flops_executed"] > PAYS and not self._settled:
            self.partial = None

    def _give_up(self, error: Exception) -> None:
        """Fall back to full runs and warn once, with the reason."""
        if is_out_of_memory(error):
            raise error
        reason = str(error) if isinstance(error, Untraceable | Doubt) else f"{type(error).__name__}: {error}"
        if self.how.engine == "incremental":
            raise ParameterError(f"the incremental engine cannot be used here: {reason}. Use engine auto") from error
        warnings.warn(
            f"Occlusion runs the network in full for each window, which is slower: {reason}",
            VizcnnWarning,
            stacklevel=2,
        )
        self.partial = None

    @property
    def details(self) -> dict[str, Any]:
        """What provenance says of the engine."""
        if self.partial is None:
            return {"engine": "plain", **self.shares}
        return {"engine": "incremental", **self.shares, **asdict(self.checks)}

    def image(self, i: int) -> Scored:
        """The targets' numbers of image i under all windows. Where a window comes again, the later number counts."""
        if self.partial is not None:
            try:
                yield from self._checked(i, self.partial)
            except Exception as error:
                self._give_up(error)
            else:
                return
        yield from self._plain(i, np.arange(len(self.windows)))

    def _plain(self, i: int, places: Ints) -> Scored:
        return plain(self.subject, i, self.covers[i], self.windows, places, self.how.batch)

    def _checked(self, i: int, partial: Partial) -> Scored:
        """The incremental engine's numbers, compared with full runs of a few windows."""
        numbers = np.full((len(self.windows), len(self.subject.targets[i])), np.nan)
        start = time.perf_counter()
        full = self.full(i, at_shares(self.windows, LANDMARKS))
        seconds = time.perf_counter() - start
        for places, found in partial.scored(i, self.covers[i]):
            if not np.isfinite(found).all():
                raise Doubt("it gave NaN or infinity")
            numbers[places] = found
            yield places, found
            if not self._settled and self._is_slower(i, partial, seconds, len(full)):
                self.partial = None
                yield from self._plain(i, np.arange(len(self.windows)))
                return
        drops = self.subject.scores[i] - numbers  # (n, T)
        telling = set(np.abs(drops).argmax(0).tolist()) - full.keys()  # the window of each target's largest drop
        self._compare(i, numbers, full | self.full(i, np.array(sorted(telling), np.int64)))

    def full(self, i: int, places: Ints) -> dict[int, Numbers]:
        """The numbers of full runs, by the window's place."""
        return {int(p): row for chosen, rows in self._plain(i, places) for p, row in zip(chosen, rows, strict=True)}

    def _is_slower(self, i: int, partial: Partial, seconds: float, runs: int) -> bool:
        """Whether the plain engine, that took `seconds` for some runs, does with less. Settled at the second batch."""
        if len(partial.seconds_per_window) < 2:
            return False
        self._settled = True
        if seconds < _SHORT or self.subject.inputs.is_cuda:  # launching is most of the time of few images there
            places = np.arange(min(self.how.batch, len(self.windows)))
            start = time.perf_counter()
            self.full(i, places)
            seconds, runs = time.perf_counter() - start, len(places)
        return min(partial.seconds_per_window) > seconds / runs

    def _compare(self, i: int, numbers: Numbers, full: dict[int, Numbers]) -> None:
        """Raise Doubt where full runs say otherwise than the engine; else add to what is known of its errors."""
        places, exact = list(full), np.stack([*full.values()])  # (c, T)
        largest = np.abs(self.subject.scores[i] - numbers).max(0)  # (T,)
        difference = np.abs(numbers[places] - exact)  # (c, T)
        error = float((difference / np.maximum(largest, np.finfo(float).tiny)).max())
        if (difference > _EXACT * largest + self._rounding(i, exact)).any():
            raise Doubt(f"its numbers are off by {error:.2g} of the largest drop")
        ranks = min(spearman(numbers[places, t], exact[:, t]) for t in range(exact.shape[1]))
        before = self.checks
        self.checks = Checks(
            before.checked + len(places), max(before.error, error), min(before.rank_correlation, ranks)
        )

    def _rounding(self, i: int, exact: Numbers) -> float:
        output = self.subject.output
        size = max(float(np.abs(exact).max()), 0.0 if output is None else float(output[i].abs().max()))
        return _ROUNDING * torch.finfo(self.subject.inputs.dtype).eps * size


def recorded(subject: Subject) -> Tape:
    """The network's tape as far as the targets need it. Raises Untraceable."""
    layers = frozenset[str]().union(*(target.layers for row in subject.targets for target in row))
    return record(subject.model, (int(subject.inputs.shape[2]), int(subject.inputs.shape[3])), layers)

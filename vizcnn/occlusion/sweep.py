"""Sweep: choose the engine that pays, check it against full runs, and fall back on any doubt."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from vizcnn.errors import ParameterError, VizcnnWarning
from vizcnn.models.failing import is_out_of_memory
from vizcnn.models.model import Model
from vizcnn.models.scoring import Scores
from vizcnn.occlusion.incremental import Graph, Untraceable, executed_share, ideal_share, record
from vizcnn.occlusion.plain import Case, Plain, Scored
from vizcnn.occlusion.ranks import spearman
from vizcnn.occlusion.recompute import Incremental
from vizcnn.occlusion.windows import Windows, at_shares

PAYS = 0.9
"""Above this share of the FLOPs of full runs the plain engine is as fast."""

LANDMARKS = ((1.0, 1.0), (0.0, 0.5), (0.5, 0.5))
"""The windows that are always checked: a corner, an edge and the centre."""

_EXACT = 1e-4  # largest difference that may be rounding, as a share of the largest drop
_ROUNDING = 256  # and beside that so many units in the last place of the scores
_SHORT = 0.01  # s: what takes less is mostly overhead, and timed again in a full batch


class Doubt(Exception):  # noqa: N818 - the sweep goes on in another way
    """The incremental engine's numbers cannot be trusted. The text says why."""


@dataclass
class Checks:
    """What checks against full runs have found, over all images.

    error: the largest difference as a share of the image's largest drop.
    rank_correlation: the lowest of the images, Spearman's, over the windows that were checked."""

    checked: int = 0
    error: float = 0.0
    rank_correlation: float = 1.0


class Sweep:
    """One call's sweep over windows (n, 4) of several images of one size.

    batch: images per run. engine: see the option of Occlusion. layout: how images lie in memory, see `score_batches`.
    """

    def __init__(
        self,
        model: Model,
        cases: Sequence[Case],
        windows: Windows,
        *,
        batch: int,
        engine: Literal["auto", "plain", "incremental"] = "auto",
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.model, self.cases, self.windows = model, cases, windows
        self.batch, self.engine, self.layout = batch, engine, layout
        self.plain = Plain(model, windows, batch, layout)
        self.incremental: Incremental | None = None
        self.graph: Graph | None = None
        self.checks, self.shares = Checks(), dict[str, float]()
        self._settled = engine == "incremental"
        if engine != "plain":
            self._start()

    def _start(self) -> None:
        try:
            self.graph = self.record()
            incremental = Incremental(self.graph, self.windows, self.batch)
            self.shares = {
                "flops_ideal": ideal_share(incremental.engine, incremental.touched),
                "flops_executed": executed_share(incremental.engine, incremental.plans),
            }
        except Exception as error:
            self._give_up(error)
        else:
            if self._settled or self.shares["flops_executed"] <= PAYS:
                self.incremental = incremental

    def record(self) -> Graph:
        """The network's graph as far as the targets need it. Raises Untraceable."""
        layers = frozenset[str]().union(*(target.layers for case in self.cases for target in case.targets))
        height, width = self.cases[0].image.shape[1:]
        return record(self.model, (height, width), layers)

    def _give_up(self, error: Exception) -> None:
        """Fall back to full runs and warn once, with the reason."""
        if is_out_of_memory(error):
            raise error
        reason = str(error) if isinstance(error, Untraceable | Doubt) else f"{type(error).__name__}: {error}"
        if self.engine == "incremental":
            raise ParameterError(f"the incremental engine cannot be used here: {reason}. Use engine auto") from error
        warnings.warn(
            f"Occlusion runs the network in full for each window, which is slower: {reason}",
            VizcnnWarning,
            stacklevel=2,
        )
        self.incremental = None

    @property
    def details(self) -> dict[str, Any]:
        """What provenance says of the engine."""
        if self.incremental is None:
            return {"engine": "plain", **self.shares}
        return {"engine": "incremental", **self.shares, **asdict(self.checks)}

    def score(self, case: Case) -> Scored:
        """The targets' scores under all windows. Where a window comes again, the later score counts."""
        if self.incremental is not None:
            try:
                yield from self._checked(case, self.incremental)
            except Exception as error:
                self._give_up(error)
            else:
                return
        yield from self.plain.score(case, np.arange(len(self.windows)))

    def _checked(self, case: Case, incremental: Incremental) -> Scored:
        """The incremental engine's scores, compared with full runs of a few windows."""
        scores = np.full((len(self.windows), len(case.targets)), np.nan)
        start = time.perf_counter()
        full = self.plain.by_place(case, at_shares(self.windows, LANDMARKS))
        seconds = time.perf_counter() - start
        for places, some in incremental.score(case):
            if not np.isfinite(some).all():
                raise Doubt("it gave NaN or infinity")
            scores[places] = some
            yield places, some
            if not self._settled and self._is_slower(case, incremental, seconds, len(full)):
                self.incremental = None
                yield from self.plain.score(case, np.arange(len(self.windows)))
                return
        drops = case.scores - scores  # (n, T)
        telling = set(np.abs(drops).argmax(0).tolist()) - full.keys()  # the window of each target's largest drop
        self._compare(case, scores, full | self.plain.by_place(case, np.array(sorted(telling), np.int64)))

    def _is_slower(self, case: Case, incremental: Incremental, seconds: float, runs: int) -> bool:
        """Whether the plain engine, that took `seconds` for some runs, does with less. Settled at the second batch."""
        if len(incremental.seconds_per_window) < 2:
            return False
        self._settled = True
        if seconds < _SHORT or case.image.is_cuda:  # launching is most of the time of few images there
            places = np.arange(min(self.batch, len(self.windows)))
            start = time.perf_counter()
            self.plain.by_place(case, places)
            seconds, runs = time.perf_counter() - start, len(places)
        return min(incremental.seconds_per_window) > seconds / runs

    def _compare(self, case: Case, scores: Scores, full: dict[int, Scores]) -> None:
        """Raise Doubt where full runs say otherwise than the engine; else add to what is known of its errors."""
        places, exact = list(full), np.stack([*full.values()])  # (c, T)
        largest = np.abs(case.scores - scores).max(0)  # (T,)
        difference = np.abs(scores[places] - exact)  # (c, T)
        error = float((difference / np.maximum(largest, np.finfo(float).tiny)).max())
        rounding = _ROUNDING * torch.finfo(case.image.dtype).eps * max(float(np.abs(exact).max()), case.largest)
        if (difference > _EXACT * largest + rounding).any():
            raise Doubt(f"its numbers are off by {error:.2g} of the largest drop")
        ranks = min(spearman(scores[places, t], exact[:, t]) for t in range(exact.shape[1]))
        before = self.checks
        self.checks = Checks(
            before.checked + len(places), max(before.error, error), min(before.rank_correlation, ranks)
        )

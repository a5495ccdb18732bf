"""Sweep: choose the engine that pays, check it against full runs, and fall back on any doubt."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from vizcnn.errors import NonFiniteResult, ParameterError, VizcnnWarning
from vizcnn.models.batches import default_batch, default_part_batch
from vizcnn.models.failing import is_out_of_memory
from vizcnn.models.model import Model
from vizcnn.models.remembering import keep, recall
from vizcnn.models.scoring import Scores
from vizcnn.occlusion.incremental import Graph, Untraceable, compute_executed_share, compute_ideal_share, record
from vizcnn.occlusion.plain import Case, FullRuns, ScoreBatches
from vizcnn.occlusion.ranks import spearman
from vizcnn.occlusion.recompute import IncrementalRuns
from vizcnn.occlusion.windows import Windows, pick_windows

LARGEST_SHARE = 0.9
"""The incremental engine is used up to this share of the FLOPs of full runs; above it the plain engine is as fast."""

LANDMARKS = ((1.0, 1.0), (0.0, 0.5))
"""The windows that are always checked against full runs: a corner and an edge. With that which changes the target most,
which mostly lies inside, crops are cut off at every side of the maps and at none."""

# What counts as rounding: differences of up to this share of the largest drop, and so many units in the last place of
# the scores beside that.
_TOLERANCE, _ULPS = 1e-4, 256
_SHORT_SECONDS = 0.01  # full runs that take less are mostly overhead, and are timed again in a full batch


class Doubt(Exception):  # noqa: N818 - no failure: the sweep goes on with full runs
    """The incremental engine's scores cannot be trusted. The text says why."""


@dataclass
class Checks:
    """What the comparison with full runs has shown, over all images.

    checked: windows that were compared. error: the largest difference, as a share of its image's largest drop.
    rank_correlation: Spearman's, over the windows of one image that were compared; the lowest of all images."""

    checked: int = 0
    error: float = 0.0
    rank_correlation: float = 1.0


class Sweep:
    """A sweep of windows (n, 4) over several images of one size, for one call.

    batch: images per run, and windows that are recomputed together; by default what suits their size. engine: as in the
    option of Occlusion. layout: how images lie in memory, see `score_batches`. largest_share: with engine auto, the
    incremental engine is used up to this share of the FLOPs of full runs.
    """

    def __init__(
        self,
        model: Model,
        cases: Sequence[Case],
        windows: Windows,
        *,
        batch: int | None = None,
        engine: Literal["auto", "plain", "incremental"] = "auto",
        layout: torch.memory_format = torch.contiguous_format,
        largest_share: float = LARGEST_SHARE,
    ) -> None:
        self.model, self.cases, self.windows = model, cases, windows
        self.engine, self.layout, self.largest_share = engine, layout, largest_share
        (_, height, width), device = cases[0].image.shape, cases[0].image.device
        self.batch = batch or default_batch((height, width), device)
        self.windows_at_once = batch or default_part_batch((height, width), device)
        self.full_runs = FullRuns(model, windows, self.batch, layout)
        self.incremental: IncrementalRuns | None = None  # None: full runs do the work
        self.graph: Graph | None = None
        self.checks, self.shares = Checks(), dict[str, float]()
        self._is_settled = engine == "incremental"  # the time that runs take no longer decides which engine is used
        if engine == "incremental" or (engine == "auto" and not (model.is_black_box or model.one_at_a_time)):
            self._try_incremental()

    def _try_incremental(self) -> None:
        """Take the incremental engine if the network can be followed and, with engine auto, if it saves enough."""
        try:
            self.graph = self.record_graph()
            incremental, self.shares = self._plan_incremental(self.graph)
        except Exception as error:
            self._fall_back(error)
        else:
            if self._is_settled or self.shares["flops_executed"] <= self.largest_share:
                self.incremental = incremental

    def _plan_incremental(self, graph: Graph) -> tuple[IncrementalRuns, dict[str, float]]:
        """The incremental engine with its plans, and the shares of FLOPs that these need."""
        # a graph that is kept keeps its id
        key = ("incremental", id(graph), self.windows.tobytes(), self.windows_at_once)
        found: tuple[IncrementalRuns, dict[str, float]] | None = recall(self.model, key)
        if found is None:
            incremental = IncrementalRuns(graph, self.windows, self.windows_at_once)
            shares = {
                "flops_ideal": compute_ideal_share(incremental.engine, incremental.regions),
                "flops_executed": compute_executed_share(incremental.engine, incremental.plans),
            }
            found = incremental, shares
            keep(self.model, key, found)
        found[0].seconds_per_window.clear()  # those of another call say nothing of this one
        return found

    def record_graph(self) -> Graph:
        """The network's graph as far as the targets need it. Raises Untraceable."""
        if any(target.no_gradient for case in self.cases for target in case.targets):
            raise Untraceable("a detector finds other boxes in each image, by operations that look at values")
        layers = frozenset[str]().union(*(target.layers for case in self.cases for target in case.targets))
        height, width = self.cases[0].image.shape[1:]
        key = ("graph", layers, (height, width))
        graph: Graph = recall(self.model, key) or record(self.model, (height, width), layers)
        keep(self.model, key, graph)
        return graph

    def _fall_back(self, error: Exception) -> None:
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

    def score(self, case: Case) -> ScoreBatches:
        """The targets' scores under all windows. Windows may come twice, after a fall back; the later score counts."""
        if self.incremental is not None:
            try:
                yield from self._score_incrementally(case, self.incremental)
            except NonFiniteResult:  # of full runs: it says nothing of the engine
                raise
            except Exception as error:
                self._fall_back(error)
            else:
                return
        yield from self.full_runs.score(case, np.arange(len(self.windows)))

    def _score_incrementally(self, case: Case, incremental: IncrementalRuns) -> ScoreBatches:
        """The incremental engine's scores, compared with full runs of a few windows: two that lie apart and, for each
        target, the one that changes it most. Goes over to full runs where these turn out to be faster.

        Raises Doubt for scores that are not finite and, when all have been given, for those that full runs contradict.
        """
        scores = np.full((len(self.windows), len(case.targets)), np.nan)
        start = time.perf_counter()
        full = self.full_runs.score_each(case, pick_windows(self.windows, LANDMARKS))
        seconds = time.perf_counter() - start
        for indices, some in incremental.score(case):
            if not np.isfinite(some).all():
                raise Doubt("it gave NaN or infinity")
            scores[indices] = some
            yield indices, some
            if not self._is_settled and self._is_slower(case, incremental, seconds, len(full)):
                self.incremental = None
                yield from self.full_runs.score(case, np.arange(len(self.windows)))
                return
        drops = case.scores - scores  # (n, T)
        peaks = set(np.abs(drops).argmax(0).tolist()) - full.keys()  # the window that changes each target most
        self._check(case, scores, full | self.full_runs.score_each(case, np.array(sorted(peaks), np.int64)))

    def _is_slower(self, case: Case, incremental: IncrementalRuns, seconds: float, runs: int) -> bool:
        """Whether full runs, some of which took `seconds`, are faster. False before the second batch; then settled."""
        if len(incremental.seconds_per_window) < 2:
            return False
        self._is_settled = True
        if seconds < _SHORT_SECONDS or case.image.is_cuda:  # a GPU spends most of the time of few images on launching
            indices = np.arange(min(self.batch, len(self.windows)))
            start = time.perf_counter()
            self.full_runs.score_each(case, indices)
            seconds, runs = time.perf_counter() - start, len(indices)
        return min(incremental.seconds_per_window) > seconds / runs

    def _check(self, case: Case, scores: Scores, full: dict[int, Scores]) -> None:
        """Raise Doubt where full runs disagree with the engine by more than rounding; else add to `checks`.

        scores: the engine's, (n, T). full: those of full runs, (T,) by the window's index."""
        indices, exact = list(full), np.stack([*full.values()])  # (c, T)
        largest = np.abs(case.scores - scores).max(0)  # (T,)
        difference = np.abs(scores[indices] - exact)  # (c, T)
        error = float((difference / np.maximum(largest, np.finfo(float).tiny)).max())
        rounding = _ULPS * torch.finfo(case.image.dtype).eps * max(float(np.abs(exact).max()), case.largest)
        if (difference > _TOLERANCE * largest + rounding).any():
            raise Doubt(f"its numbers are off by {error:.2g} of the largest drop")
        ranks = min(spearman(scores[indices, t], exact[:, t]) for t in range(exact.shape[1]))
        before = self.checks
        self.checks = Checks(
            before.checked + len(indices), max(before.error, error), min(before.rank_correlation, ranks)
        )

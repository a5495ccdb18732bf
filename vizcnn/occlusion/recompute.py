"""The incremental engine at work: windows in batches, the tail run for many at once, smaller batches if memory ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vizcnn.models.failing import is_out_of_memory
from vizcnn.models.scoring import Indices, Scores
from vizcnn.models.targets import Target
from vizcnn.occlusion.incremental import Engine, Graph, Plan, Recomputation, group_windows
from vizcnn.occlusion.plain import Case, ScoreBatches
from vizcnn.occlusion.windows import Windows

_TAIL_BATCH = 256
"""Windows that go through the tail together: reading its large weights takes longer than the work for one window."""


class IncrementalRuns:
    """Runs that recompute only what windows can change. Their plans serve all images of a call.

    seconds_per_window: of each batch that was run."""

    def __init__(self, graph: Graph, windows: Windows, batch: int) -> None:
        self.windows, self.batch = windows, batch
        self.engine = Engine(graph)
        self.regions = self.engine.find_regions(windows)
        self.plans = self._make_plans(np.arange(len(windows)))
        self.seconds_per_window: list[float] = []

    def _make_plans(self, indices: Indices) -> list[Plan]:
        """Plans for some windows, in batches of the present size."""
        batches = (batch[np.isin(batch, indices)] for batch in group_windows(self.regions, self.batch))
        return [self.engine.plan(self.regions, batch) for batch in batches if len(batch)]

    @torch.no_grad()
    def score(self, case: Case) -> ScoreBatches:
        """The targets' scores under all windows, in an order of its own. Batches shrink when memory runs out.

        On Ctrl-C it first gives the scores of what the body has done."""
        plans, queue = list(self.plans), _TailQueue(self.engine, case.targets)
        try:
            recomputation = self._prepare(case, plans)
            while plans:
                try:
                    queue.add(plans[0], self._run(recomputation, plans[0]))
                    plans.pop(0)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or self.batch == 1:
                        raise
                    plans = self._halve_batch(plans)
                    recomputation = self._prepare(case, plans)
                yield from queue.flush(at_least=_TAIL_BATCH if plans and self.engine.tail else 1)
        except KeyboardInterrupt:
            yield from queue.flush(at_least=1)
            raise

    def _prepare(self, case: Case, plans: list[Plan]) -> Recomputation:
        """The image's clean run, which keeps what these plans select from."""
        needed = set[int]().union(*(plan.sources for plan in plans))
        return Recomputation(self.engine, case.image, case.baseline, needed)

    def _run(self, recomputation: Recomputation, plan: Plan) -> dict[int, Tensor]:
        """What the body gives for the windows of a plan; the time is noted."""
        start = time.perf_counter()
        values = recomputation.run(plan)
        if recomputation.image.is_cuda:
            torch.cuda.synchronize(recomputation.image.device)
        self.seconds_per_window.append((time.perf_counter() - start) / len(plan.indices))
        return values

    def _halve_batch(self, plans: list[Plan]) -> list[Plan]:
        """Plans for the windows that are left, in batches of half the size. Further images begin with this size."""
        self.batch //= 2
        self.plans = self._make_plans(np.arange(len(self.windows)))
        return self._make_plans(np.concatenate([plan.indices for plan in plans]))


class _TailQueue:
    """What the body has given for some windows, and waits for the tail."""

    def __init__(self, engine: Engine, targets: tuple[Target, ...]) -> None:
        self.engine, self.targets = engine, targets
        self.waiting: list[tuple[Indices, dict[int, Tensor]]] = []

    def add(self, plan: Plan, values: dict[int, Tensor]) -> None:
        self.waiting.append((plan.indices, values))

    def flush(self, at_least: int) -> Iterator[tuple[Indices, Scores]]:
        """Run the tail for all windows that wait, if they are enough: their indices, and the targets' scores (B, T)."""
        if sum(len(indices) for indices, _ in self.waiting) < at_least:
            return
        indices = np.concatenate([indices for indices, _ in self.waiting])
        crossing = {v: torch.cat([values[v] for _, values in self.waiting]) for v in self.engine.crossing}
        self.waiting = []
        activations = self.engine.run_tail(crossing)
        scores = torch.stack([target(activations) for target in self.targets], 1)  # (B, T)
        yield indices, np.asarray(scores.double().cpu().numpy())

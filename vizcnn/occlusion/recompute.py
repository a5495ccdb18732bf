"""The incremental engine at work: batches of windows, the head run for many together, memory kept in bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vizcnn.models.failing import is_out_of_memory
from vizcnn.models.scoring import Scores
from vizcnn.models.targets import Target
from vizcnn.occlusion.incremental import Engine, Graph, Plan, Prepared, batches
from vizcnn.occlusion.plain import Case, Scored
from vizcnn.occlusion.windows import Ints, Windows

_HEAD = 256
"""So many windows go through the head together, whose weights are large and whose work is small."""


class Incremental:
    """A sweep that recomputes only what windows touch. Its plans serve all images of a call."""

    def __init__(self, graph: Graph, windows: Windows, batch: int) -> None:
        self.windows, self.batch = windows, batch
        self.engine = Engine(graph)
        self.touched = self.engine.find_regions(windows)
        self.plans = self._plans(np.arange(len(windows)))
        self.seconds_per_window: list[float] = []

    def _plans(self, places: Ints) -> list[Plan]:
        """Plans for some windows, in batches of the present size."""
        parts = (batch[np.isin(batch, places)] for batch in batches(self.touched, self.batch))
        return [self.engine.plan(self.touched, part) for part in parts if len(part)]

    @torch.no_grad()
    def score(self, case: Case) -> Scored:
        """The targets' scores under all windows, in an order of its own. The batch shrinks when memory runs out.

        Interrupted by Ctrl-C, it gives what is done first."""
        plans, body = list(self.plans), _Body(self.engine, case.targets)
        try:
            prepared = self._prepare(case, plans)
            while plans:
                try:
                    body.add(plans[0], self._run(prepared, plans[0]))
                    plans.pop(0)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or self.batch == 1:
                        raise
                    plans = self._halve(plans)
                    prepared = self._prepare(case, plans)
                yield from body.flush(at_least=_HEAD if plans and self.engine.head else 1)
        except KeyboardInterrupt:
            yield from body.flush(at_least=1)
            raise

    def _prepare(self, case: Case, plans: list[Plan]) -> Prepared:
        needed = set[int]().union(*(plan.selected for plan in plans))
        return Prepared(self.engine, case.image, case.cover, needed)

    def _run(self, prepared: Prepared, plan: Plan) -> dict[int, Tensor]:
        start = time.perf_counter()
        values = prepared.run(plan)
        if prepared.image.is_cuda:
            torch.cuda.synchronize(prepared.image.device)
        self.seconds_per_window.append((time.perf_counter() - start) / len(plan.chosen))
        return values

    def _halve(self, plans: list[Plan]) -> list[Plan]:
        """What is left to do, in batches of half the size; further images begin with these."""
        self.batch //= 2
        self.plans = self._plans(np.arange(len(self.windows)))
        return self._plans(np.concatenate([plan.chosen for plan in plans]))


class _Body:
    """What has gone through the body and waits for the head."""

    def __init__(self, engine: Engine, targets: tuple[Target, ...]) -> None:
        self.engine, self.targets = engine, targets
        self.waiting: list[tuple[Ints, dict[int, Tensor]]] = []

    def add(self, plan: Plan, values: dict[int, Tensor]) -> None:
        self.waiting.append((plan.chosen, values))

    def flush(self, at_least: int) -> Iterator[tuple[Ints, Scores]]:
        if sum(len(places) for places, _ in self.waiting) < at_least:
            return
        places = np.concatenate([places for places, _ in self.waiting])
        crossing = {v: torch.cat([values[v] for _, values in self.waiting]) for v in self.engine.crossing}
        self.waiting = []
        activations = self.engine.run_head(crossing)
        scores = torch.stack([target(activations) for target in self.targets], 1)  # (B, T)
        yield places, np.asarray(scores.double().cpu().numpy())

"""What a sweep will cost, before it starts."""

from __future__ import annotations

import time

import numpy as np

from vizcnn.models.cost import Cost
from vizcnn.occlusion.incremental import Engine, Plan, Untraceable, count_flops, estimate_memory
from vizcnn.occlusion.sweep import LANDMARKS, Sweep
from vizcnn.occlusion.windows import pick_windows


def estimate_cost(sweep: Sweep) -> Cost:
    """The number of windows, the FLOPs, the memory of the largest batch, and the time, judged by a few full runs."""
    runs = len(sweep.windows) * len(sweep.cases)
    share = sweep.shares["flops_executed"] if sweep.incremental else 1.0
    engine = "incremental engine" if sweep.incremental else "plain engine"
    part = f" and {share:.0%} of the work of full runs" if sweep.incremental else ""
    flops, memory = _count_work(sweep)
    return Cost(
        work=f"{runs} windows{part}, {engine}",
        flops=None if flops is None else flops * runs * share,
        memory=memory,
        seconds=_time_full_run(sweep) * runs * share,
    )


def _count_work(sweep: Sweep) -> tuple[int | None, int | None]:
    """FLOPs of one full run, and bytes of memory; None where the network cannot be followed."""
    if sweep.incremental:
        engine, plans = sweep.incremental.engine, sweep.incremental.plans
    else:
        try:
            engine = Engine(sweep.graph or sweep.record_graph())
        except Untraceable:
            return None, None
        plans = [Plan(np.arange(min(sweep.batch, len(sweep.windows))), {}, {}, {})]  # a batch of full runs
    return count_flops(engine), estimate_memory(engine, plans, sweep.cases[0].image.element_size())


def _time_full_run(sweep: Sweep) -> float:
    """Seconds of one full run, by that of a few."""
    indices = pick_windows(sweep.windows, LANDMARKS)
    start = time.perf_counter()
    sweep.full_runs.score_each(sweep.cases[0], indices)
    return (time.perf_counter() - start) / len(indices)

"""What a sweep will cost, before it starts."""

from __future__ import annotations

import time

import numpy as np

from vizcnn.models.cost import Cost
from vizcnn.occlusion.incremental import Engine, Plan, Untraceable, memory, per_image
from vizcnn.occlusion.sweep import LANDMARKS, Sweep
from vizcnn.occlusion.windows import at_shares


def estimate_cost(sweep: Sweep) -> Cost:
    """The windows, the arithmetic, the memory of the largest batch, and the time by that of a few full runs."""
    runs = len(sweep.windows) * len(sweep.cases)
    share = sweep.shares["flops_executed"] if sweep.incremental else 1.0
    engine = "incremental engine" if sweep.incremental else "plain engine"
    part = f" and {share:.0%} of the work of full runs" if sweep.incremental else ""
    known = sweep.incremental.engine if sweep.incremental else _followed(sweep)
    return Cost(
        work=f"{runs} windows{part}, {engine}",
        flops=per_image(known) * runs * share if known else None,
        memory=_memory(sweep, known) if known else None,
        seconds=_seconds_per_run(sweep) * runs * share,
    )


def _followed(sweep: Sweep) -> Engine | None:
    """The network's steps, to count its work; None where it cannot be followed."""
    try:
        return Engine(sweep.graph or sweep.record())
    except Untraceable:
        return None


def _memory(sweep: Sweep, engine: Engine) -> int:
    full = Plan(np.arange(min(sweep.batch, len(sweep.windows))), {}, {}, {})
    return memory(engine, sweep.incremental.plans if sweep.incremental else [full], sweep.cases[0].image.element_size())


def _seconds_per_run(sweep: Sweep) -> float:
    places = at_shares(sweep.windows, LANDMARKS)
    start = time.perf_counter()
    sweep.plain.by_place(sweep.cases[0], places)
    return (time.perf_counter() - start) / len(places)

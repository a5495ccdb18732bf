"""What a sweep will cost, before it starts."""

from __future__ import annotations

import time

import numpy as np

from vizcnn.occlusion.incremental import Engine, Plan, Untraceable, memory, per_image
from vizcnn.occlusion.sweep import LANDMARKS, Sweep, recorded
from vizcnn.occlusion.windows import at_shares
from vizcnn.probing.probe import Price


def priced(sweep: Sweep) -> Price:
    """The windows, the arithmetic, the memory of the largest batch, and the time by that of a few full runs."""
    windows, images = len(sweep.windows), len(sweep.covers)
    share = sweep.shares["flops_executed"] if sweep.partial else 1.0
    engine = "incremental engine" if sweep.partial else "plain engine"
    part = f" and {share:.0%} of the work of full runs" if sweep.partial else ""
    known = sweep.partial.engine if sweep.partial else _followed(sweep)
    return Price(
        work=f"{windows * images} windows{part}, {engine}",
        flops=per_image(known) * windows * images * share if known else None,
        memory=_memory(sweep, known) if known else None,
        seconds=_seconds_per_run(sweep) * windows * images * share,
    )


def _followed(sweep: Sweep) -> Engine | None:
    """The network's steps, to count its work; None where it cannot be followed."""
    try:
        return Engine(sweep.tape or recorded(sweep.subject))
    except Untraceable:
        return None


def _memory(sweep: Sweep, engine: Engine) -> int:
    width = sweep.subject.inputs.element_size()
    if sweep.partial:
        return memory(engine, sweep.partial.plans, width)
    batch = min(sweep.how.batch, len(sweep.windows))
    return memory(engine, [Plan(np.arange(batch), {}, {}, {})], width)


def _seconds_per_run(sweep: Sweep) -> float:
    places = at_shares(sweep.windows, LANDMARKS)
    start = time.perf_counter()
    sweep.full(0, places)
    return (time.perf_counter() - start) / len(places)

"""Cost: the arithmetic and the memory of a sweep, known before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from torch import Tensor

from vizcnn.graph.recording import Shape, Step, find_last_uses
from vizcnn.occlusion.incremental.crops import PADDINGS
from vizcnn.occlusion.incremental.engine import Engine
from vizcnn.occlusion.incremental.plan import Plan
from vizcnn.occlusion.incremental.regions import Region


def count_flops(engine: Engine) -> int:
    """FLOPs of one full run of the network: multiplications and additions of convolutions and matrix products."""
    return sum(_count_step_flops(step, engine.recorded.shapes) for step in engine.recorded.steps)


def _count_step_flops(step: Step, shapes: Mapping[int, Shape | None]) -> int:
    """FLOPs of a step for one image."""
    shape = shapes[step.outputs[0]]
    if step.name == "convolution" and isinstance(step.args["weight"], Tensor) and shape:
        weight = step.args["weight"]
        per_output = weight.numel() // (weight.shape[1] if step.args["transposed"] else weight.shape[0])
        return 2 * prod(shape) * per_output
    if step.name in ("addmm", "mm") and shape:
        weight = step.args["mat2"]
        return 2 * prod(shape) * int(weight.shape[0]) if isinstance(weight, Tensor) else 0
    return 0


def compute_ideal_share(engine: Engine, regions: Mapping[int, Region]) -> float:
    """FLOPs for exactly what each window can change, as a share of full runs."""
    parts = []
    for step in engine.body:
        region = regions.get(step.outputs[0])
        parts.append(float(region.areas.mean()) / prod(region.space.size) if region else 1.0)
    return _weigh_by_flops(engine, parts)


def compute_executed_share(engine: Engine, plans: Sequence[Plan]) -> float:
    """FLOPs that the plans come to, as a share of full runs."""
    windows = sum(len(plan.indices) for plan in plans)
    parts = []
    for step in engine.body:
        regions = ((len(plan.indices), plan.regions.get(step.outputs[0])) for plan in plans)
        shares = (n * (prod(region.crop.size) / prod(region.space.size) if region else 1.0) for n, region in regions)
        parts.append(sum(shares) / windows)
    return _weigh_by_flops(engine, parts)


def _weigh_by_flops(engine: Engine, parts: Sequence[float]) -> float:
    """The share of the FLOPs of a full run when so large a part of each step of the body is computed, and the whole
    tail."""
    body = [_count_step_flops(step, engine.shapes) for step in engine.body]
    tail = sum(_count_step_flops(step, engine.shapes) for step in engine.tail)
    total = count_flops(engine)
    return (sum(full * part for full, part in zip(body, parts, strict=True)) + tail) / total if total else 1.0


def estimate_memory(engine: Engine, plans: Iterable[Plan], number_bytes: int) -> int:
    """Bytes of the clean run's vectors and of the fullest moment of any plan, the network's weights left out."""
    plans = list(plans)
    sources = set().union(*(plan.sources for plan in plans))
    clean = sum(_count_clean(engine, value) for value in sources)
    return number_bytes * (clean + max(_find_peak(engine, plan) for plan in plans))


def _find_peak(engine: Engine, plan: Plan) -> int:
    """The most numbers that exist at once while a plan runs.

    Follows `Recomputation.run`: a value's crops are copied after its clean vectors when a step first selects from it.
    """
    freed, most = find_last_uses(engine.body, engine.crossing), 0
    computed = {0: _count_computed(engine, plan, 0)}  # numbers of each value's crops or whole maps
    copied = dict[int, int]()  # numbers of the clean vectors before them
    for i, step in enumerate(engine.body):
        for value in step.inputs:
            if (i, value) in plan.reads and value not in copied:
                twice = _count_computed(engine, plan, value)  # while the crops are copied
                most = max(most, sum(computed.values()) + sum(copied.values()) + twice)
                copied[value] = _count_clean(engine, value)
        read = sum(_count_read(engine, plan, i, value) for value in step.inputs)
        if step.changes is None:
            computed |= {value: _count_computed(engine, plan, value) for value in step.outputs}
        else:
            computed[step.outputs[0]] = computed.pop(step.changes)
        most = max(most, sum(computed.values()) + sum(copied.values()) + read)
        for value in freed.get(i, ()):
            computed.pop(value, None)
            copied.pop(value, None)
    return most


def _count_clean(engine: Engine, value: int) -> int:
    """Numbers in the vectors of a value's clean map and of padding."""
    return (prod(engine.geometry.spaces[value].size) + PADDINGS) * _find_vector_length(engine, value)


def _count_computed(engine: Engine, plan: Plan, value: int) -> int:
    """Numbers that are computed of a value for all windows of a plan."""
    region, windows = plan.regions.get(value), len(plan.indices)
    if region is None:
        return windows * prod(engine.shapes[value] or ())
    return windows * prod(region.crop.size) * _find_vector_length(engine, value)


def _count_read(engine: Engine, plan: Plan, i: int, value: int) -> int:
    """Numbers that step i selects from a value for all windows of a plan."""
    read = plan.reads.get((i, value))
    return 0 if read is None else len(plan.indices) * prod(read.size) * _find_vector_length(engine, value)


def _find_vector_length(engine: Engine, value: int) -> int:
    return prod(engine.shapes[value] or ()) // prod(engine.geometry.spaces[value].size)

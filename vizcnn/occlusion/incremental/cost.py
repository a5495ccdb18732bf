"""Cost: the arithmetic and the memory of a sweep, known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from torch import Tensor

from vizcnn.graph.recording import Shape, Step, find_last_uses
from vizcnn.occlusion.incremental.crops import PADDINGS
from vizcnn.occlusion.incremental.engine import Engine
from vizcnn.occlusion.incremental.plan import Plan
from vizcnn.occlusion.incremental.regions import Region


def flops(step: Step, shapes: Mapping[int, Shape | None]) -> int:
    """Floating-point operations of a step for one image: multiplications and additions of convolutions and products."""
    shape = shapes[step.outputs[0]]
    if step.name == "convolution" and isinstance(step.args["weight"], Tensor) and shape:
        weight = step.args["weight"]
        per_output = weight.numel() // (weight.shape[1] if step.args["transposed"] else weight.shape[0])
        return 2 * prod(shape) * per_output
    if step.name in ("addmm", "mm") and shape:
        weight = step.args["mat2"]
        return 2 * prod(shape) * int(weight.shape[0]) if isinstance(weight, Tensor) else 0
    return 0


def per_image(engine: Engine) -> int:
    """FLOPs of one full run."""
    return sum(flops(step, engine.shapes) for step in (*engine.body, *engine.head))


def ideal_share(engine: Engine, touched: Mapping[int, Region]) -> float:
    """FLOPs for what each window really touches, as a share of full runs."""
    return _share(engine, lambda step: _mean_cover(touched.get(step.outputs[0])))


def _mean_cover(region: Region | None) -> float:
    return 1.0 if region is None else float(region.areas.mean()) / prod(region.space.size)


def executed_share(engine: Engine, plans: Sequence[Plan]) -> float:
    """FLOPs that the plans come to, as a share of full runs."""
    windows = sum(len(plan.chosen) for plan in plans)

    def cover(step: Step) -> float:
        parts = ((plan.regions.get(step.outputs[0]), len(plan.chosen)) for plan in plans)
        return sum(count * _crop_cover(region) for region, count in parts) / windows

    return _share(engine, cover)


def _crop_cover(region: Region | None) -> float:
    return 1.0 if region is None else prod(region.size) / prod(region.space.size)


def _share(engine: Engine, cover: Callable[[Step], float]) -> float:
    work = [(flops(step, engine.shapes), cover(step)) for step in engine.body]
    head = sum(flops(step, engine.shapes) for step in engine.head)
    total = sum(full for full, _ in work) + head
    return (sum(full * part for full, part in work) + head) / total if total else 1.0


def memory(engine: Engine, plans: Iterable[Plan], number_bytes: int) -> int:
    """Bytes of the clean rows and of the largest moment of any plan, the network's weights left out."""
    plans = list(plans)
    selected = set().union(*(plan.selected for plan in plans))
    clean = sum(_places(engine, value) * _per_place(engine, value) for value in selected)
    return number_bytes * (clean + max(_peak(engine, plan) for plan in plans))


def _places(engine: Engine, value: int) -> int:
    return prod(engine.geometry.spaces[value].size) + PADDINGS


def _per_place(engine: Engine, value: int) -> int:
    return prod(engine.shapes[value] or ()) // prod(engine.geometry.spaces[value].size)


def _peak(engine: Engine, plan: Plan) -> int:
    """The most numbers that live at once while a plan runs."""
    freed, live, most = find_last_uses(engine.body, engine.crossing), {0: _numbers(engine, plan, 0)}, 0
    for place, step in enumerate(engine.body):
        for value in step.inputs:
            if (place, value) in plan.reads and -1 - value not in live:
                most = max(most, sum(live.values()) + _numbers(engine, plan, value))  # copied into its rows
                live[-1 - value] = _places(engine, value) * _per_place(engine, value)
        read = sum(_read(engine, plan, place, value) for value in step.inputs)
        if step.changes is None:
            live |= {value: _numbers(engine, plan, value) for value in step.outputs}
        else:
            live[step.outputs[0]] = live.pop(step.changes)
        most = max(most, sum(live.values()) + read)
        for value in freed.get(place, ()):
            live.pop(value, None)
            live.pop(-1 - value, None)
    return most


def _read(engine: Engine, plan: Plan, place: int, value: int) -> int:
    read = plan.reads.get((place, value))
    return 0 if read is None else len(plan.chosen) * prod(read.size) * _per_place(engine, value)


def _numbers(engine: Engine, plan: Plan, value: int) -> int:
    region, count = plan.regions.get(value), len(plan.chosen)
    if region is None:
        return count * prod(engine.shapes[value] or ())
    return count * prod(region.size) * _per_place(engine, value)

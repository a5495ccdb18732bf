"""Plan: which windows are computed together, and what each step then reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vizcnn.graph.geometry import Neighbourhood, Pair
from vizcnn.graph.recording import Step
from vizcnn.occlusion.incremental.crops import Crop, crop_of, read_by, whole
from vizcnn.occlusion.incremental.regions import Region
from vizcnn.occlusion.incremental.space import MapGeometry
from vizcnn.occlusion.windows import Ints

Touched = Mapping[int, Region]


@dataclass(frozen=True)
class Plan:
    """One batch of windows.

    chosen: their places among all windows.
    regions: of the values that are computed in part; the others are computed whole.
    reads: what a step (by its place) selects from the rows of an input; missing where it takes the input as it is.
    paddings: what a sliding step (by its place) pads by itself.
    """

    chosen: Ints
    regions: dict[int, Region]
    reads: dict[tuple[int, int], Crop]
    paddings: dict[int, Pair]

    @property
    def selected(self) -> set[int]:
        """The values whose rows are needed."""
        return {value for _, value in self.reads}


def make_plan(
    steps: Sequence[Step], geometry: MapGeometry, touched: Touched, chosen: Ints, wanted: Sequence[int]
) -> Plan:
    """The plan for some windows. `wanted` are the values that are needed whole in the end."""
    plan = Plan(chosen, _parts(steps, touched, chosen), {}, {})
    for place, (step, kind) in enumerate(zip(steps, geometry.kinds, strict=False)):
        out = plan.regions.get(step.outputs[0])
        for value in {*step.inputs} & plan.regions.keys():
            slides = isinstance(kind, Neighbourhood) and value == step.inputs[0]
            read, padding = read_by(kind if slides else None, out, geometry.spaces[value], len(chosen))
            _note(plan, place, value, read)
            if slides:
                plan.paddings[place] = padding
    for value in {*wanted} & plan.regions.keys():
        _note(plan, len(steps), value, whole(geometry.spaces[value], len(chosen)))
    return plan


def _note(plan: Plan, place: int, value: int, read: Crop) -> None:
    if read != crop_of(plan.regions[value]):
        plan.reads[place, value] = read


def _parts(steps: Sequence[Step], touched: Touched, chosen: Ints) -> dict[int, Region]:
    """The regions of one batch, ended where the whole map is as cheap."""
    parts = {0: touched[0].of(chosen)}
    for step in steps:
        first = step.outputs[0]
        if first in touched and all(value in parts for value in step.inputs):
            part = touched[first].of(chosen)
            if not part.is_whole:
                parts.update((value, part) for value in step.outputs if value in touched)
    return parts


def batches(touched: Touched, size: int) -> list[Ints]:
    """Windows in batches of about `size` whose crops have similar sizes.

    All crops of a batch are as large as the largest, so windows that lie at like distances from the border belong
    together, and windows that lie alike in the steps of strided layers."""
    down, across = (_bands(touched, axis, max(1, round(size**0.5))) for axis in (0, 1))
    cells = down * (across.max() + 1) + across
    order = np.argsort(cells, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(cells[order])) + 1)
    return [part for group in groups for part in np.array_split(group, -(-len(group) // round(1.6 * size)))]


def _bands(touched: Touched, axis: int, width: int) -> Ints:
    """For each window the number of its band: bands hold about `width` places along the axis, of similar cost."""
    start = (touched[0].rows, touched[0].columns)[axis][0]
    places, first, which = np.unique(start, return_index=True, return_inverse=True)
    cost = sum(_share(region, axis)[first] for region in touched.values())
    rank = np.empty(len(places), np.int64)
    rank[np.argsort(cost, kind="stable")] = np.arange(len(places))
    bands = max(1, round(len(places) / width))
    return np.asarray(rank * bands // len(places))[which]


def _share(region: Region, axis: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    low, high = (region.rows, region.columns)[axis]
    return (high - low) / region.space.size[axis]

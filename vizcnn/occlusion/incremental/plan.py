"""Plan: which windows are computed together, and what each step then reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vizcnn.graph.geometry import Neighbourhood, Pair
from vizcnn.graph.recording import Step
from vizcnn.models.scoring import Indices
from vizcnn.occlusion.incremental.crops import plan_read, read_whole_map
from vizcnn.occlusion.incremental.regions import Crop, Region
from vizcnn.occlusion.incremental.space import MapGeometry

Regions = Mapping[int, Region]
"""By value: the region that each window can change."""


@dataclass(frozen=True)
class Plan:
    """How one batch of windows is computed.

    indices: of the batch's windows, among all.
    regions: by value, for those that are computed in part; all others are computed whole.
    reads: by a step's index and an input: the crops that the step selects from that input's vectors. Where there are
        none, the step takes the input as it is.
    paddings: by a step's index: what a sliding step still has to pad by itself.
    """

    indices: Indices
    regions: dict[int, Region]
    reads: dict[tuple[int, int], Crop]
    paddings: dict[int, Pair]

    @property
    def sources(self) -> set[int]:
        """The values that steps select from, whose vectors are needed."""
        return {value for _, value in self.reads}


def make_plan(
    steps: Sequence[Step], geometry: MapGeometry, regions: Regions, indices: Indices, wanted: Sequence[int]
) -> Plan:
    """The plan for some of the windows. `wanted` are the values that are needed whole in the end."""
    plan = Plan(indices, _choose_regions(steps, regions, indices), {}, {})
    for i, (step, kind) in enumerate(zip(steps, geometry.kinds, strict=False)):
        out = plan.regions.get(step.outputs[0])
        for value in {*step.inputs} & plan.regions.keys():
            sliding = kind if isinstance(kind, Neighbourhood) and value == step.inputs[0] else None
            read, padding = plan_read(sliding, out, geometry.spaces[value], len(indices))
            _add_read(plan, i, value, read)
            if sliding:
                plan.paddings[i] = padding
    for value in {*wanted} & plan.regions.keys():
        _add_read(plan, len(steps), value, read_whole_map(geometry.spaces[value], len(indices)))
    return plan


def _add_read(plan: Plan, i: int, value: int, read: Crop) -> None:
    """Add what step i reads of a value, unless that is just what is computed of it."""
    if read != plan.regions[value].crop:
        plan.reads[i, value] = read


def _choose_regions(steps: Sequence[Step], regions: Regions, indices: Indices) -> dict[int, Region]:
    """The regions of a batch, for the values of which computing a part is cheaper than the whole map.

    Whatever is computed from a whole map is computed whole too."""
    chosen = {0: regions[0].select(indices)}
    for step in steps:
        first = step.outputs[0]
        if first in regions and all(value in chosen for value in step.inputs):
            region = regions[first].select(indices)
            if not region.is_whole:
                chosen.update((value, region) for value in step.outputs if value in regions)
    return chosen


def group_windows(regions: Regions, size: int) -> list[Indices]:
    """The indices of all windows, in batches of about `size` whose crops have similar sizes.

    All crops of a batch are as large as its largest. Windows have crops of similar sizes if they lie at similar
    distances from the border, and similarly between the places where strided layers read."""
    down, across = (_assign_bands(regions, axis, max(1, round(size**0.5))) for axis in (0, 1))
    cells = down * (across.max() + 1) + across
    order = np.argsort(cells, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(cells[order])) + 1)
    return [batch for group in groups for batch in np.array_split(group, -(-len(group) // round(1.6 * size)))]


def _assign_bands(regions: Regions, axis: int, width: int) -> Indices:
    """For each window its band: about `width` of the grid's rows (axis 0) or columns (1), of similar cost."""
    low, _ = (regions[0].rows, regions[0].columns)[axis]
    starts, first, which = np.unique(low, return_index=True, return_inverse=True)
    cost = np.zeros(len(starts))  # of a window of each row: the share of a map's length that it can change, summed
    for region in regions.values():
        low, high = (region.rows, region.columns)[axis]
        cost += ((high - low) / region.space.size[axis])[first]
    rank = np.empty(len(starts), np.int64)
    rank[np.argsort(cost, kind="stable")] = np.arange(len(starts))
    bands = max(1, round(len(starts) / width))
    return np.asarray(rank * bands // len(starts))[which]

"""The engine: what a network says of an image under every window, by recomputing only what the window can change.

The clean image runs once. Then each step of the graph computes, for a batch of windows, only the crops that they can
change, and reads everything around these from the clean run. The result is that of full runs, but for rounding.

The idea: Nakandala et al. 2019, "Incremental and Approximate Inference for Faster Occlusion-based Deep CNN
Explanations" (Krypton), SIGMOD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vizcnn.graph.geometry import Neighbourhood
from vizcnn.graph.recording import Graph, Ref, Step, find_last_uses, find_refs
from vizcnn.models.scoring import Indices
from vizcnn.occlusion.incremental.crops import (
    LOWEST,
    PADDINGS,
    ZEROS,
    find_indices,
    from_vectors,
    mark_windows,
    to_vectors,
)
from vizcnn.occlusion.incremental.plan import Plan, make_plan
from vizcnn.occlusion.incremental.regions import Region, find_regions
from vizcnn.occlusion.incremental.space import Kind, Local, Space, follow_maps, resize
from vizcnn.occlusion.kernels.fused import fuse
from vizcnn.occlusion.windows import Windows

Values = dict[int, Tensor]

_MATRIX_PRODUCTS = ("addmm", "mm", "bmm", "baddbmm")


class Engine:
    """A network's graph, made ready to run under windows.

    The steps are cut in two: the body recomputes crops; the tail, after the last map, has only whole values. What
    crosses from one to the other is `crossing`. The engine shares the network's weights and keeps nothing of an image.
    """

    def __init__(self, graph: Graph) -> None:
        self.recorded = graph  # as the network runs it
        graph = fuse(graph)
        self.geometry = follow_maps(graph)
        self.shapes, self.wanted = graph.shapes, graph.wanted
        cut = _find_end_of_body(graph, self.geometry.spaces)
        self.body, self.tail = graph.steps[:cut], graph.steps[cut:]
        self.crossing = _find_crossing(graph, cut)
        self.schedule = _schedule(self.body, self.crossing)
        self.joins = {i for i, step in enumerate(self.body) if _joins_channels(step, self)}

    def find_regions(self, windows: Windows) -> dict[int, Region]:
        """For each value that keeps the image's rows and columns: the region that each window can change."""
        return find_regions(self.body, self.geometry, windows)

    def plan(self, regions: Mapping[int, Region], indices: Indices) -> Plan:
        """How to compute some of the windows together, given the regions of all."""
        return make_plan(self.body, self.geometry, regions, indices, self.crossing)

    def run_tail(self, crossing: Values) -> dict[str, Any]:
        """The wanted activations, from what the body gave for any number of windows."""
        values, images = dict(crossing), len(next(iter(crossing.values())))
        for step, freed in _schedule(self.tail, find_refs(self.wanted)):
            values |= _run(step, step.fill_in(values.__getitem__, images))
            _free(values, freed)
        return {layer: tree_map_only(Ref, lambda ref: values[ref.value], tree) for layer, tree in self.wanted.items()}


class Recomputation:
    """One image after its clean run, from whose values plans select."""

    def __init__(self, engine: Engine, image: Tensor, baseline: Tensor, needed: Iterable[int]) -> None:
        """image, baseline: (C, H, W); a window shows the baseline instead of the image. needed: the values that plans
        select from."""
        self.engine, self.device = engine, image.device
        space = engine.geometry.spaces[0]
        self.image, self.baseline = (to_vectors(each[None], space) for each in (image, baseline))
        self.clean = dict[int, Tensor]()
        self._run_clean(image, {*needed})

    def _run_clean(self, image: Tensor, needed: set[int]) -> None:
        values = {0: image[None].contiguous(memory_format=torch.channels_last)}
        self._keep(values, needed)
        for step, freed in _schedule(self.engine.body, ()):
            outputs = _run(step, step.fill_in(values.__getitem__, 1))
            self._keep(outputs, needed)
            values |= outputs
            _free(values, freed)

    def _keep(self, values: Values, needed: set[int]) -> None:
        """Keep the vectors of what plans select from."""
        for value, tensor in values.items():
            if value in needed:
                vectors = to_vectors(tensor, self.engine.geometry.spaces[value])
                paddings = vectors.new_empty(PADDINGS, vectors.shape[1])
                paddings[ZEROS], paddings[LOWEST] = 0, -torch.inf if vectors.is_floating_point() else 0
                self.clean[value] = torch.cat([vectors, paddings])

    def run(self, plan: Plan) -> Values:
        """The values that cross from the body to the tail, whole, for the windows of a plan."""
        engine, vectors = self.engine, dict[int, Tensor]()
        values = {0: self._cover_windows(plan.regions[0])}
        for i, (step, freed) in enumerate(engine.schedule):
            values |= self._run_step(plan, i, step, values, vectors)
            _free(values, freed)
            _free(vectors, freed)
        read = self._make_reader(plan, len(engine.body), None, values, vectors)
        return {value: read(value) for value in engine.crossing}

    # Below, `values` holds what steps have computed of each value, crops or whole maps, and `vectors` what may be
    # selected from, made when a step first does: clean places, paddings and crops, see `crops`.

    def _run_step(self, plan: Plan, i: int, step: Step, values: Values, vectors: Values) -> Values:
        """The outputs of step i. A method of its own, so that what the step has selected is freed when it returns."""
        if i in self.engine.joins and any((i, value) in plan.reads for value in step.inputs):
            return {step.outputs[0]: self._join(plan, i, step, values, vectors)}
        args = step.fill_in(self._make_reader(plan, i, step, values, vectors), len(plan.indices))
        out = plan.regions.get(step.outputs[0])
        return _run(step, _fit_arguments(step, self.engine.geometry.kinds[i], args, plan.paddings.get(i), out))

    def _make_reader(
        self, plan: Plan, i: int, step: Step | None, values: Values, vectors: Values
    ) -> Callable[[int], Tensor]:
        """What gives step i its inputs: a value as it is, or the selection of its vectors that the plan says."""
        kind = self.engine.geometry.kinds[i] if step else None

        def read(value: int) -> Tensor:
            if (i, value) in plan.reads:
                return self._select(plan, i, value, values, vectors, kind)
            return values[value]

        return read

    def _select(self, plan: Plan, i: int, value: int, values: Values, vectors: Values, kind: Kind) -> Tensor:
        """What step i, of this kind, reads of a value: crops that may reach into the clean map and beyond it."""
        space, read = self.engine.geometry.spaces[value], plan.reads[i, value]
        padding = LOWEST if isinstance(kind, Neighbourhood) and kind.beyond < 0 else ZEROS
        indices = find_indices(space, plan.regions[value].crop, read, padding).to(self.device)
        selected = self._collect_vectors(plan, value, values, vectors).index_select(0, indices)
        return from_vectors(selected, space, read.size, self._list_other_axes(value))

    def _collect_vectors(self, plan: Plan, value: int, values: Values, vectors: Values) -> Tensor:
        """The vectors of a value: clean places, paddings, and the batch's crops."""
        if value not in vectors:
            clean, space = self.clean[value], self.engine.geometry.spaces[value]
            vectors[value] = torch.cat([clean, to_vectors(values[value], space)])
            crops, size = vectors[value][len(clean) :], plan.regions[value].crop.size
            values[value] = from_vectors(crops, space, size, self._list_other_axes(value))  # not twice in memory
        return vectors[value]

    def _list_other_axes(self, value: int) -> tuple[int, ...]:
        """The lengths of a value's axes that are neither the batch nor rows and columns."""
        shape, axes = self.engine.shapes[value], self.engine.geometry.spaces[value].axes
        assert shape is not None  # true of every value that has a space
        return tuple(length for axis, length in enumerate(shape, 1) if axis not in axes)

    def _join(self, plan: Plan, i: int, step: Step, values: Values, vectors: Values) -> Tensor:
        """Maps joined along their channels: each is selected straight into its channels of the output."""
        space, region = self.engine.geometry.spaces[step.outputs[0]], plan.regions.get(step.outputs[0])
        size = region.crop.size if region else space.size
        channels = [self._list_other_axes(value)[0] for value in step.inputs]
        first = values[step.inputs[0]]
        out = first.new_empty(len(plan.indices) * size[0] * size[1], sum(channels))  # (B h w, C)
        for value, part in zip(step.inputs, out.split(channels, 1), strict=True):
            if (i, value) in plan.reads:
                indices = find_indices(space, plan.regions[value].crop, plan.reads[i, value], ZEROS)
                source = self._collect_vectors(plan, value, values, vectors)
                torch.index_select(source, 0, indices.to(self.device), out=part)
            else:
                part.copy_(to_vectors(values[value], space))
        return from_vectors(out, space, size, (out.shape[1],))

    def _cover_windows(self, region: Region) -> Tensor:
        """The crops of the image that hold the windows, covered there: (B, C, h, w), channels last."""
        space, crop = region.space, region.crop
        indices = find_indices(space, None, crop, ZEROS).to(self.device)
        covered = mark_windows(crop, region).reshape(-1, 1).to(self.device)
        shown = torch.where(covered, self.baseline.index_select(0, indices), self.image.index_select(0, indices))
        return from_vectors(shown, space, crop.size, (self.image.shape[1],))


def _joins_channels(step: Step, engine: Engine) -> bool:
    """Whether a step joins maps (B, C, H, W) along their channels, and nothing else."""
    if step.name != "cat" or step.args["dim"] not in (1, -3) or len(step.args["tensors"]) != len(step.inputs):
        return False
    spaces, shapes = engine.geometry.spaces, [engine.shapes[value] or () for value in step.inputs]
    images = all(value in spaces and spaces[value].axes == (2, 3) for value in step.inputs)
    return images and all(len(shape) == 3 for shape in shapes)


def _find_end_of_body(graph: Graph, spaces: Mapping[int, Space]) -> int:
    """The index of the tail's first step: the first matrix product after the last map.

    Its large weights are then read once for many windows. There is no tail where maps themselves are wanted."""
    last = max((i for i, step in enumerate(graph.steps) if {*step.inputs, *step.outputs} & spaces.keys()), default=-1)
    after = (i for i, step in enumerate(graph.steps) if i > last and step.name in _MATRIX_PRODUCTS)
    cut = next(after, len(graph.steps))
    has_tail = all(value not in spaces and graph.shapes[value] is not None for value in _find_crossing(graph, cut))
    return cut if has_tail else len(graph.steps)


def _find_crossing(graph: Graph, cut: int) -> tuple[int, ...]:
    """The values from before the cut that are needed after it."""
    before = {0, *(value for step in graph.steps[:cut] for value in step.outputs)}
    needed = {*find_refs(graph.wanted), *(value for step in graph.steps[cut:] for value in step.inputs)}
    return tuple(sorted(before & needed))


def _schedule(steps: Sequence[Step], kept: Iterable[int]) -> list[tuple[Step, list[int]]]:
    """Each step with the values that can be freed after it; the `kept` ones never are."""
    freed = find_last_uses(steps, kept)
    return [(step, freed.get(i, [])) for i, step in enumerate(steps)]


def _free(values: Values, freed: Iterable[int]) -> None:
    for value in freed:
        values.pop(value, None)


def _fit_arguments(
    step: Step, kind: Kind, args: dict[str, Any], padding: tuple[int, int] | None, out: Region | None
) -> dict[str, Any]:
    """The arguments that suit what was read: the padding that is left to do, the size of crops in a view."""
    if isinstance(kind, Neighbourhood) and padding is not None:
        return {**args, "padding": list(padding)}
    if isinstance(kind, Local) and out is not None:
        return resize(step, args, out.crop.size)
    return args


def _run(step: Step, args: dict[str, Any]) -> Values:
    """A step's outputs, by value. A view of a crop may need a copy, which only `reshape` makes."""
    func = torch.ops.aten.reshape.default if step.name in ("view", "_unsafe_view") else step.func
    out = func(**args) if func is step.func else func(args["self"], args["size"])
    return dict(zip(step.outputs, [out] if isinstance(out, Tensor) else out, strict=True))

"""The engine: what a network says of an image under every window, by recomputing only what the window can touch.

The clean image runs once. Then each step of the graph computes, for a batch of windows, only the crops that they can
touch and reads everything around from the clean run. The result is that of full runs, but for rounding.

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
from vizcnn.graph.recording import Graph, Ref, Shape, Step, find_last_uses, find_refs
from vizcnn.occlusion.incremental.crops import LOWEST, PADDINGS, ZEROS, as_rows, crop_of, from_rows, inside, row_numbers
from vizcnn.occlusion.incremental.plan import Plan, make_plan
from vizcnn.occlusion.incremental.regions import Region, find_regions
from vizcnn.occlusion.incremental.space import Kind, Local, Space, follow_maps, resized
from vizcnn.occlusion.kernels.fused import fuse
from vizcnn.occlusion.windows import Windows

Values = dict[int, Tensor]

_MATRIX_PRODUCTS = ("addmm", "mm", "bmm", "baddbmm")


class Engine:
    """A network's graph, made ready to run under windows.

    It shares the network's weights and keeps nothing of an image."""

    def __init__(self, graph: Graph) -> None:
        graph = fuse(graph)
        self.geometry = follow_maps(graph)
        self.shapes, self.wanted = graph.shapes, graph.wanted
        cut = _end_of_body(graph, self.geometry.spaces)
        self.body, self.head = graph.steps[:cut], graph.steps[cut:]
        self.crossing = _crossing(graph, cut)
        self.course = _with_freed(self.body, self.crossing)
        self.joins = {place for place, step in enumerate(self.body) if _joins_channels(step, self)}

    def find_regions(self, windows: Windows) -> dict[int, Region]:
        """What the windows touch of every value."""
        return find_regions(self.body, self.geometry, windows)

    def plan(self, touched: Mapping[int, Region], chosen: Any) -> Plan:
        return make_plan(self.body, self.geometry, touched, chosen, self.crossing)

    def run_head(self, crossing: Values) -> dict[str, Any]:
        """Run the head: the wanted activations from what the body left, for any number of windows together."""
        values, images = dict(crossing), len(next(iter(crossing.values())))
        for step, freed in _with_freed(self.head, find_refs(self.wanted)):
            values |= _outputs(step, step.fill_in(values.__getitem__, images))
            _free(values, freed)
        return {layer: tree_map_only(Ref, lambda ref: values[ref.value], tree) for layer, tree in self.wanted.items()}


class Prepared:
    """One image after its clean run: the rows that plans select from."""

    def __init__(self, engine: Engine, image: Tensor, cover: Tensor, needed: Iterable[int]) -> None:
        """image, cover: (C, H, W); a window shows the cover instead of the image."""
        self.engine, self.device = engine, image.device
        self.image, self.cover = (as_rows(each[None], engine.geometry.spaces[0]) for each in (image, cover))
        self.clean, self.crossing = dict[int, Tensor](), dict[int, Tensor]()
        self._run_clean(image, {*needed})

    def _run_clean(self, image: Tensor, needed: set[int]) -> None:
        """Keep the rows of the clean image, and of padding, for the values that plans select from, and what crosses."""
        values = {0: image[None].contiguous(memory_format=torch.channels_last)}
        self._keep(values, needed)
        for step, freed in _with_freed(self.engine.body, ()):
            made = _outputs(step, step.fill_in(values.__getitem__, 1))
            self._keep(made, needed)
            values |= made
            _free(values, freed)

    def _keep(self, values: Values, needed: set[int]) -> None:
        for number, value in values.items():
            if number in needed:
                self.clean[number] = self._padded(value, number)
            if number in self.engine.crossing:
                self.crossing[number] = value.clone()

    def _padded(self, value: Tensor, number: int) -> Tensor:
        rows = as_rows(value, self.engine.geometry.spaces[number])
        paddings = rows.new_empty(PADDINGS, rows.shape[1])
        paddings[ZEROS], paddings[LOWEST] = 0, -torch.inf if rows.is_floating_point() else 0
        return torch.cat([rows, paddings])

    def run(self, plan: Plan) -> Values:
        """The values that cross from the body to the head, whole, for the windows of a plan."""
        engine, rows = self.engine, dict[int, Tensor]()
        values = {0: self._cover(plan.regions[0])}
        for place, (step, freed) in enumerate(engine.course):
            values |= self._run_step(plan, place, step, values, rows)
            _free(values, freed)
            _free(rows, freed)
        read = self._reader(plan, len(engine.body), None, values, rows)
        return {value: read(value) for value in engine.crossing}

    def _run_step(self, plan: Plan, place: int, step: Step, values: Values, rows: Values) -> Values:
        """One step's outputs. What it selected is gone when it returns."""
        if place in self.engine.joins and any((place, value) in plan.reads for value in step.inputs):
            return {step.outputs[0]: self._join(plan, place, step, values, rows)}
        args = step.fill_in(self._reader(plan, place, step, values, rows), len(plan.chosen))
        out = plan.regions.get(step.outputs[0])
        args = _fit(step, self.engine.geometry.kinds[place], args, plan.paddings.get(place), out)
        return _outputs(step, args)

    def _reader(
        self, plan: Plan, place: int, step: Step | None, values: Values, rows: Values
    ) -> Callable[[int], Tensor]:
        """What a step gets for an input: the value itself, or the selection of its rows that the plan says."""
        kind = self.engine.geometry.kinds[place] if step else None

        def read(value: int) -> Tensor:
            if (place, value) in plan.reads:
                return self._select(plan, place, value, values, rows, kind)
            return values[value]

        return read

    def _select(self, plan: Plan, place: int, value: int, values: Values, rows: Values, kind: Kind) -> Tensor:
        space, read = self.engine.geometry.spaces[value], plan.reads[place, value]
        padding = LOWEST if isinstance(kind, Neighbourhood) and kind.beyond < 0 else ZEROS
        numbers = row_numbers(space, crop_of(plan.regions[value]), read, padding).to(self.device)
        chosen = self._rows(plan, value, values, rows).index_select(0, numbers)
        return from_rows(chosen, space, read.size, self._rest(value))

    def _rows(self, plan: Plan, value: int, values: Values, rows: Values) -> Tensor:
        """The rows of a value: clean places, paddings, and the batch's crops."""
        if value not in rows:
            clean, space = self.clean[value], self.engine.geometry.spaces[value]
            rows[value] = torch.cat([clean, as_rows(values[value], space)])
            crops = rows[value][len(clean) :]
            values[value] = from_rows(crops, space, plan.regions[value].size, self._rest(value))  # not twice in memory
        return rows[value]

    def _rest(self, value: int) -> tuple[int, ...]:
        return _other_axes(self.engine.shapes[value], self.engine.geometry.spaces[value])

    def _join(self, plan: Plan, place: int, step: Step, values: Values, rows: Values) -> Tensor:
        """Maps joined along their channels: each is selected straight into its channels of the outcome."""
        space, region = self.engine.geometry.spaces[step.outputs[0]], plan.regions.get(step.outputs[0])
        size, channels = region.size if region else space.size, [self._rest(value)[0] for value in step.inputs]
        first = values[step.inputs[0]]
        out = first.new_empty(len(plan.chosen) * size[0] * size[1], sum(channels))
        for value, part in zip(step.inputs, out.split(channels, 1), strict=True):
            if (place, value) in plan.reads:
                numbers = row_numbers(space, crop_of(plan.regions[value]), plan.reads[place, value], ZEROS)
                source = self._rows(plan, value, values, rows)
                torch.index_select(source, 0, numbers.to(self.device), out=part)
            else:
                part.copy_(as_rows(values[value], space))
        return from_rows(out, space, size, (out.shape[1],))

    def _cover(self, region: Region) -> Tensor:
        """The part of the image that holds each window, covered there: (B, C, h, w), channels last."""
        crop, space = crop_of(region), region.space
        numbers = row_numbers(space, None, crop, ZEROS).to(self.device)
        covered = inside(crop, region).reshape(-1, 1).to(self.device)
        chosen = torch.where(covered, self.cover.index_select(0, numbers), self.image.index_select(0, numbers))
        return from_rows(chosen, space, crop.size, (self.image.shape[1],))


def _joins_channels(step: Step, engine: Engine) -> bool:
    """Whether a step joins maps (B, C, H, W) of one type along their channels, and nothing else."""
    if step.name != "cat" or step.args["dim"] not in (1, -3) or len(step.args["tensors"]) != len(step.inputs):
        return False
    spaces, shapes = engine.geometry.spaces, [engine.shapes[value] or () for value in step.inputs]
    images = all(value in spaces and spaces[value].axes == (2, 3) for value in step.inputs)
    return images and all(len(shape) == 3 for shape in shapes)


def _end_of_body(graph: Graph, spaces: Mapping[int, Space]) -> int:
    """The head begins with the first matrix product behind the last map: its weights are read once for many windows.

    There is none where maps themselves are wanted."""
    last = max((i for i, step in enumerate(graph.steps) if {*step.inputs, *step.outputs} & spaces.keys()), default=-1)
    behind = (i for i, step in enumerate(graph.steps) if i > last and step.name in _MATRIX_PRODUCTS)
    cut = next(behind, len(graph.steps))
    plain = all(value not in spaces and graph.shapes[value] is not None for value in _crossing(graph, cut))
    return cut if plain else len(graph.steps)


def _crossing(graph: Graph, cut: int) -> tuple[int, ...]:
    """The values from before the cut that are needed behind it."""
    made = {0, *(value for step in graph.steps[:cut] for value in step.outputs)}
    used = {*find_refs(graph.wanted), *(value for step in graph.steps[cut:] for value in step.inputs)}
    return tuple(sorted(made & used))


def _with_freed(steps: Sequence[Step], kept: Iterable[int]) -> list[tuple[Step, list[int]]]:
    freed = find_last_uses(steps, kept)
    return [(step, freed.get(place, [])) for place, step in enumerate(steps)]


def _free(values: Values, freed: Iterable[int]) -> None:
    for value in freed:
        values.pop(value, None)


def _fit(
    step: Step, kind: Kind, args: dict[str, Any], padding: tuple[int, int] | None, out: Region | None
) -> dict[str, Any]:
    """The arguments for what was read: the padding that is left to do, the sizes of crops in a view."""
    if isinstance(kind, Neighbourhood) and padding is not None:
        return {**args, "padding": list(padding)}
    if isinstance(kind, Local) and out is not None:
        return resized(step, args, out.size)
    return args


def _outputs(step: Step, args: dict[str, Any]) -> Values:
    func = torch.ops.aten.reshape.default if step.name in ("view", "_unsafe_view") else step.func
    out = func(**args) if func is step.func else func(args["self"], args["size"])
    return dict(zip(step.outputs, [out] if isinstance(out, Tensor) else out, strict=True))


def _other_axes(shape: Shape | None, space: Space) -> tuple[int, ...]:
    assert shape is not None
    return tuple(length for axis, length in enumerate(shape, 1) if axis not in space.axes)

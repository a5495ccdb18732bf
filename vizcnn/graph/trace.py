"""Trace: a recorded graph as one looks back through it, from a value to what made it and to the layers' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vizcnn.graph.geometry import VIEWS, find_reduced_axes
from vizcnn.graph.recording import Graph, Ref, Shape, Step, drop_unused, find_refs, record
from vizcnn.models.layers.axes import Axes, find_layers
from vizcnn.models.layers.dryrun import to_pair
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT

SAME = ("alias", "clone", "detach", "_to_copy", "lift_fresh")
"""Operations that give the same numbers in the same shape."""

PRODUCTS = ("addmm", "mm")
"""Dense layers."""


class NotFollowed(Exception):  # noqa: N818 - no failure: the links of one site are left out
    """What leads into a site is not a sum of weights times what other sites give. The text says why."""


@dataclass(frozen=True)
class Trace:
    """A graph that leads from the image to the output, and which layers its values are the outputs of.

    names: by value, the layers that give it, the innermost first; of a layer that runs several times, its last run.
    axes, shapes: by layer: the axes of its output, and its shape for one image in the usual form.
    """

    graph: Graph
    names: Mapping[int, tuple[str, ...]]
    axes: Mapping[str, Axes]
    shapes: Mapping[str, Shape]

    @cached_property
    def producers(self) -> dict[int, Step]:
        """By value, the step that gives it; the image has none."""
        return {value: step for step in self.graph.steps for value in step.outputs}

    @cached_property
    def uses(self) -> Counter[int]:
        """By value, how many steps read it."""
        return Counter(value for step in self.graph.steps for value in {*step.inputs})

    @property
    def output(self) -> int:
        """The number of the output's value."""
        return find_refs(self.graph.wanted[OUTPUT])[0]

    def shape(self, value: int) -> Shape:
        """The shape of a value for one image. Raises NotFollowed where its first axis is not the images."""
        shape = self.graph.shapes[value]
        if shape is None:
            raise NotFollowed("places of all images lie in one row")
        return shape


def trace(model: Model, size: tuple[int, int]) -> Trace:
    """The trace of a network for images of height and width `size`. Raises Untraceable."""
    layers = find_layers(model, model.grey(size))
    axes = {name: layer.axes for name, layer in layers.items() if layer.axes.places in (0, 2)}
    graph = record(model, size, [*axes, OUTPUT])
    copies = {step.outputs[0]: step.inputs[0] for step in graph.steps if step.name == "clone"}
    moves = {step.outputs[0]: step.inputs[0] for step in graph.steps if step.name == "permute"}
    names: dict[int, list[str]] = {}
    shapes: dict[str, Shape] = {}
    for name in axes:
        ref = graph.wanted[name]
        if not isinstance(ref, Ref) or ref.value not in copies:  # the layer gives the same for all images
            continue
        value = copies[ref.value]  # `record` reads a copy, with its axes in the usual order
        names.setdefault(moves.get(value, value) if axes[name].is_moved else value, []).append(name)
        shapes[name] = graph.shapes[ref.value] or ()
    whole = drop_unused(Graph(graph.steps, graph.shapes, {OUTPUT: graph.wanted[OUTPUT]}))
    return Trace(whole, {value: tuple(each) for value, each in names.items()}, axes, shapes)


def describe_between(trace: Trace, step: Step) -> str | None:
    """In words, an operation that works on each channel alone and may stand between a site and the weights that read
    it; "" where it changes nothing, None for any other operation."""
    name, args = step.name, step.args
    if name in SAME:
        return ""
    if name in VIEWS or name in ("squeeze", "unsqueeze"):
        return "" if keeps_channels(trace, step) else None
    if name == "max_pool2d_with_indices":
        return f"max pooling of {_describe_window(args)}"
    if name == "avg_pool2d":
        return f"mean pooling of {_describe_window(args)}"
    if name in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
        kind = "maximum" if "max" in name else "mean"
        return f"{kind} over parts, {args['output_size'][0]} x {args['output_size'][-1]}"
    if name in ("mean", "amax"):
        shape = trace.graph.shapes[step.inputs[0]]
        over_places = shape and {*find_reduced_axes(args, len(shape) + 1)} == {2, 3}
        return f"{'mean' if name == 'mean' else 'maximum'} over all places" if over_places else None
    if name == "constant_pad_nd":
        return "padding" if len(args["pad"]) <= 4 else None
    return None


def keeps_channels(trace: Trace, step: Step) -> bool:
    """Whether a view leaves each channel with its places, also where it drops or adds axes of one place."""
    before, after = (trace.graph.shapes[value] for value in (step.inputs[0], step.outputs[0]))
    if not before or not after:
        return False
    places = ([side for side in shape[1:] if side > 1] for shape in (before, after))
    return before[0] == after[0] and next(places) == next(places)


def _describe_window(args: Mapping[str, object]) -> str:
    kernel = to_pair(args["kernel_size"])  # type: ignore[arg-type]
    stride = to_pair(args["stride"] or kernel)  # type: ignore[arg-type]
    every = f"{stride[0]}" if stride[0] == stride[1] else f"{stride[0]} and {stride[1]}"
    return f"{kernel[0]} x {kernel[1]}, every {every}"


def is_constant(argument: object) -> bool:
    """Whether an argument is the same for all images."""
    return isinstance(argument, Tensor | int | float)

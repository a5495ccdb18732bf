"""Space: which axes of a value are the image's rows and columns, and how a step carries them on.

A step is *sliding* (a convolution or pooling: outputs read a window of inputs), *local* (an output reads its inputs at
its own place only), or neither; then it runs on whole maps, which is exact for any operation and saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vizcnn.graph.geometry import (
    BATCH_NORMS,
    VIEWS,
    Neighbourhood,
    Pair,
    find_neighbourhood,
    find_normalized_axes,
    find_reduced_axes,
    has_neighbourhood,
)
from vizcnn.graph.recording import Graph, PerImage, Shape, Step
from vizcnn.models.layers.dryrun import is_elementwise


@dataclass(frozen=True)
class Space:
    """Where a value (B, ...) has rows and columns: the axes, and how many rows and columns there are."""

    axes: Pair
    size: Pair


@dataclass(frozen=True)
class Local:
    """Outputs read their inputs at the same place."""


Kind = Neighbourhood | Local | None
"""How a step treats space; None when it mixes all places, or in a way that has no rule here."""


@dataclass(frozen=True)
class MapGeometry:
    """For each value its space, where it has one, and for each step how it treats space."""

    spaces: dict[int, Space]
    kinds: tuple[Kind, ...]


def follow_maps(graph: Graph) -> MapGeometry:
    """Follow rows and columns from the image (B, C, H, W) through the graph."""
    shape = graph.shapes[0]
    assert shape is not None
    spaces = {0: Space((2, 3), (shape[1], shape[2]))}
    kinds = [_follow(step, graph.shapes, spaces) for step in graph.steps]
    return MapGeometry(spaces, tuple(kinds))


def _follow(step: Step, shapes: dict[int, Shape | None], spaces: dict[int, Space]) -> Kind:
    """Note the spaces of a step's outputs and return its kind."""
    output = shapes[step.outputs[0]]
    if any(shapes[value] is None for value in step.inputs) or output is None:
        return None
    kind, axes = _kind_and_axes(step, shapes, spaces)
    if axes is not None:
        for value in step.outputs:
            if shape := shapes[value]:
                spaces[value] = Space(axes, (shape[axes[0] - 1], shape[axes[1] - 1]))
    return kind


def _kind_and_axes(step: Step, shapes: dict[int, Shape | None], spaces: dict[int, Space]) -> tuple[Kind, Pair | None]:
    if not all(value in spaces for value in step.inputs):
        return None, None
    if has_neighbourhood(step.name):
        image_like = all(spaces[value].axes == (2, 3) for value in step.inputs)
        return (_sliding(step), (2, 3)) if image_like else (None, None)
    axes = _local_axes(step, shapes, spaces)
    return (None, None) if axes is None else (Local(), axes)


def _sliding(step: Step) -> Neighbourhood | None:
    """What the outputs of a sliding step read; None where they are not the same function of it wherever they lie."""
    reads, args = find_neighbourhood(step.name, step.args), step.args
    if reads is None or reads.transposed:
        return None
    if step.name == "avg_pool2d" and (
        args["ceil_mode"] or (any(reads.padding) and not (args["count_include_pad"] or args["divisor_override"]))
    ):
        return None  # means at the border have divisors of their own
    return reads


def _local_axes(step: Step, shapes: dict[int, Shape | None], spaces: dict[int, Space]) -> Pair | None:
    """The axes of a local step's outputs; None when the step is not local."""
    first = spaces[step.inputs[0]]
    if any(spaces[value] != first for value in step.inputs):
        return None
    dims = {len(shapes[value] or ()) for value in step.inputs}
    if rule := _LOCAL.get(step.name):
        return rule(step, first, len(shapes[step.inputs[0]] or ()) + 1)
    follows = is_elementwise(step.func) and len(dims) == 1 and _spreads(step, first, dims.pop() + 1)
    return first.axes if follows else None


def _spreads(step: Step, space: Space, dim: int) -> bool:
    """Whether every constant is the same at all places."""
    constants = [value for value in step.args.values() if isinstance(value, Tensor)]
    return all(_length(value, axis - dim) == 1 for value in constants for axis in space.axes)


def _length(tensor: Tensor, axis: int) -> int:
    return tensor.shape[axis] if tensor.dim() >= -axis else 1


def _along_axis(step: Step, space: Space, dim: int) -> Pair | None:
    """Parts are joined or cut along an axis that is not of space."""
    axis = step.args["dim"] % dim
    constant = any(isinstance(part, Tensor) for part in step.args.get("tensors", ()))
    return None if constant or axis in (0, *space.axes) else space.axes


def _selected(step: Step, space: Space, dim: int) -> Pair | None:
    axis = step.args["dim"] % dim
    return None if axis in (0, *space.axes) else _moved(space, [d for d in range(dim) if d != axis])


def _unsqueezed(step: Step, space: Space, dim: int) -> Pair | None:
    axis = step.args["dim"] % (dim + 1)
    return None if axis == 0 else (space.axes[0] + (space.axes[0] >= axis), space.axes[1] + (space.axes[1] >= axis))


def _reduced(step: Step, space: Space, dim: int) -> Pair | None:
    """A mean or maximum over channels."""
    axes = {*find_reduced_axes(step.args, dim)}
    if axes & {0, *space.axes}:
        return None
    return space.axes if step.args["keepdim"] else _moved(space, [d for d in range(dim) if d not in axes])


def _permuted(step: Step, space: Space, dim: int) -> Pair | None:
    order = [d % dim for d in step.args["dims"]]
    return _moved(space, order) if order[0] == 0 else None


def _transposed(step: Step, space: Space, dim: int) -> Pair | None:
    a, b = step.args["dim0"] % dim, step.args["dim1"] % dim
    order = list(range(dim))
    order[a], order[b] = b, a
    return _moved(space, order) if order[0] == 0 else None


def _moved(space: Space, order: list[int]) -> Pair:
    """Where the axes are when the old ones come in this order."""
    return order.index(space.axes[0]), order.index(space.axes[1])


def _viewed(step: Step, space: Space, dim: int) -> Pair | None:
    """Channels are grouped or ungrouped; rows and columns stay last."""
    size = step.args["size"]
    batch_and_place = len(size) > 2 and isinstance(size[0], PerImage) and size[0].each == 1
    if space.axes == (dim - 2, dim - 1) and batch_and_place and tuple(size[-2:]) == space.size:
        return len(size) - 2, len(size) - 1
    return None


def _layer_norm(step: Step, space: Space, dim: int) -> Pair | None:
    return None if {*space.axes} & {*find_normalized_axes(step.args, dim)} else space.axes


def _batch_norm(step: Step, space: Space, dim: int) -> Pair | None:
    return None if step.args.get("training") or 1 in space.axes or dim < 3 else space.axes


_LOCAL: dict[str, Callable[[Step, Space, int], Pair | None]] = {
    **dict.fromkeys(("cat", "split", "split_with_sizes", "slice", "_softmax"), _along_axis),
    **dict.fromkeys(("select", "unbind"), _selected),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    **dict.fromkeys(VIEWS, _viewed),
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
    "native_layer_norm": _layer_norm,
    "permute": _permuted,
    "transpose": _transposed,
    "unsqueeze": _unsqueezed,
}
"""By the operation's name; beside these, what works element by element is local."""


def resized(step: Step, args: dict[str, Any], size: Pair) -> dict[str, Any]:
    """The arguments of a local step for a crop: a view names its sizes."""
    return {**args, "size": [*args["size"][:-2], *size]} if _LOCAL.get(step.name) is _viewed else args

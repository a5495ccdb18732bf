"""Space: which axes of a value are the image's rows and columns, and how each step keeps them.

A step is *sliding* (a convolution or pooling: an output reads its inputs under a kernel), *local* (an output reads its
inputs at its own place only), or neither. Then it runs on whole maps, which is exact for any operation and saves
nothing.
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
"""What a step does to rows and columns; None when it mixes all places, or does what has no rule here."""


@dataclass(frozen=True)
class MapGeometry:
    """For each value that has rows and columns its space, and for each step its kind."""

    spaces: dict[int, Space]
    kinds: tuple[Kind, ...]


def follow_maps(graph: Graph) -> MapGeometry:
    """Follow rows and columns from the image (B, C, H, W) through the graph."""
    shape = graph.shapes[0]
    assert shape is not None
    spaces = {0: Space((2, 3), (shape[1], shape[2]))}
    kinds = [_follow_step(step, graph.shapes, spaces) for step in graph.steps]
    return MapGeometry(spaces, tuple(kinds))


def _follow_step(step: Step, shapes: dict[int, Shape | None], spaces: dict[int, Space]) -> Kind:
    """The kind of a step. The spaces of its outputs are added to `spaces`."""
    output = shapes[step.outputs[0]]
    if any(shapes[value] is None for value in step.inputs) or output is None:
        return None
    kind, axes = _find_kind_and_axes(step, shapes, spaces)
    if axes is not None:
        for value in step.outputs:
            if shape := shapes[value]:
                spaces[value] = Space(axes, (shape[axes[0] - 1], shape[axes[1] - 1]))
    return kind


def _find_kind_and_axes(
    step: Step, shapes: dict[int, Shape | None], spaces: dict[int, Space]
) -> tuple[Kind, Pair | None]:
    """The kind of a step, and the axes of rows and columns in its outputs, where they have such."""
    if not all(value in spaces for value in step.inputs):
        return None, None
    if has_neighbourhood(step.name):
        image_like = all(spaces[value].axes == (2, 3) for value in step.inputs)
        return (_find_sliding(step), (2, 3)) if image_like else (None, None)
    axes = _find_local_axes(step, shapes, spaces)
    return (None, None) if axes is None else (Local(), axes)


def _find_sliding(step: Step) -> Neighbourhood | None:
    """What each output of a sliding step reads; None where some outputs make something else of it than others do."""
    kind, args = find_neighbourhood(step.name, step.args), step.args
    if kind is None or kind.transposed:
        return None
    if step.name == "avg_pool2d" and (
        args["ceil_mode"] or (any(kind.padding) and not (args["count_include_pad"] or args["divisor_override"]))
    ):
        return None  # means at the border have divisors of their own
    return kind


def _find_local_axes(step: Step, shapes: dict[int, Shape | None], spaces: dict[int, Space]) -> Pair | None:
    """The axes of rows and columns in a local step's outputs; None when the step is not local."""
    first = spaces[step.inputs[0]]
    if any(spaces[value] != first for value in step.inputs):
        return None
    dims = {len(shapes[value] or ()) for value in step.inputs}
    if rule := _LOCAL_RULES.get(step.name):
        return rule(step, first, len(shapes[step.inputs[0]] or ()) + 1)
    is_local = is_elementwise(step.func) and len(dims) == 1 and _has_uniform_constants(step, first, dims.pop() + 1)
    return first.axes if is_local else None


def _has_uniform_constants(step: Step, space: Space, dim: int) -> bool:
    """Whether the constants among a step's arguments are the same at all places; the values have `dim` axes."""
    constants = [arg for arg in step.args.values() if isinstance(arg, Tensor)]
    along = [axis - dim for axis in space.axes]  # counted from the end, as broadcasting does
    return all(constant.dim() < -axis or constant.shape[axis] == 1 for constant in constants for axis in along)


# A rule `_follow_X(step, space, dim)` returns where rows and columns are in what the operation X gives for a value with
# this space and `dim` axes, the batch included; None where X is not local.


def _follow_axis(step: Step, space: Space, dim: int) -> Pair | None:
    """Values are joined, cut or mixed along one axis, which must not be rows or columns."""
    axis = step.args["dim"] % dim
    constant = any(isinstance(part, Tensor) for part in step.args.get("tensors", ()))
    return None if constant or axis in (0, *space.axes) else space.axes


def _follow_select(step: Step, space: Space, dim: int) -> Pair | None:
    axis = step.args["dim"] % dim
    return None if axis in (0, *space.axes) else _move_axes(space, [d for d in range(dim) if d != axis])


def _follow_unsqueeze(step: Step, space: Space, dim: int) -> Pair | None:
    axis = step.args["dim"] % (dim + 1)
    return None if axis == 0 else (space.axes[0] + (space.axes[0] >= axis), space.axes[1] + (space.axes[1] >= axis))


def _follow_reduction(step: Step, space: Space, dim: int) -> Pair | None:
    """A mean, sum or maximum over channels."""
    axes = {*find_reduced_axes(step.args, dim)}
    if axes & {0, *space.axes}:
        return None
    return space.axes if step.args["keepdim"] else _move_axes(space, [d for d in range(dim) if d not in axes])


def _follow_permute(step: Step, space: Space, dim: int) -> Pair | None:
    order = [d % dim for d in step.args["dims"]]
    return _move_axes(space, order) if order[0] == 0 else None


def _follow_transpose(step: Step, space: Space, dim: int) -> Pair | None:
    a, b = step.args["dim0"] % dim, step.args["dim1"] % dim
    order = list(range(dim))
    order[a], order[b] = b, a
    return _move_axes(space, order) if order[0] == 0 else None


def _move_axes(space: Space, order: list[int]) -> Pair:
    """Where rows and columns are when the old axes come in this order."""
    return order.index(space.axes[0]), order.index(space.axes[1])


def _follow_view(step: Step, space: Space, dim: int) -> Pair | None:
    """Channels are grouped or ungrouped; the batch stays first, rows and columns stay last."""
    size = step.args["size"]
    keeps_batch = len(size) > 2 and isinstance(size[0], PerImage) and size[0].each == 1
    if space.axes == (dim - 2, dim - 1) and keeps_batch and tuple(size[-2:]) == space.size:
        return len(size) - 2, len(size) - 1
    return None


def _follow_layer_norm(step: Step, space: Space, dim: int) -> Pair | None:
    return None if {*space.axes} & {*find_normalized_axes(step.args, dim)} else space.axes


def _follow_batch_norm(step: Step, space: Space, dim: int) -> Pair | None:
    return None if step.args.get("training") or 1 in space.axes or dim < 3 else space.axes


_LOCAL_RULES: dict[str, Callable[[Step, Space, int], Pair | None]] = {
    **dict.fromkeys(("cat", "split", "split_with_sizes", "slice", "_softmax"), _follow_axis),
    **dict.fromkeys(("select", "unbind"), _follow_select),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _follow_reduction),
    **dict.fromkeys(VIEWS, _follow_view),
    **dict.fromkeys(BATCH_NORMS, _follow_batch_norm),
    "native_layer_norm": _follow_layer_norm,
    "permute": _follow_permute,
    "transpose": _follow_transpose,
    "unsqueeze": _follow_unsqueeze,
}
"""By the operation's name. Operations that work element by element are local too and need not be listed."""


def resize(step: Step, args: dict[str, Any], size: Pair) -> dict[str, Any]:
    """The arguments of a local step for crops of this size: a view is told the size of its output."""
    return {**args, "size": [*args["size"][:-2], *size]} if step.name in VIEWS else args

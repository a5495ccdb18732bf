"""Geometry: what an operation of ATen does to rows and columns, read off its name and arguments.

Receptive fields and the incremental engine both go by this: the one asks what an output reads, the other what an input
can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from torch import Tensor

Pair = tuple[int, int]
"""A number for rows and one for columns, (down, across)."""

Arguments = Mapping[str, Any]
"""An operation's arguments, by name."""


@dataclass(frozen=True)
class Neighbourhood:
    """What each output of an operation reads along the last two axes of its first input.

    Output y reads the rows y * stride - padding + k * dilation, for k from 0 to kernel - 1; columns alike. transposed:
    the other way round, row y of the input is read by these outputs. beyond: what rows and columns that the input does
    not have hold, and further inputs are read at the output's own place."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    transposed: bool = False
    beyond: float = 0.0


def operation_name(func: Any) -> str:
    """As in ATen's schema, without the underscore of an operation in place: `add` for aten::add_.Tensor."""
    return str(func._schema.name).removeprefix("aten::").rstrip("_")


def slides(name: str) -> bool:
    """Whether operations of this name have a neighbourhood."""
    return name in _NEIGHBOURHOODS


def neighbourhood_of(name: str, args: Arguments) -> Neighbourhood | None:
    """What a convolution or pooling reads; None for other operations, and for convolutions of other dimensions or
    with weights that are not given as a tensor."""
    return _NEIGHBOURHOODS[name](args) if name in _NEIGHBOURHOODS else None


def _of_convolution(args: Arguments) -> Neighbourhood | None:
    weight = args["weight"]
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        return None
    kernel = (weight.shape[2], weight.shape[3])
    stride, padding, dilation = (_pair(args[name]) for name in ("stride", "padding", "dilation"))
    return Neighbourhood(kernel, stride, padding, dilation, transposed=args["transposed"])


def _of_mean_pool(args: Arguments) -> Neighbourhood:
    kernel = _pair(args["kernel_size"])
    return Neighbourhood(kernel, _pair(args["stride"] or kernel), _pair(args["padding"]))


def _of_max_pool(args: Arguments) -> Neighbourhood:
    kernel = _pair(args["kernel_size"])
    return Neighbourhood(
        kernel, _pair(args["stride"] or kernel), _pair(args["padding"]), _pair(args["dilation"]), beyond=-inf
    )


_NEIGHBOURHOODS: dict[str, Callable[[Arguments], Neighbourhood | None]] = {
    "avg_pool2d": _of_mean_pool,
    "convolution": _of_convolution,
    "max_pool2d_with_indices": _of_max_pool,
}


def _pair(values: int | Sequence[int]) -> Pair:
    several = [values] if isinstance(values, int) else values
    return several[0], several[-1]


def reduced_axes(args: Arguments, dim: int) -> list[int]:
    """The axes, of so many, over which a reduction or a softmax goes: all where none are named."""
    named = args.get("dim")
    return [axis % max(dim, 1) for axis in ([named] if isinstance(named, int) else named or range(dim))]


def normalized_axes(args: Arguments, dim: int) -> range:
    """The axes, of so many, over which a layer norm goes: the last ones."""
    return range(dim - len(args["normalized_shape"]), dim)


VIEWS = ("_reshape_alias", "_unsafe_view", "view")
"""Operations that give the same numbers another shape."""

BATCH_NORMS = ("_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm")
"""Element by element, except with `training`: then each channel's own statistics count."""

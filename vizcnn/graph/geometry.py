"""Geometry: what an ATen operation does to rows and columns, from its name and arguments.

Receptive fields ask what an output reads, the incremental engine what an input can change: both use this one parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from torch import Tensor

from vizcnn.models.layers.dryrun import to_pair

Pair = tuple[int, int]
"""A number for rows and one for columns, (down, across)."""

Arguments = Mapping[str, Any]
"""An operation's arguments, by name."""


@dataclass(frozen=True)
class Neighbourhood:
    """What each output of an operation reads along the last two axes of its first input.

    Output y reads the rows y * stride - padding + k * dilation, for k from 0 to kernel - 1; columns alike. transposed:
    the other way round, row y of the input is read by these outputs. beyond: the value of rows and columns outside the
    input. Further inputs are read at the output's own position."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    transposed: bool = False
    beyond: float = 0.0


def name_operation(func: Any) -> str:
    """An operation's name in ATen's schema, without the underscore of those in place: `add` for aten::add_.Tensor."""
    return str(func._schema.name).removeprefix("aten::").rstrip("_")


def has_neighbourhood(name: str) -> bool:
    """Whether operations of this name have a neighbourhood."""
    return name in _NEIGHBOURHOODS


def find_neighbourhood(name: str, args: Arguments) -> Neighbourhood | None:
    """What each output of a convolution or pooling reads.

    None for other operations, for convolutions that are not two-dimensional, and where the weights are not a tensor."""
    return _NEIGHBOURHOODS[name](args) if name in _NEIGHBOURHOODS else None


def _read_convolution(args: Arguments) -> Neighbourhood | None:
    weight = args["weight"]
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        return None
    kernel = (weight.shape[2], weight.shape[3])
    stride, padding, dilation = (to_pair(args[name]) for name in ("stride", "padding", "dilation"))
    return Neighbourhood(kernel, stride, padding, dilation, transposed=args["transposed"])


def _read_mean_pool(args: Arguments) -> Neighbourhood:
    kernel = to_pair(args["kernel_size"])
    return Neighbourhood(kernel, to_pair(args["stride"] or kernel), to_pair(args["padding"]))


def _read_max_pool(args: Arguments) -> Neighbourhood:
    kernel = to_pair(args["kernel_size"])
    return Neighbourhood(
        kernel, to_pair(args["stride"] or kernel), to_pair(args["padding"]), to_pair(args["dilation"]), beyond=-inf
    )


_NEIGHBOURHOODS: dict[str, Callable[[Arguments], Neighbourhood | None]] = {
    "avg_pool2d": _read_mean_pool,
    "convolution": _read_convolution,
    "max_pool2d_with_indices": _read_max_pool,
}


def find_reduced_axes(args: Arguments, dim: int) -> list[int]:
    """The axes over which a reduction or softmax of a tensor with `dim` axes goes: all of them where it names none."""
    named = args.get("dim")
    return [axis % max(dim, 1) for axis in ([named] if isinstance(named, int) else named or range(dim))]


def find_normalized_axes(args: Arguments, dim: int) -> range:
    """The axes over which a layer norm of a tensor with `dim` axes goes: the last ones."""
    return range(dim - len(args["normalized_shape"]), dim)


VIEWS = ("_reshape_alias", "_unsafe_view", "view")
"""Operations that give the same elements another shape."""

BATCH_NORMS = ("_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm")
"""Operations that work element by element; with `training` each channel's own statistics count too."""

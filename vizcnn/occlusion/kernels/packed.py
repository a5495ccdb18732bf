"""Packed operations: convolutions and matrix products by oneDNN's own operations, which torch.compile uses too.

Weights are put once into the order that suits the processor; an addition and an activation are done on the way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import torch
from torch import Tensor

from vizcnn.graph.recording import Shape, Step
from vizcnn.occlusion.kernels.winograd import Winograd

_NEEDED = ("_reorder_convolution_weight", "_convolution_pointwise", "_reorder_linear_weight", "_linear_pointwise")


def is_available() -> bool:
    """Whether this torch has the operations; they are not part of its public interface."""
    enabled = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    return enabled and all(hasattr(torch.ops.mkldnn, name) for name in _NEEDED)


class Packed(ABC):
    """aten.convolution with an addition and an activation after it.

    Called with the arguments of aten.convolution, whose weights and bias are not looked at, and `addend`, what is added
    to the output. bias: (K,) or None. activation: a step that `find_activation` knows, or None.
    """

    _schema = torch.ops.aten.convolution.default._schema
    tags: tuple[Any, ...] = ()

    def __init__(self, bias: Tensor | None, activation: Step | None) -> None:
        self.bias = bias
        self.activation, self.limits = find_activation(activation) or ("none", [])

    def __call__(self, *, input: Tensor, addend: Tensor | None = None, **args: Any) -> Tensor:
        return self._run(input, addend, args)

    @abstractmethod
    def _run(self, images: Tensor, addend: Tensor | None, args: dict[str, Any]) -> Tensor:
        """From images (B, C, H, W) to (B, K, h, w), channels last."""

    def _activate(self, out: Tensor) -> Tensor:
        """Apply the activation in place."""
        if self.activation == "none":
            return out
        return out.relu_() if self.activation == "relu" else out.clamp_(*self.limits)


def pack(args: dict[str, Any], weight: Tensor, bias: Tensor | None, shape: Shape, activation: Step | None) -> Packed:
    """A convolution in the fastest way. args: its own; weight, bias: used instead of those; shape: its input's."""
    if is_matrix_product(args):
        return _MatrixProduct(weight, bias, shape, activation)
    if _suits_winograd(args, weight, shape):
        return _WinogradConvolution(weight, bias, activation)
    return _Convolution(args, weight, bias, shape, activation)


class _Convolution(Packed):
    """A convolution as oneDNN does it."""

    def __init__(
        self, args: dict[str, Any], weight: Tensor, bias: Tensor | None, shape: Shape, activation: Step | None
    ) -> None:
        super().__init__(bias, activation)
        self.weight = _reorder_weight(weight.contiguous(), args, shape)

    def _run(self, images: Tensor, addend: Tensor | None, args: dict[str, Any]) -> Tensor:
        run, geometry = torch.ops.mkldnn._convolution_pointwise, _list_geometry(args)
        images = images.contiguous(memory_format=torch.channels_last)
        if addend is None:
            out: Tensor = run(images, self.weight, self.bias, *geometry, self.activation, self.limits, "")
            return out
        addend = addend.contiguous(memory_format=torch.channels_last)
        relu = "relu" if self.activation == "relu" else None  # the only activation that oneDNN does after a sum
        out = run.binary(images, addend, self.weight, self.bias, *geometry, "add", 1.0, relu, [], "")
        return out if relu else self._activate(out)


class _MatrixProduct(Packed):
    """A kernel of 1x1 as a matrix product, which is as fast for crops of any size.

    A convolution whose weights are ordered for another size of map can take more than twice as long."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Shape, activation: Step | None) -> None:
        super().__init__(bias, activation)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.flatten(1).contiguous(), 8 * prod(shape[1:]))

    def _run(self, images: Tensor, addend: Tensor | None, args: dict[str, Any]) -> Tensor:
        run = torch.ops.mkldnn._linear_pointwise
        down, across = args["stride"]
        places = images[:, :, ::down, ::across].movedim(1, 3).contiguous()  # (B, h, w, C)
        out: Tensor
        if addend is None:
            out = run(places, self.weight, self.bias, self.activation, self.limits, "")
        else:
            out = self._activate(run.binary(places, addend.movedim(1, 3).contiguous(), self.weight, self.bias, "add"))
        return out.movedim(3, 1)


class _WinogradConvolution(Packed):
    """Kernels of 3x3 for many channels, by Winograd's algorithm."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Step | None) -> None:
        super().__init__(bias, activation)
        self.winograd = Winograd(weight, bias)

    def _run(self, images: Tensor, addend: Tensor | None, args: dict[str, Any]) -> Tensor:
        out = self.winograd(images, args["padding"])
        return self._activate(out if addend is None else out.add_(addend))


class Dense:
    """aten.addmm of a constant matrix (K, N), called with the same arguments; weights stay as they lie in memory."""

    _schema = torch.ops.aten.addmm.default._schema
    tags: tuple[Any, ...] = ()

    def __call__(self, /, **args: Any) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(args["mat1"], args["mat2"].t(), args["self"], "none", [], "")
        return out


def is_matrix_product(args: dict[str, Any]) -> bool:
    """Whether a convolution, by its arguments, is a matrix product: its kernel is 1x1."""
    return max(args["weight"].shape[2:]) == 1 and not any(args["padding"]) and args["groups"] == 1


def find_activation(step: Step | None) -> tuple[str, list[float]] | None:
    """oneDNN's name and limits for a step that is an activation which it computes exactly; None for any other."""
    if step is None:
        return None
    if step.name == "relu":
        return "relu", []
    names = {"hardtanh": ("min_val", "max_val"), "clamp": ("min", "max")}.get(step.name, ())
    limits = [step.args[name] for name in names]
    return ("hardtanh", limits) if limits and all(isinstance(limit, int | float) for limit in limits) else None


def _suits_winograd(args: dict[str, Any], weight: Tensor, shape: Shape) -> bool:
    """Whether Winograd's algorithm is faster: many channels, whose products outweigh its additions, and enough rows."""
    plain = all(number == 1 for number in (*args["stride"], *args["dilation"], args["groups"]))
    return plain and weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= 128 and shape[1] >= 6


def _list_geometry(args: dict[str, Any]) -> tuple[Any, ...]:
    return args["padding"], args["stride"], args["dilation"], args["groups"]


def _reorder_weight(weight: Tensor, args: dict[str, Any], shape: Shape) -> Tensor:
    """The weights in the order in which oneDNN reads them, for maps of this shape.

    Where the number of channels is no power of two, the order depends on the size of the map, and a crop of another
    size would take several times as long. Such weights stay as they are, and oneDNN reorders them in each call."""
    channels = len(weight) // args["groups"]
    if channels & (channels - 1):  # no power of two
        return weight
    reordered: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *_list_geometry(args), [8, *shape])
    return reordered

"""Packed operations: convolutions and products of matrices by oneDNN's own operations, which torch.compile uses too.

Weights are laid out once, for the processor; additions and activations are done on the way.
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


def available() -> bool:
    """Whether this torch has the operations; they are not part of its public interface."""
    enabled = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    return enabled and all(hasattr(torch.ops.mkldnn, name) for name in _NEEDED)


class Packed(ABC):
    """aten.convolution with given weights, an addition and an activation; takes the same arguments, and what is added.

    bias: (K,) or None. activation: a step that `activation_of` knows, or None.
    """

    _schema = torch.ops.aten.convolution.default._schema
    tags: tuple[Any, ...] = ()

    def __init__(self, bias: Tensor | None, activation: Step | None) -> None:
        self.bias = bias
        self.then, self.limits = activation_of(activation) or ("none", [])

    def __call__(self, *, input: Tensor, added: Tensor | None = None, **args: Any) -> Tensor:
        return self._run(input, added, args)

    @abstractmethod
    def _run(self, image: Tensor, added: Tensor | None, args: dict[str, Any]) -> Tensor:
        """From images (B, C, H, W) to (B, K, h, w), channels last."""

    def _activated(self, out: Tensor) -> Tensor:
        if self.then == "none":
            return out
        return out.relu_() if self.then == "relu" else out.clamp_(*self.limits)


def pack(args: dict[str, Any], weight: Tensor, bias: Tensor | None, shape: Shape, activation: Step | None) -> Packed:
    """A convolution in the fastest way. args: its own; weight, bias: used instead of those; shape: its input's."""
    if is_product(args):
        return _Product(weight, bias, shape, activation)
    if _is_filtered(args, weight, shape):
        return _Filtered(weight, bias, activation)
    return _Convolution(args, weight, bias, shape, activation)


class _Convolution(Packed):
    """oneDNN's own."""

    def __init__(
        self, args: dict[str, Any], weight: Tensor, bias: Tensor | None, shape: Shape, activation: Step | None
    ) -> None:
        super().__init__(bias, activation)
        self.weight = _laid_out(weight.contiguous(), args, shape)

    def _run(self, image: Tensor, added: Tensor | None, args: dict[str, Any]) -> Tensor:
        run, where = torch.ops.mkldnn._convolution_pointwise, _where(args)
        image = image.contiguous(memory_format=torch.channels_last)
        if added is None:
            out: Tensor = run(image, self.weight, self.bias, *where, self.then, self.limits, "")
            return out
        added = added.contiguous(memory_format=torch.channels_last)
        then = "relu" if self.then == "relu" else None  # all that it takes behind a sum
        out = run.binary(image, added, self.weight, self.bias, *where, "add", 1.0, then, [], "")
        return out if then else self._activated(out)


class _Product(Packed):
    """A kernel of one place as a product of matrices, which is as fast for crops of any size.

    A convolution whose weights were laid out for another size of map can take more than twice as long."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Shape, activation: Step | None) -> None:
        super().__init__(bias, activation)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.flatten(1).contiguous(), 8 * prod(shape[1:]))

    def _run(self, image: Tensor, added: Tensor | None, args: dict[str, Any]) -> Tensor:
        run = torch.ops.mkldnn._linear_pointwise
        down, across = args["stride"]
        places = image[:, :, ::down, ::across].movedim(1, 3).contiguous()  # (B, h, w, C)
        out: Tensor
        if added is None:
            out = run(places, self.weight, self.bias, self.then, self.limits, "")
        else:
            out = self._activated(run.binary(places, added.movedim(1, 3).contiguous(), self.weight, self.bias, "add"))
        return out.movedim(3, 1)


class _Filtered(Packed):
    """Kernels of 3x3 for many channels, by Winograd's algorithm."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Step | None) -> None:
        super().__init__(bias, activation)
        self.filter = Winograd(weight, bias)

    def _run(self, image: Tensor, added: Tensor | None, args: dict[str, Any]) -> Tensor:
        out = self.filter(image, args["padding"])
        return self._activated(out if added is None else out.add_(added))


class Dense:
    """aten.addmm of a constant matrix (K, N), the weights as they lie; takes the same arguments."""

    _schema = torch.ops.aten.addmm.default._schema
    tags: tuple[Any, ...] = ()

    def __call__(self, /, **args: Any) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(args["mat1"], args["mat2"].t(), args["self"], "none", [], "")
        return out


def is_product(args: dict[str, Any]) -> bool:
    """Whether a convolution, by its arguments, is a product of matrices: its kernel is one place."""
    return max(args["weight"].shape[2:]) == 1 and not any(args["padding"]) and args["groups"] == 1


def activation_of(step: Step | None) -> tuple[str, list[float]] | None:
    """oneDNN's name and numbers for a step that is an activation which it applies exactly."""
    if step is None:
        return None
    if step.name == "relu":
        return "relu", []
    limits = {"hardtanh": ("min_val", "max_val"), "clamp": ("min", "max")}.get(step.name, ())
    numbers = [step.args[name] for name in limits]
    return ("hardtanh", numbers) if limits and all(isinstance(n, int | float) for n in numbers) else None


def _is_filtered(args: dict[str, Any], weight: Tensor, shape: Shape) -> bool:
    """Whether Winograd's algorithm is faster: many channels, whose products outweigh its additions, and enough rows."""
    plain = all(number == 1 for number in (*args["stride"], *args["dilation"], args["groups"]))
    fits = plain and weight.shape[2:] == (3, 3)
    return fits and min(weight.shape[:2]) >= 192 and shape[1] >= 6


def _where(args: dict[str, Any]) -> tuple[Any, ...]:
    return args["padding"], args["stride"], args["dilation"], args["groups"]


def _laid_out(weight: Tensor, args: dict[str, Any], shape: Shape) -> Tensor:
    """Weights as oneDNN reads them. For a number of channels that is no power of two it chooses by the size of the map,
    and a crop of another size would take several times as long: these it lays out anew in each call."""
    channels = len(weight) // args["groups"]
    if channels & (channels - 1):
        return weight
    laid_out: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *_where(args), [8, *shape])
    return laid_out

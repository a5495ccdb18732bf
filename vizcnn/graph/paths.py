"""Paths: the weights that lead into a value, with the norms behind them multiplied in, and what they read.

Before its activation a unit k of a site holds

    sum over paths of  scale[k] * (weights[k] applied to what the path reads)  +  bias[k]

since convolutions, dense layers, norms with running statistics and additions are all linear.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.graph.geometry import BATCH_NORMS, VIEWS, Pair
from vizcnn.graph.recording import Ref, Step
from vizcnn.graph.trace import PRODUCTS, SAME, NotFollowed, Trace, describe_between, is_constant, keeps_channels
from vizcnn.models.layers.dryrun import to_pair

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """Where channels of what a path reads come from: channel `first` is channel 0 of the source, and so on.

    source: the value of a site, or 0 for the image. via: what lies between, in words, in the order in which it runs."""

    source: int
    first: int
    channels: int
    via: tuple[str, ...] = ()


@dataclass(frozen=True)
class Path:
    """One way into a site: a convolution, a dense layer, or an identity, of which every unit reads its own channel.

    layer: that has the weights; "" for an identity. norm: the first norm behind it, "" for none.
    value: what it reads, by its number in the graph. shape: of that, (C, h, w). A dense layer that reads a map is a
        convolution as large as the map.
    weights: (K, C / groups, rows, columns), as the network has them; None for an identity. scale: float64 (K,), what
        comes behind them. stride, padding, dilation, groups: as of a convolution; padding is of zeros.
    rows: the first of the site's units that the path leads to, and the one after the last.
    origins: which sites it reads, by channels. missing: why these are not known; "" where they are.
    """

    layer: str
    norm: str
    value: int
    shape: tuple[int, int, int]
    weights: Tensor | None
    scale: Numbers
    rows: Pair
    origins: tuple[Origin, ...]
    missing: str = ""
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def fold(self) -> Numbers:
        """The weights times the scale, float64 (K, C / groups, rows, columns); an identity's as (K, 1, 1, 1)."""
        scale = self.scale[:, None, None, None]
        return scale if self.weights is None else self.weights.detach().cpu().double().numpy() * scale

    @property
    def is_plain(self) -> bool:
        """Whether it adds what it reads as it is, to all units of the site."""
        return self.weights is None and bool((self.scale == 1).all()) and len(self.scale) == self.shape[0]

    @property
    def fan_in(self) -> int:
        """How many weights a unit has on it."""
        return 0 if self.weights is None else self.weights[0].numel()


@dataclass(frozen=True)
class LeadIn:
    """Everything that leads into a value: the paths, the bias of each channel, float64 (K,), and how many parameters
    weights and norms have."""

    paths: tuple[Path, ...]
    bias: Numbers
    parameters: int


def find_lead_in(trace: Trace, value: int, sites: Collection[int]) -> LeadIn:
    """What leads into a value. sites: the values of sites, at which paths begin. Raises NotFollowed."""
    channels = trace.shape(value)[0]
    walk = _Walk(trace, sites, channels)
    walk.enter(value, np.ones(channels), (0, channels), "", start=True)
    return LeadIn(tuple(walk.paths), walk.bias, walk.parameters)


def find_origins(trace: Trace, value: int, sites: Collection[int]) -> tuple[Origin, ...]:
    """Where the channels of a value come from, through pooling, padding and norms. Raises NotFollowed."""
    via: list[str] = []
    while value not in sites and value != 0:
        step = trace.producers[value]
        if _joins_channels(step):
            joined, first = [], 0
            for part in step.inputs:
                for each in find_origins(trace, part, sites):
                    whole = (*each.via, *reversed(via))
                    joined.append(Origin(each.source, first + each.first, each.channels, whole))
                first += trace.shape(part)[0]
            return tuple(joined)
        words = describe_between(trace, step)
        if words is None and step.name in BATCH_NORMS and not step.args.get("training"):
            words = "norm"
        if words is None and step.name in ("sub", "div", "add", "mul") and len(step.inputs) == 1:
            words = "scaling" if step.name in ("div", "mul") else "shift"
        if words is None:
            raise NotFollowed(describe_step(step))
        via += [words] if words else []
        value = step.inputs[0]
    if value == 0:  # what makes an input of an image is no part of the network
        via = [words for words in via if words not in ("scaling", "shift")]
    return (Origin(value, 0, trace.shape(value)[0], tuple(reversed(via))),)


def find_bases(trace: Trace, value: int) -> list[int]:
    """What a value is made of by nothing but pooling, padding and joining of channels."""
    while value != 0:
        step = trace.producers[value]
        if _joins_channels(step):
            return [base for part in step.inputs for base in find_bases(trace, part)]
        if describe_between(trace, step) is None:
            break
        value = step.inputs[0]
    return [value]


def unflatten(trace: Trace, value: int) -> int:
    """The map (C, h, w) that a vector was before it was flattened, or the same value."""
    while value != 0 and len(trace.shape(value)) == 1:
        step = trace.producers[value]
        flattens = step.name in VIEWS and len(trace.graph.shapes[step.inputs[0]] or ()) in (1, 3)
        if not (flattens or step.name in SAME):
            break
        value = step.inputs[0]
    return value


def read_weights(trace: Trace, step: Step) -> tuple[int, Tensor, Tensor | None]:
    """What a convolution or dense layer reads, its weights (K, C / groups, rows, columns), and its bias.

    Raises NotFollowed."""
    args = step.args
    if step.name == "convolution":
        weights, bias = args["weight"], args["bias"]
        if not isinstance(args["input"], Ref) or not isinstance(weights, Tensor) or isinstance(bias, Ref):
            raise NotFollowed("weights that depend on the image")
        if args["transposed"] or weights.dim() != 4:
            raise NotFollowed("a transposed convolution" if args["transposed"] else "a convolution of other axes")
        return args["input"].value, weights, bias
    left, right = (args["mat1"], args["mat2"]) if step.name == "addmm" else (args["self"], args["mat2"])
    bias = args["self"] if step.name == "addmm" else None
    usual = isinstance(left, Ref) and isinstance(right, Tensor) and not isinstance(bias, Ref)
    if not usual or (args.get("alpha", 1), args.get("beta", 1)) != (1, 1):
        raise NotFollowed("a product of two values")
    value = unflatten(trace, left.value)
    shape = _as_map(trace.shape(value))
    return value, right.t().reshape(right.shape[1], *shape), bias


def describe_step(step: Step) -> str:
    """An operation, as the reason why something is not followed."""
    if len(step.inputs) > 1 and step.name in ("mul", "div"):
        return "two values are multiplied"
    return f"behind the operation {step.name!r}"


def _joins_channels(step: Step) -> bool:
    return step.name == "cat" and step.args["dim"] in (1, -3) and len(step.args["tensors"]) == len(step.inputs)


def _as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a map, of one place where there are no places."""
    if len(shape) not in (1, 3):
        raise NotFollowed("values with other axes than channels, rows and columns")
    channels, rows, columns = shape if len(shape) == 3 else (shape[0], 1, 1)
    return channels, rows, columns


class _Walk:
    """Goes back from a value through everything linear, and gathers what it meets."""

    def __init__(self, trace: Trace, sites: Collection[int], channels: int) -> None:
        self.trace, self.sites = trace, sites
        self.paths: list[Path] = []
        self.bias = np.zeros(channels)
        self.parameters = 0

    def enter(self, value: int, scale: Numbers, rows: Pair, norm: str, *, start: bool = False) -> None:
        """Follow a value that is added, times `scale` (K,), to the units `rows`. norm: the norm in front of it."""
        if value == 0 or (value in self.sites and not start):
            self._end_at(value, scale, rows, norm)
            return
        step = self.trace.producers[value]
        if step.name in ("convolution", *PRODUCTS):
            self._add_weights(step, scale, rows, norm)
        elif step.name in SAME or (step.name in VIEWS and keeps_channels(self.trace, step)):
            self.enter(step.inputs[0], scale, rows, norm, start=start)
        elif step.name in BATCH_NORMS:
            self._enter_norm(step, scale, rows, norm)
        elif step.name in ("add", "sub"):
            self._enter_sum(step, scale, rows, norm)
        elif step.name in ("mul", "div") and len(step.inputs) == 1:
            self.enter(step.inputs[0], scale * self._read_factor(step), rows, norm)
        elif _joins_channels(step):
            self._enter_joined(step, scale, rows, norm)
        else:
            self._end_at(value, scale, rows, norm)

    def _end_at(self, value: int, scale: Numbers, rows: Pair, norm: str) -> None:
        """End at what a site gives, as it is or pooled."""
        if value not in self.sites and value != 0 and describe_between(self.trace, self.trace.producers[value]) is None:
            raise NotFollowed(describe_step(self.trace.producers[value]))
        shape = _as_map(self.trace.shape(value))
        origins = find_origins(self.trace, value, self.sites)
        self.paths.append(Path("", norm, value, shape, None, scale, rows, origins))

    def _add_weights(self, step: Step, scale: Numbers, rows: Pair, norm: str) -> None:
        value, weights, bias = read_weights(self.trace, step)
        self.bias[slice(*rows)] += scale * _to_numbers(bias, len(weights))
        self.parameters += weights.numel() + (bias.numel() if bias is not None else 0)
        try:
            origins, missing = find_origins(self.trace, value, self.sites), ""
        except NotFollowed as reason:
            origins, missing = (), str(reason)
        shape, args, geometry = _as_map(self.trace.shape(value)), step.args, dict[str, Any]()
        if step.name == "convolution":
            geometry = {name: to_pair(args[name]) for name in ("stride", "padding", "dilation")}
            geometry["groups"] = args["groups"]
        layer = self.trace.names.get(step.outputs[0], ("",))[0] or f"weights {step.outputs[0]}"
        self.paths.append(Path(layer, norm, value, shape, weights, scale, rows, origins, missing, **geometry))

    def _enter_norm(self, step: Step, scale: Numbers, rows: Pair, norm: str) -> None:
        args, channels = step.args, self.trace.shape(step.outputs[0])[0]
        if args.get("training"):
            raise NotFollowed("a norm with the statistics of each image")
        if isinstance(args["running_mean"], Ref) or args["running_mean"] is None:
            raise NotFollowed("a norm that depends on the image")
        mean, variance = (_to_numbers(args[name], channels) for name in ("running_mean", "running_var"))
        eps = args["eps"] if "eps" in args else args["epsilon"]
        factor = _to_numbers(args["weight"], channels, 1.0) / np.sqrt(variance + eps)
        shift = _to_numbers(args["bias"], channels) - mean * factor
        self.parameters += sum(args[name].numel() for name in ("weight", "bias") if args[name] is not None)
        self.bias[slice(*rows)] += scale * shift
        own = self.trace.names.get(step.outputs[0], ("",))[0]
        self.enter(_number(args["input"]), scale * factor, rows, norm or own)

    def _enter_sum(self, step: Step, scale: Numbers, rows: Pair, norm: str) -> None:
        args, value = step.args, step.outputs[0]
        sign = (1 if step.name == "add" else -1) * args.get("alpha", 1)
        for part, factor in ((args["self"], 1), (args["other"], sign)):
            if is_constant(part):
                self.bias[slice(*rows)] += scale * factor * self._read_constant(part, value)
                continue
            number = _number(part)
            if self.trace.graph.shapes[number] != self.trace.graph.shapes[value]:
                raise NotFollowed("values of different shapes are added")
            self.enter(number, scale * factor, rows, norm)

    def _enter_joined(self, step: Step, scale: Numbers, rows: Pair, norm: str) -> None:
        first = 0
        for part in step.inputs:
            count = self.trace.shape(part)[0]
            self.enter(part, scale[first : first + count], (rows[0] + first, rows[0] + first + count), norm)
            first += count

    def _read_factor(self, step: Step) -> Numbers:
        """What a step multiplies each channel with."""
        constant = step.args["other"] if isinstance(step.args["self"], Ref) else step.args["self"]
        if (step.name == "div" and constant is step.args["self"]) or not is_constant(constant):
            raise NotFollowed(describe_step(step))
        factor = self._read_constant(constant, step.outputs[0])
        return factor if step.name == "mul" else 1 / factor

    def _read_constant(self, constant: Any, value: int) -> Numbers:
        """A constant that is combined with a value, as a number for each channel, float64 (K,)."""
        shape = self.trace.shape(value)
        if not isinstance(constant, Tensor) or constant.numel() == 1:
            return np.full(shape[0], float(constant))
        sides = (1,) * (len(shape) + 1 - constant.dim()) + tuple(constant.shape)
        if sides != (1, shape[0], *(1 for _ in shape[1:])):
            raise NotFollowed("a constant that differs from place to place")
        return _to_numbers(constant.reshape(-1), shape[0])


def _number(argument: Any) -> int:
    """The number of the value that an argument is. Raises NotFollowed for a constant."""
    if not isinstance(argument, Ref):
        raise NotFollowed("a constant where a value is expected")
    return argument.value


def _to_numbers(values: Tensor | None, count: int, default: float = 0.0) -> Numbers:
    if values is None:
        return np.full(count, default)
    if values.numel() != count:
        raise NotFollowed("as many constants as channels are expected")
    return np.asarray(torch.as_tensor(values).detach().cpu().double().reshape(-1).numpy())

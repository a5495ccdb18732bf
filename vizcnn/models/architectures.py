"""Architectures: networks built for as many classes and input channels as a checkpoint was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from vizcnn.errors import WeightsError
from vizcnn.models.checkpoints import read_weights, split_part
from vizcnn.models.fitting import choose_reading

Build = Callable[[int, int], nn.Module]
"""Makes a network for a number of classes and a number of input channels."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built for any number of classes and of input channels.

    variants: what builds it. More than one where networks of this name differ in their parts: the first that a
        checkpoint fits is taken.
    classes, channels: the numbers where the weights do not say otherwise.
    """

    variants: Sequence[Build]
    classes: int = 1000
    channels: int = 3


@dataclass(frozen=True)
class Filled:
    """A network with the weights of a checkpoint. notes: a line on what was taken, inferred and left out, if any."""

    network: nn.Module
    classes: int
    channels: int
    notes: tuple[str, ...]


def build_filled(architecture: Architecture, file: str | Path, spec: str, *, trust_pickle: bool = False) -> Filled:
    """Build a network with the weights of a checkpoint, for the classes and input channels that it was trained with.

    Both numbers are inferred from the shapes of the weights that depend on them. What does not fit is found out on
    networks whose weights take no memory, before any is asked for.

    file: a checkpoint, or FILE#PART where several sets of weights in it fit. spec: the model's name, for messages.
    Raises WeightsError.
    """
    path, part = split_part(str(file))
    states = read_weights(path, trust_pickle=trust_pickle)
    problem = WeightsError(f"{spec}: there is nothing to build")
    for build in architecture.variants:
        outlines = _Outlines(build, architecture)
        try:
            choice = choose_reading(states, outlines.fit, part, path, spec)
            choice.reading.fill(choice.reading.network, spec, assign=True)
        except WeightsError as error:
            problem = error
            continue
        classes, channels = outlines.infer(choice.reading.tensors)
        network = build(classes, channels)
        left = choice.reading.fill(network, spec)
        inferred = [_count(classes, "class", "es")] * (classes != architecture.classes)
        inferred += [_count(channels, "input channel", "s")] * (channels != architecture.channels)
        return Filled(network, classes, channels, choice.describe(left, spec, inferred))
    raise problem


class _Outlines:
    """Networks of one architecture without memory for their weights, each built once."""

    def __init__(self, build: Build, usual: Architecture) -> None:
        self._build = cache(lambda classes, channels: _build_outline(build, classes, channels))
        self._usual = usual.classes, usual.channels

    def fit(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The network that tensors with its names belong to."""
        return self._build(*self.infer(tensors))

    def infer(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """The numbers of classes and of input channels of the network that tensors with its names belong to."""
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        numbers = list(self._usual)
        for i in range(len(numbers)):
            here = _read_shapes(self._build(*numbers))
            if all(shapes.get(name, shape) == shape for name, shape in here.items()):
                break
            one_more = [number + (i == j) for j, number in enumerate(numbers)]
            numbers[i] = max(1, numbers[i] + _count_steps(shapes, here, _read_shapes(self._build(*one_more))))
        return numbers[0], numbers[1]


_Shapes = Mapping[str, tuple[int, ...]]


def _count_steps(shapes: _Shapes, here: _Shapes, one_more: _Shapes) -> int:
    """By how much a number exceeds that of the network with the shapes `here`, if all sizes that depend on it agree;
    otherwise 0. one_more: the shapes for the next number.

    Such a size is a + b * number, so that a step from a to a + b is one more of what is counted."""
    steps = set()
    for name in shapes.keys() & here.keys() & one_more.keys():
        sizes = list(zip(shapes[name], here[name], one_more[name], strict=False))
        changing = [(size, a, b) for size, a, b in sizes if a != b]
        same = [size == a for size, a, b in sizes if a == b]
        if changing and not (all(same) and len(sizes) == len(shapes[name]) == len(here[name])):
            return 0
        steps |= {(size - a) / (b - a) for size, a, b in changing}
    step = steps.pop() if len(steps) == 1 else 0
    return int(step) if step == int(step) else 0


def _read_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _build_outline(build: Build, classes: int, channels: int) -> nn.Module:
    """A network without memory for its weights; with it, where the network computes while it is built."""
    try:
        with torch.device("meta"):
            return build(classes, channels)
    except (NotImplementedError, RuntimeError):  # such as RegNets
        return build(classes, channels)


def _count(number: int, what: str, plural: str) -> str:
    return f"{number} {what}{plural if number != 1 else ''}"

"""Readings: what is read of a network by name: a layer's output, or `relu(layer)`, that output behind an activation.

Many networks use one ReLU module several times, or a function in place of a module. What such an activation gives at
its first call is no layer's output, but it is the ReLU of one."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

OUTPUT_NAME = "output"
"""What the network's own output is called among readings."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "sigmoid": functional.sigmoid,
    "tanh": functional.tanh,
}
"""By the name that a reading gives them, each without options."""

_READING = re.compile(rf"(?P<activation>{'|'.join(ACTIVATIONS)})\((?P<layer>.+)\)")


def split_reading(name: str) -> tuple[str, str]:
    """The activation and the layer of a reading: ("relu", "bn1") for `relu(bn1)`, ("", "bn1") for `bn1`."""
    found = _READING.fullmatch(name)
    return (found["activation"], found["layer"]) if found else ("", name)


def finish_reading(name: str, output: Tensor) -> Tensor:
    """What a reading gives, from its layer's output."""
    activation, _ = split_reading(name)
    return ACTIVATIONS[activation](output) if activation else output

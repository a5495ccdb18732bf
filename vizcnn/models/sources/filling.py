"""Filling an architecture of a library with the weights of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vizcnn.models.checkpoints import CHECKPOINTS, load_state, read_weights

Build = Callable[[int | None, Mapping[str, Tensor]], nn.Module]
"""Makes an architecture for a number of classes (its usual one for None) and the weights that are to fill it."""


def fill(build: Build, file: str, spec: str, classes: int | None) -> tuple[nn.Module, int]:
    """The architecture with the weights of a file, and its number of classes.

    classes: where that is known already; otherwise it is read off the weights. Raises WeightsError."""
    state = read_weights(file)
    if classes is None:
        last = list(_build_outline(build, None, state).state_dict())[-1]  # the bias of the output, or its weights
        values = state.get(last)
        classes = len(values) if values is not None and values.dim() in (1, 2) and len(values) else 1000
    load_state(state, _build_outline(build, classes, state), spec, assign=True)  # a misfit is found without memory
    network = build(classes, state)
    load_state(state, network, spec)
    return network, classes


def is_file(tag: str) -> bool:
    """Whether what follows the @ is a file of weights."""
    return Path(tag).suffix in CHECKPOINTS or "/" in tag or os.sep in tag


def _build_outline(build: Build, classes: int | None, state: Mapping[str, Tensor]) -> nn.Module:
    """The architecture without memory for its weights; with it, where the network computes while it is built."""
    try:
        with torch.device("meta"):
            return build(classes, state)
    except (NotImplementedError, RuntimeError):  # such as RegNets
        return build(classes, state)

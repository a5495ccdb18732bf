"""Batches of an ascent: which pictures are optimised together, and how many of them fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vizcnn.ascent.checks import choose_layout
from vizcnn.ascent.objective import Objective
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.memory import SavedBytes, find_free_memory
from vizcnn.models.model import Model

_SHARE = 0.5  # of the free memory that pictures may take
_BESIDE = 1.5  # times what is held for the backward pass: gradients on their way, and what the network makes in passing
_PER_PIXEL = 128  # bytes of a picture's number: parameters, moments, gradients, noise, where it is sampled
_MOST = 16  # on a processor 32 are no faster
_MOST_PIXELS = 64 * 224 * 224  # on a device, where launching takes most of the time of small batches
_UNKNOWN = 16  # where nobody says how much memory there is


@dataclass(frozen=True)
class Group:
    """Objectives that end at the same layers.

    targets: of each target the indices of its copies, which are always optimised together. layout: how pictures lie in
    memory."""

    targets: tuple[tuple[int, ...], ...]
    layout: torch.memory_format

    @property
    def indices(self) -> list[int]:
        return [i for copies in self.targets for i in copies]


def group_objectives(model: Model, objectives: Sequence[Objective], size: tuple[int, int]) -> list[Group]:
    """The objectives in groups. Raises TargetError and ShapeError before anything is optimised, see `choose_layout`."""
    found: dict[frozenset[str], dict[tuple[object, ...], list[int]]] = {}
    for i, objective in enumerate(objectives):
        found.setdefault(objective.target.layers, {}).setdefault(objective.group, []).append(i)
    groups = []
    for targets in found.values():
        chosen = [objectives[i] for copies in targets.values() for i in copies]
        groups.append(Group(tuple(map(tuple, targets.values())), choose_layout(model, chosen, size)))
    return groups


def choose_batch(model: Model, group: Group, objective: Objective, size: tuple[int, int]) -> int:
    """How many pictures of a group to optimise together, by the memory that is free and what a run for one of them
    holds. objective: one of the group's."""
    if len(group.targets) == 1:
        return 1
    free = find_free_memory(model.device)
    most = _MOST if model.device.type == "cpu" else max(_MOST, _MOST_PIXELS // (size[0] * size[1]))
    if free is None:
        return min(most, _UNKNOWN)
    layout = torch.contiguous_format if model.one_at_a_time else group.layout  # that of each image alone
    picture = model.grey(size).contiguous(memory_format=layout).requires_grad_()
    with torch.inference_mode(False), torch.enable_grad(), open_reader(model, objective.target.layers) as read:
        with torch.no_grad():
            read(picture)  # which finds out about the layers
        with SavedBytes(model.network) as saved:
            objective.target(read(picture))
    each = _BESIDE * saved.count + _PER_PIXEL * picture.numel()
    return max(1, min(most, int(_SHARE * free / each)))

"""Receptive fields by arithmetic: the bounds of every tensor, followed through a run of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vizcnn.models.layers.axes import find_layers
from vizcnn.models.layers.dryrun import (
    MetaMode,
    copy_for_dry_run,
    find_tensors,
    follow_run,
    name_arguments,
    try_copy_for_dry_run,
)
from vizcnn.models.layers.expanded import overwrite
from vizcnn.models.model import Model
from vizcnn.receptive.bounds import Bounds, least, of_input, of_nothing
from vizcnn.receptive.call import Call, Unknown
from vizcnn.receptive.field import ReceptiveField, Rows
from vizcnn.receptive.rules import rule_for

Fields = dict[str, ReceptiveField | None]


def traced(model: Model, size: tuple[int, int]) -> Fields:
    """The fields of all layers that give maps, in the order of the last runs; None behind an operation without a rule.

    A network that needs to see numbers while it runs is followed where noise takes it. Raises whatever the network
    raises for an input of this size."""
    noise = torch.rand(1, model.input.channels, *size, generator=torch.Generator().manual_seed(0))
    images = noise.to(model.device, model.dtype)  # (1, C, H, W)
    try:
        found = _followed(copy_for_dry_run(model), images.to("meta"))
    except Exception:  # whatever stops a run without numbers; errors of the network itself come again
        found = _followed(try_copy_for_dry_run(model), images)
    layers = find_layers(model, images)
    maps = {name: layers[name].axes for name in found if name in layers and layers[name].axes.places == 2}
    return {name: _field(bounds, maps[name].order) for name, bounds in found.items() if name in maps}


def _followed(model: Model, images: Tensor) -> dict[str, Bounds | None]:
    """The bounds of every layer's output for one image; None where they are not known."""
    follower, found = _Follower(images), dict[str, Bounds | None]()

    def see(name: str, output: Any) -> None:
        found.pop(name, None)  # a module that runs again moves to its last place
        if isinstance(output, Tensor) and output.dim() == 4:
            found[name] = follower.bounds(output)

    with follow_run(model, see, follower):
        model(images)
    return found


class _Follower(MetaMode):
    """Knows the bounds of every tensor that the input led to; None where an operation without a rule came before."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.known = WeakTensorKeyDictionary()
        self.known[images] = of_input(images.shape)

    def bounds(self, tensor: Tensor) -> Bounds | None:
        found: Bounds | None = self.known[tensor] if tensor in self.known else of_nothing(tensor.shape)
        return found

    def look(self, tensor: Tensor) -> Bounds:
        if (found := self.bounds(tensor)) is None:
            raise Unknown
        return found

    def compute(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        inputs = find_tensors(args, kwargs)
        follows = any(t in self.known for t in inputs)
        out = super().compute(func, args, kwargs)
        if outputs := find_tensors(out):
            if follows:
                self._follow(func, name_arguments(func, args, kwargs), outputs)
            elif not inputs:  # what is made of nothing may be filled later
                self.known |= {output: of_nothing(output.shape) for output in outputs}
        return out

    def _follow(self, func: Any, args: dict[str, Any], outputs: list[Tensor]) -> None:
        try:
            found: Any = rule_for(func)(Call(func, args, tuple(outputs[0].shape), self.look))
        except Unknown:
            found = [None] * len(outputs)
        if isinstance(found, Bounds):  # side outputs (the indices of a maximum) share them where they share the shape
            found = [found if output.shape == outputs[0].shape else None for output in outputs]
        for output, bounds in zip(outputs, found, strict=False):
            if func._schema.is_mutable and bounds is not self.known.get(output):
                self._share(output, bounds)
            self.known[output] = bounds

    def _share(self, part: Tensor, new: Bounds | None) -> None:
        """Other tensors that have memory in common with a changed one have changed with it."""
        memory = part.untyped_storage()._cdata
        for whole, old in [*self.known.items()]:
            if whole is not part and whole.untyped_storage()._cdata == memory:
                self.known[whole] = old and new and _overwritten(old, whole, new, part)


def _overwritten(old: Bounds, whole: Tensor, new: Bounds, part: Tensor) -> Bounds:
    edges = (overwrite(o, whole, n, part) for o, n in zip(old.edges, new.edges, strict=True))
    return Bounds(tuple(edges), (max(old.step[0], new.step[0]), max(old.step[1], new.step[1])))


def _field(bounds: Bounds | None, order: Sequence[int]) -> ReceptiveField | None:
    """order: of the axes, so that they are (N, C, h, w)."""
    if bounds is None:
        return None
    bounds = bounds.changed(lambda edge: edge.permute(*order))
    rows = [_line(bounds.edges[i], 2) for i in (0, 2, 4, 6)]
    columns = [_line(bounds.edges[i], 3) for i in (1, 3, 5, 7)]
    down, across = _repeats(rows[2], -rows[3], bounds.step[0]), _repeats(columns[2], -columns[3], bounds.step[1])
    size, stride, offset = (down[0], across[0]), (down[1], across[1]), (down[2], across[2])
    edges = (_whole(rows[0]), -_whole(rows[1]), _whole(columns[0]), -_whole(columns[1]))
    return ReceptiveField(*edges, size, stride, offset)


def _line(edge: Tensor, axis: int) -> npt.NDArray[np.float64]:
    """The least value at each place along an axis of (1, C, h, w)."""
    return least(edge, [d for d in range(4) if d != axis]).flatten().double().numpy()


def _whole(line: npt.NDArray[np.float64]) -> Rows:
    """In px; what sees nothing is from 0 to 0."""
    return np.where(np.isinf(line), 0, line).astype(np.int64)


def _repeats(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], step: float) -> tuple[int, float, float]:
    """Size, stride and offset of fields along one axis, read off the middle unit; all 0 for those that see nothing."""
    middle = len(low) // 2
    if np.isinf(low[middle]):
        return 0, 0.0, 0.0
    apart = np.diff(low[np.isfinite(low)])
    stride = (
        float(np.median(apart)) if len(apart) else 0.0
    ) or step  # all units of a layer behind global pooling see the same; their nominal stride stays
    return round(high[middle] - low[middle]), stride, float(low[middle]) - stride * middle

"""Receptive fields by arithmetic: the bounds of every tensor, followed through a dry run of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vizcnn.dryrun import OnMeta, by_name, tensors_in, twin, watched
from vizcnn.model import Model
from vizcnn.receptive.bounds import Bounds, compact, least, of_input, of_nothing
from vizcnn.receptive.call import Call, Unknown
from vizcnn.receptive.field import ReceptiveField, Rows
from vizcnn.receptive.rules import rule_for

Fields = dict[str, ReceptiveField]


def traced(model: Model, size: tuple[int, int]) -> Fields:
    """The fields of all layers with space. Raises Unknown for an operation without a rule, and whatever a network
    raises that needs to see numbers while it runs."""
    model = twin(model)
    images = torch.empty(1, model.input.channels, *size, dtype=model.dtype, device="meta")  # (1, C, H, W)
    follower, found = _Follower(images), dict[str, Bounds]()

    def see(name: str, output: Any) -> None:
        found.pop(name, None)  # a module that runs again moves to its last place
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[0] == 1:
            found[name] = follower.look(output)

    with model.borrowed() as network, torch.no_grad(), watched(network, see), follower:
        model(images)
    return {name: _field(bounds) for name, bounds in found.items() if not _channels_last(bounds)}


class _Follower(OnMeta):
    """Knows the bounds of every tensor that the input led to."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.known = WeakTensorKeyDictionary()
        self.known[images] = of_input(images.shape)

    def look(self, tensor: Tensor) -> Bounds:
        if tensor not in self.known:
            return of_nothing(tensor.shape)
        bounds: Bounds | None = self.known[tensor]
        if bounds is None:
            raise Unknown("use of a side output")
        return bounds

    def ran(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        follows = any(t in self.known for t in tensors_in(args, kwargs))
        out = super().ran(func, args, kwargs)
        if follows:
            self._follow(func, by_name(func, args, kwargs), out)
        return out

    def _follow(self, func: Any, args: dict[str, Any], out: Any) -> None:
        outputs = tensors_in(out)
        if not outputs:
            return
        found = rule_for(func)(Call(func, args, tuple(outputs[0].shape), self.look))
        if func._schema.is_mutable and found is not self.known.get(outputs[0]):
            self._refuse_shared(outputs[0])
        self._keep(outputs, found)

    def _keep(self, outputs: list[Tensor], found: Bounds | list[Bounds]) -> None:
        """Side outputs (the indices of a maximum) share the bounds of the first where they share its shape."""
        if isinstance(found, Bounds):
            found = [found if output.shape == outputs[0].shape else None for output in outputs]  # type: ignore[misc]
        for output, bounds in zip(outputs, found, strict=False):
            self.known[output] = bounds

    def _refuse_shared(self, changed: Tensor) -> None:
        """Bounds are kept by tensor, so a change seen through another view of the same memory would be missed."""
        memory = changed.untyped_storage()._cdata
        if any(t is not changed and t.untyped_storage()._cdata == memory for t in self.known):
            raise Unknown("a change of shared memory")


def _field(bounds: Bounds) -> ReceptiveField:
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


def _channels_last(bounds: Bounds) -> bool:
    """Whether the image's columns lie along the axis of rows: (1, H, W, C), as inside some blocks."""
    left = bounds.edges[5]
    return bool(_varies(left, -2) and not _varies(left, -1))


def _varies(edge: Tensor, axis: int) -> bool:
    line = compact(edge).movedim(axis, 0)
    both = line[1:].isfinite() & line[:-1].isfinite()  # places that see nothing say nothing of the order
    return bool((both & (line[1:] != line[:-1])).any())

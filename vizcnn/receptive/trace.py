"""Receptive fields by arithmetic: the bounds of every tensor, traced through a run of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    keep_last,
    name_arguments,
    try_copy_for_dry_run,
)
from vizcnn.models.layers.expanded import overwrite
from vizcnn.models.model import Model
from vizcnn.receptive.bounds import Bounds, bound_input, bound_nothing, take_minimum
from vizcnn.receptive.call import Call, NoRuleError
from vizcnn.receptive.field import ReceptiveField, Rows
from vizcnn.receptive.rules import find_rule

Fields = dict[str, ReceptiveField | None]


def trace_fields(model: Model, size: tuple[int, int]) -> Fields:
    """The receptive fields of all layers that give maps, in the order of their last runs, without any measuring.

    None stands for layers behind an operation that has no rule. A network whose course depends on values is traced in a
    run on noise. Raises whatever the network raises for an input of this size."""
    noise = torch.rand(1, model.input.channels, *size, generator=torch.Generator().manual_seed(0))
    images = noise.to(model.device, model.dtype)  # (1, C, H, W)
    try:
        found = _trace_bounds(copy_for_dry_run(model), images.to("meta"))
    except Exception:  # whatever stops a run without values; errors of the network itself come again
        found = _trace_bounds(try_copy_for_dry_run(model), images)
    layers = find_layers(model, images)
    maps = {name: layers[name].axes for name in found if name in layers and layers[name].axes.places == 2}
    return {name: _make_field(bounds, maps[name].order) for name, bounds in found.items() if name in maps}


def _trace_bounds(model: Model, images: Tensor) -> dict[str, Bounds | None]:
    """The bounds of every layer's output for one image; None behind an operation without a rule."""
    tracer, found = _Tracer(images), dict[str, Bounds | None]()

    def read(_name: str, output: Any) -> Iterator[Bounds | None]:
        if isinstance(output, Tensor) and output.dim() == 4:
            yield tracer.find_bounds(output)

    with follow_run(model, keep_last(found, read), tracer):
        model(images)
    return found


class _Tracer(MetaMode):
    """While the context is open, keeps the bounds of every tensor that is computed from the input.

    They are None behind an operation without a rule."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.traced = WeakTensorKeyDictionary()
        self.traced[images] = bound_input(images.shape)

    def find_bounds(self, tensor: Tensor) -> Bounds | None:
        found: Bounds | None = self.traced[tensor] if tensor in self.traced else bound_nothing(tensor.shape)
        return found

    def look_up(self, tensor: Tensor) -> Bounds:
        if (found := self.find_bounds(tensor)) is None:
            raise NoRuleError
        return found

    def compute(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        inputs = find_tensors(args, kwargs)
        from_input = any(t in self.traced for t in inputs)
        out = super().compute(func, args, kwargs)
        if outputs := find_tensors(out):
            if from_input:
                self._apply_rule(func, name_arguments(func, args, kwargs), outputs)
            elif not inputs:  # a tensor made of nothing may be filled later
                self.traced |= {output: bound_nothing(output.shape) for output in outputs}
        return out

    def _apply_rule(self, func: Any, args: dict[str, Any], outputs: list[Tensor]) -> None:
        try:
            found: Any = find_rule(func)(Call(func, args, tuple(outputs[0].shape), self.look_up))
        except NoRuleError:
            found = [None] * len(outputs)
        if isinstance(found, Bounds):  # side outputs of the same shape (a maximum's indices) have the same
            found = [found if output.shape == outputs[0].shape else None for output in outputs]
        for output, bounds in zip(outputs, found, strict=False):
            if func._schema.is_mutable and bounds is not self.traced.get(output):
                self._change_views(output, bounds)
            self.traced[output] = bounds

    def _change_views(self, part: Tensor, new: Bounds | None) -> None:
        """Change the bounds of other tensors that share memory with a tensor that an operation has written to."""
        memory = part.untyped_storage()._cdata
        for whole, old in [*self.traced.items()]:
            if whole is not part and whole.untyped_storage()._cdata == memory:
                self.traced[whole] = old and new and _overwrite(old, whole, new, part)


def _overwrite(old: Bounds, whole: Tensor, new: Bounds, part: Tensor) -> Bounds:
    edges = (overwrite(o, whole, n, part) for o, n in zip(old.edges, new.edges, strict=True))
    return Bounds(tuple(edges), (max(old.step[0], new.step[0]), max(old.step[1], new.step[1])))


def _make_field(bounds: Bounds | None, order: Sequence[int]) -> ReceptiveField | None:
    """The receptive field of a layer with these bounds. order: of its axes as (N, C, h, w)."""
    if bounds is None:
        return None
    bounds = bounds.map_edges(lambda edge: edge.permute(*order))
    rows = [_reduce_to_line(bounds.edges[i], 2) for i in (0, 2, 4, 6)]
    columns = [_reduce_to_line(bounds.edges[i], 3) for i in (1, 3, 5, 7)]
    down = _find_repeat(rows[2], -rows[3], bounds.step[0])
    across = _find_repeat(columns[2], -columns[3], bounds.step[1])
    size, stride, offset = (down[0], across[0]), (down[1], across[1]), (down[2], across[2])
    edges = (_round_to_px(rows[0]), -_round_to_px(rows[1]), _round_to_px(columns[0]), -_round_to_px(columns[1]))
    return ReceptiveField(*edges, size, stride, offset)


def _reduce_to_line(edge: Tensor, axis: int) -> npt.NDArray[np.float64]:
    """The minimum of an edge (1, C, h, w) at each index along an axis."""
    return take_minimum(edge, [d for d in range(4) if d != axis]).flatten().double().numpy()


def _round_to_px(line: npt.NDArray[np.float64]) -> Rows:
    """An edge in whole px; 0 for units that see nothing."""
    return np.where(np.isinf(line), 0, line).astype(np.int64)


def _find_repeat(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], step: float) -> tuple[int, float, float]:
    """Size, stride and offset along one axis, taken at the middle unit; all 0 if that sees nothing."""
    middle = len(low) // 2
    if np.isinf(low[middle]):
        return 0, 0.0, 0.0
    apart = np.diff(low[np.isfinite(low)])
    # behind global pooling all units see the same, and the stride is the nominal one
    stride = (float(np.median(apart)) if len(apart) else 0.0) or step
    return round(high[middle] - low[middle]), stride, float(low[middle]) - stride * middle

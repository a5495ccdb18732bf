"""Receptive fields by measurement: poison one row or column of the input with NaN and see which units turn NaN.

Exact for what passes NaN on: sums, products, maxima and nearly every activation do. It needs no knowledge of the
network, but one run for every row and column of the input.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy, deepcopy
from math import inf, nan
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.models.layers.axes import Axes, find_layers, to_usual_form
from vizcnn.models.layers.dryrun import PlainMode, copy_for_dry_run, keep_last, watch_layers
from vizcnn.models.model import Model
from vizcnn.progress import bar
from vizcnn.receptive.field import ReceptiveField, Rows

_BATCH_PIXELS = 16 * 224 * 224
_SMOOTH = re.compile(r"aten::_?upsample_bi\w+")
Hits = npt.NDArray[np.bool_]


class TooLongError(Exception):
    """A measurement would take these seconds, more than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def measure_fields(
    model: Model,
    size: tuple[int, int],
    layers: Collection[str] | None = None,
    *,
    seconds: float = inf,
    progress: bool = False,
) -> dict[str, ReceptiveField]:
    """The measured receptive fields of layers that give maps, by default of all.

    Size, stride and offset are those of units whose field the borders do not cut, where there are any. A measurement
    cannot see padding, so a size is at most the input's.

    Raises TooLongError, after a tenth of `seconds`, where the whole would take longer than that.
    """
    all_layers = find_layers(model, model.grey(size))
    maps = {name: layer.axes for name, layer in all_layers.items() if layer.axes.places == 2}
    wanted = {name: axes for name, axes in maps.items() if layers is None or name in layers}
    model = _copy_to_cpu(model)
    without_tiles = torch.backends.nnpack.flags(enabled=False)  # its Winograd tiles spread a NaN to neighbours
    with (
        model.borrowed(),
        without_tiles,
        torch.no_grad(),
        _NanByWeightMode(),
        bar(sum(size), "receptive fields", "run", shown=progress) as shown,
    ):
        done = _count_runs(shown.update, sum(size), seconds)
        rows, columns = (_measure_axis(model, size, axis, wanted, done) for axis in (2, 3))
    return {name: _make_field(rows[name], columns[name]) for name in rows}


def _count_runs(update: Callable[[int], Any], total: int, seconds: float) -> Callable[[int], None]:
    """A function to call with how many more runs are done. It raises TooLongError if all would take too long."""
    started, done = time.monotonic(), 0

    def count(runs: int) -> None:
        nonlocal done
        done += runs
        update(runs)
        spent = time.monotonic() - started
        if spent > seconds / 10 and (needed := spent / done * total) > seconds:
            raise TooLongError(needed)

    return count


class _NanByWeightMode(PlainMode):
    """While the context is open, interpolation passes NaN on only where its weight is not 0, though 0 * NaN is NaN."""

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if not _SMOOTH.fullmatch(func._schema.name):
            return func(*args, **kwargs)
        poisoned = func(args[0].isnan().double(), *args[1:], **kwargs) != 0
        return func(args[0].nan_to_num(), *args[1:], **kwargs).masked_fill(poisoned, nan)


def _copy_to_cpu(model: Model) -> Model:
    """A copy of the model on the CPU in float32, since GPU kernels may mix neighbours (Winograd, FFT)."""
    if model.device.type == "cpu" and model.dtype == torch.float32:
        return copy_for_dry_run(model)
    other = copy(model)
    other.network = deepcopy(model.network).cpu().float()
    return other


def _measure_axis(
    model: Model, size: tuple[int, int], axis: int, wanted: dict[str, Axes], done: Callable[[int], None]
) -> dict[str, Hits]:
    """Per layer, bool (n, units): whether each row (axis 2) or column (axis 3) of the input reaches each row or column
    of units."""
    found: dict[str, list[Tensor]] = {}
    for images in _poison(model.input.channels, size, axis):
        for name, hit in _find_reached(model, images, axis, wanted).items():
            found.setdefault(name, []).append(hit)
        done(len(images))
    return {name: torch.cat(hits).numpy() for name, hits in found.items()}


def _poison(channels: int, size: tuple[int, int], axis: int) -> Iterator[Tensor]:
    """Batches of noise images (B, C, H, W), each with NaN in one row (axis 2) or column (axis 3), in order."""
    n, batch = size[axis - 2], max(1, _BATCH_PIXELS // (size[0] * size[1]))
    clean = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))  # zeros may divide by zero
    for places in torch.arange(n).split(batch):
        images = clean.repeat(len(places), 1, 1, 1)  # (B, C, H, W)
        images.movedim(axis, 1)[torch.arange(len(places)), places] = nan
        yield images


def _find_reached(model: Model, images: Tensor, axis: int, wanted: dict[str, Axes]) -> dict[str, Tensor]:
    """Per layer, bool (B, units): which rows (axis 2) or columns (axis 3) of units hold a NaN."""
    found: dict[str, Tensor] = {}

    def read(name: str, output: Any) -> Iterator[Tensor]:
        if name in wanted and isinstance(output, Tensor):
            values = to_usual_form(output, wanted[name])
            if values.dim() == 4 and len(values) == len(images):
                yield values.isnan().any(1).any(4 - axis)

    with watch_layers(model.network, keep_last(found, read)):
        model(images)
    return found


def _make_field(rows: Hits, columns: Hits) -> ReceptiveField:
    (top, bottom), (left, right) = _find_ends(rows), _find_ends(columns)
    down, across = _find_repeat(top, bottom, len(rows)), _find_repeat(left, right, len(columns))
    size, stride, offset = (down[0], across[0]), (down[1], across[1]), (down[2], across[2])
    return ReceptiveField(top, bottom, left, right, size, stride, offset)


def _find_ends(hits: Hits) -> tuple[Rows, Rows]:
    """For each unit, the first row (or column) that reaches it and the one after the last; 0 and 0 if none does."""
    low, high = hits.argmax(0), len(hits) - hits[::-1].argmax(0)
    return low, np.where(hits.any(0), high, 0)


def _find_repeat(low: Rows, high: Rows, n: int) -> tuple[int, float, float]:
    """Size, stride and offset along one axis, taken at the middle one of the units that the borders do not cut."""
    inner = np.flatnonzero((low > 0) & (high < n))
    stride = float(np.median(np.diff(low[inner]))) if len(inner) > 1 else n / len(low)
    middle = int(inner[len(inner) // 2] if len(inner) else len(low) // 2)
    return int(high[middle] - low[middle]), stride, float(low[middle] - stride * middle)

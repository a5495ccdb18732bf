"""Coordinates: from where in the input the elements of a tensor come, followed through a run of the network.

Each pixel starts with three coordinates: the number of its image, its row and its column. Every operation passes them
on: one that moves elements moves their coordinates, one that adds elements up averages them, one that works element by
element leaves them. So the axis along which an output's row coordinate changes is its axis of rows, wherever the
network has it. An average over all rows has no row coordinate any more; a map that is multiplied by such averages
(squeeze and excitation) keeps its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from math import nan
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vizcnn.models.layers.dryrun import MetaMode, find_tensors, map_tensors, name_arguments
from vizcnn.models.layers.expanded import Shape, compact, overwrite, reshape

Coordinate = Tensor | None
"""A value per element, expanded where it repeats, NaN for elements without one; None if no element has one."""
Coordinates = tuple[Coordinate, ...]
"""The coordinates of the image, the row and the column."""

_NONE: Coordinates = (None, None, None)
_FLAT = 1e-4  # differences below are rounding: coordinates begin between -1 and 1
_FIRST = 0.52  # weight of the first of two inputs; with equal weights x + x.flip(-1) would lose its columns


class Follower(MetaMode):
    """While the context is open, knows the coordinates of every tensor that depends on the images (N, C, H, W)."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.known = WeakTensorKeyDictionary()
        self.known[images] = tuple(_make_line(tuple(images.shape), axis) for axis in (0, 2, 3))

    def find_coordinates(self, tensor: Tensor) -> Coordinates:
        found: Coordinates = self.known.get(tensor, _NONE)
        return found

    def compute(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        inputs = find_tensors(args, kwargs)
        follows = not inputs or any(t in self.known for t in inputs)  # what is made of nothing may be filled later
        out = super().compute(func, args, kwargs)
        if follows and (outputs := find_tensors(out)):
            self._follow(func, name_arguments(func, args, kwargs), outputs)
        return out

    def _follow(self, func: Any, args: dict[str, Any], outputs: list[Tensor]) -> None:
        rule = _find_rule(func)
        found = [_try_rule(rule, _Operation(func, args, outputs, self._make_lookup(i))) for i in range(3)]
        if _takes_maps(func) and outputs[0].dim() == 4 and found[1][0] is None and found[2][0] is None:
            found[1][0], found[2][0] = _make_places(tuple(outputs[0].shape))
        for output, *coordinates in zip(outputs, *found, strict=True):
            if func._schema.is_mutable:
                self._share(output, tuple(coordinates))
            self.known[output] = tuple(coordinates)

    def _make_lookup(self, i: int) -> Callable[[Tensor], Coordinate]:
        return lambda tensor: self.find_coordinates(tensor)[i]

    def _share(self, part: Tensor, new: Coordinates) -> None:
        """Give the new coordinates of a changed tensor also to others that share its memory."""
        if all(a is b for a, b in zip(new, self.find_coordinates(part), strict=True)):
            return
        memory = part.untyped_storage()._cdata
        for whole, old in [*self.known.items()]:
            if whole is not part and whole.untyped_storage()._cdata == memory:
                both = zip((_write_out(o, whole) for o in old), (_write_out(n, part) for n in new), strict=True)
                self.known[whole] = tuple(overwrite(o, whole, n, part) for o, n in both)


def measure_spread(coordinate: Coordinate) -> list[float]:
    """How much a coordinate changes along each axis, as a share of the largest change.

    Empty where it does not change, or where its changes cancel out, as in a map beside its own mirror image."""
    if coordinate is None or _is_flat(coordinate):
        return []
    slim = compact(coordinate)
    axes = [d for d in range(slim.dim()) if slim.shape[d] > 1]
    if len(axes) == 1:
        return [float(d == axes[0]) for d in range(slim.dim())]
    lines = {d: _average(slim, [e for e in axes if e != d]).flatten() for d in axes}
    changes = {d: float(line[line.isfinite()].var(correction=0)) for d, line in lines.items()}
    most = max(changes.values())
    return [changes.get(d, 0.0) / most for d in range(slim.dim())] if most > _FLAT**2 else []


@dataclass(frozen=True)
class _Operation:
    """One operation that has run. look: gives one of the three coordinates of an argument."""

    func: Any
    args: dict[str, Any]
    outputs: list[Tensor]
    look: Callable[[Tensor], Coordinate]

    @property
    def source(self) -> Tensor:
        """The tensor that the operation moves, reduces or slides over."""
        return find_tensors(self.args)[0]

    def repeat_for_outputs(self, first: Coordinate) -> list[Coordinate]:
        """The coordinate of the first output, for each output of its shape, such as a maximum and its index."""
        if first is not None and _is_flat(first):
            first = None
        return [first if output.shape == self.outputs[0].shape else None for output in self.outputs]


_Rule = Callable[[_Operation], list[Coordinate]]

_NEW = re.compile(r"new_\w+|\w+_like|full|zeros|ones|empty|zero|fill")
_VIEW = re.compile(r"view|_unsafe_view|_reshape_alias")
_MOVE = re.compile(r"stack|flip|rot90|roll|repeat|pixel_\w+|im2col|col2im|index_select|gather")
_PAD = re.compile(r"\w+_pad\w*")
_PRODUCT = re.compile(r"mm|bmm|addmm|baddbmm")
_NORM = re.compile(r"\w*batch_norm\w*|native_group_norm")
_WINDOW = re.compile(r"convolution|\w*pool\dd\w*|_?upsample_\w+|grid_sampler_2d|cudnn_grid_sampler|deform_conv2d")


@cache
def _find_rule(func: Any) -> _Rule:
    """The rule by which an ATen operation passes coordinates on, by the kind of operation."""
    name = func._schema.name.rpartition("::")[2].rstrip("_")
    if _NEW.fullmatch(name):
        return _forget
    if name == "copy":
        return _copy
    if _VIEW.fullmatch(name):
        return _view
    if name in ("view_as_real", "view_as_complex"):
        return _split_complex
    if (func.is_view and name != "as_strided") or _MOVE.fullmatch(name):
        return _move
    if name == "cat":
        return _concatenate
    if _PAD.fullmatch(name):
        return _pad
    if _PRODUCT.fullmatch(name):
        return _multiply
    if _WINDOW.fullmatch(name):
        return _slide
    return _reduce if any(a.name == "keepdim" for a in func._schema.arguments) else _keep


@cache
def _takes_maps(func: Any) -> bool:
    """Whether an operation takes (N, C, H, W) and nothing else that has four axes."""
    return _find_rule(func) is _slide or _NORM.fullmatch(func._schema.name.rpartition("::")[2]) is not None


def _try_rule(rule: _Rule, run: _Operation) -> list[Coordinate]:
    """The coordinates of the outputs by a rule; none where the rule fails or its shapes are not the outputs'."""
    try:
        found = rule(run)
    except Exception:
        return _forget(run)
    fit = all(f is None or f.shape == o.shape for f, o in zip(found, run.outputs, strict=True))
    return found if fit else _forget(run)


def _forget(run: _Operation) -> list[Coordinate]:
    return [None] * len(run.outputs)


def _copy(run: _Operation) -> list[Coordinate]:
    source = run.look(run.args["src"])
    return [None if source is None else source.expand(run.outputs[0].shape)]


def _view(run: _Operation) -> list[Coordinate]:
    before = run.look(run.source)
    return [None if before is None else reshape(before, run.outputs[0].shape)]


def _split_complex(run: _Operation) -> list[Coordinate]:
    """Complex numbers become pairs of real ones along a new last axis, or the other way round."""
    before, shape = run.look(run.source), run.outputs[0].shape
    if before is None:
        return [None]
    return [
        before[..., None].expand(shape) if len(shape) > before.dim() else _average(before, [-1])[..., 0].expand(shape)
    ]


def _move(run: _Operation) -> list[Coordinate]:
    """Elements are moved: the same operation moves their coordinates."""
    name = "tensors" if "tensors" in run.args else next(iter(run.args))
    tensors = find_tensors(run.args[name])
    parts, others = [run.look(t) for t in tensors], find_tensors({k: v for k, v in run.args.items() if k != name})
    if all(part is None for part in parts):
        return [None] * len(run.outputs)
    if any(t.is_meta for t in others):  # then it is not known which elements of an axis are taken
        ((part,), axis) = parts, run.args["dim"]
        return run.repeat_for_outputs(None if part is None else _average(part, [axis]).expand(run.outputs[0].shape))
    repeated = [] if others else _find_untouched_axes(run, parts)
    slim = {id(t): compact(_write_out(p, t), repeated) for t, p in zip(tensors, parts, strict=True)}
    args = {**run.args, name: map_tensors(run.args[name], lambda t: slim[id(t)])}
    found = find_tensors(run.func(**args))
    return [each.expand(output.shape) for each, output in zip(found, run.outputs, strict=True)]


def _find_untouched_axes(run: _Operation, parts: Sequence[Coordinate]) -> list[int]:
    """The axes that an operation does not work along and along which the coordinates of all its inputs repeat."""
    axes, touched = run.outputs[0].dim(), run.args.get("dims", run.args.get("dim"))
    if run.func.is_view or touched is None or any(part is not None and part.dim() != axes for part in parts):
        return []
    touched = {d % axes for d in ([touched] if isinstance(touched, int) else touched)}
    others = [d for d in range(axes) if d not in touched]
    return [d for d in others if all(part is None or part.stride(d) == 0 for part in parts)]


def _pad(run: _Operation) -> list[Coordinate]:
    """Padding gets the coordinates of the border beside it, so that they still rise from one end to the other."""
    before, pads = run.look(run.source), run.args["pad" if "pad" in run.args else "padding"]
    if before is None:
        return [None]
    for axis, low, high in zip(range(-1, -before.dim() - 1, -1), pads[::2], pads[1::2], strict=False):
        n = before.shape[axis]
        before = _pick(before, axis, torch.arange(-low, n + high).clamp(0, n - 1))
    return [before.expand(run.outputs[0].shape)]


def _concatenate(run: _Operation) -> list[Coordinate]:
    """Concatenation. The frequent case comes first: maps of the same places, joined along their channels."""
    parts = [run.look(t) for t in find_tensors(run.args)]
    slim = [compact(part) for part in parts if part is not None]
    axis = run.args["dim"]
    if len(slim) == len(parts) and slim[0].shape[axis] == 1 and all(torch.equal(slim[0], each) for each in slim[1:]):
        return [slim[0].expand(run.outputs[0].shape)]
    return _move(run)


def _reduce(run: _Operation) -> list[Coordinate]:
    """A mean, sum, maximum or norm along axes."""
    before, dims = run.look(run.source), run.args.get("dim")
    if before is None or run.outputs[0].numel() == 1:
        return [None] * len(run.outputs)
    dims = [dims] if isinstance(dims, int) else [*(dims or range(before.dim()))]
    return run.repeat_for_outputs(reshape(_average(before, dims), run.outputs[0].shape))


def _multiply(run: _Operation) -> list[Coordinate]:
    """A matrix product, with or without a bias: rows of one matrix meet columns of the other."""
    *bias, a, b = [value for value in run.args.values() if isinstance(value, Tensor)]
    sides = ((run.look(a), -1), (run.look(b), -2))
    parts = [_average(side, [axis]) for side, axis in sides if side is not None]
    parts += [part for part in map(run.look, bias) if part is not None]
    return run.repeat_for_outputs(_join([p for p in parts if not _is_flat(p)], run.outputs[0].shape))


def _slide(run: _Operation) -> list[Coordinate]:
    """Windows slide over the last axes: the results lie in the same order, with other distances."""
    before, shape = run.look(run.source), tuple(run.outputs[0].shape)
    if before is None:
        return [None] * len(run.outputs)
    weight = run.args.get("weight")
    if isinstance(weight, Tensor):
        before = _average(before, [1])  # all channels, or those of a group, become one
    for axis in range(2 - weight.dim() if isinstance(weight, Tensor) else -2, 0):
        before = _space_evenly(before, axis, shape[axis])
    return run.repeat_for_outputs(before.expand(shape))


def _keep(run: _Operation) -> list[Coordinate]:
    """An operation element by element, with broadcasting, or one that keeps its axes: a normalisation, a GLU."""
    parts = [part for part in map(run.look, find_tensors(run.args)) if part is not None]
    return [_join([p for p in parts if _fits(compact(p).shape, o.shape)], o.shape) for o in run.outputs]


def _fits(shape: Shape, other: Shape) -> bool:
    """Whether a tensor of one shape can be expanded to another."""
    lengths = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(n in (1, m) for n, m in lengths)


def _make_line(shape: Shape, axis: int) -> Coordinate:
    """A coordinate from -1 to 1 along an axis of a tensor of this shape; None where the axis has length 1."""
    n = shape[axis]
    if n == 1:
        return None
    lengths = [n if d == axis % len(shape) else 1 for d in range(len(shape))]
    return torch.linspace(-1, 1, n).view(lengths).expand(tuple(shape))


def _make_places(shape: Shape) -> tuple[Coordinate, Coordinate]:
    """New row and column coordinates of a map (N, C, H, W) that has none, as after a dense layer and a reshape."""
    rows, columns = _make_line(shape, 2), _make_line(shape, 3)
    return (rows, columns) if rows is not None and columns is not None else (None, None)


def _join(parts: Sequence[Tensor], shape: Shape) -> Coordinate:
    """The coordinate of a result that several inputs make up: their weighted mean, over those that have one."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0].shape == shape:
        return parts[0]
    return reduce(_merge, map(compact, parts)).expand(tuple(shape))


def _merge(a: Tensor, b: Tensor) -> Tensor:
    joined = _FIRST * a + (1 - _FIRST) * b
    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, joined))


def _average(coordinate: Tensor, dims: Sequence[int]) -> Tensor:
    """The mean along some axes, which are kept with length 1."""
    slim = compact(coordinate, [*dims])
    open_ = [d for d in dims if slim.shape[d] > 1]
    return slim.nanmean(open_, keepdim=True) if open_ else slim


def _space_evenly(coordinate: Tensor, axis: int, count: int) -> Tensor:
    """A coordinate with `count` places along an axis, spaced evenly from the first to the last."""
    n = coordinate.shape[axis]
    return coordinate if n == count else _pick(coordinate, axis, ((torch.arange(count) + 0.5) * n / count).long())


def _pick(coordinate: Tensor, axis: int, places: Tensor) -> Tensor:
    """A coordinate at these places of an axis; where it repeats along the axis, the axis has length 1."""
    slim = compact(coordinate)
    return slim if slim.shape[axis] == 1 else slim.index_select(axis, places)


def _is_flat(coordinate: Tensor) -> bool:
    """Whether a coordinate is the same for all elements, up to rounding."""
    values = compact(coordinate)
    if values.numel() < 2:
        return True
    low, high = values.aminmax()
    if low.isnan():  # somewhere in between
        finite = values[values.isfinite()]
        return len(finite) < 2 or bool(finite.max() - finite.min() < _FLAT)
    return float(high - low) < _FLAT


def _write_out(coordinate: Coordinate, tensor: Tensor) -> Tensor:
    """A coordinate as a tensor, NaN where there is none."""
    return torch.tensor(nan).expand(tensor.shape) if coordinate is None else coordinate

"""Coordinates: from where in the input the elements of a tensor come, followed through a run of the network.

Each pixel starts with three coordinates: the number of its image, its row and its column. Every operation hands them
on: what moves elements moves their coordinates, what adds elements up averages them, what treats all elements alike
leaves them. So the axis along which an output's row coordinate changes is its axis of rows, wherever the network has
put it. What is averaged over all rows has no row coordinate any more; a map that is weighed by such numbers (squeeze
and excitation) keeps its own.
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

from vizcnn.models.layers.dryrun import OnMeta, by_name, tensors_in, with_tensors
from vizcnn.models.layers.expanded import Shape, compact, overwritten, reshaped

Coordinate = Tensor | None
"""A number per element, expanded where it repeats, NaN for elements that have none; None where no element has one."""
Coordinates = tuple[Coordinate, ...]
"""Of the image, the row, the column."""

_NONE: Coordinates = (None, None, None)
_FLAT = 1e-4  # differences below are rounding: coordinates begin between -1 and 1
_FIRST = 0.52  # weight of the first of two parts; with equal weights x + x.flip(-1) would lose its columns


class Follower(OnMeta):
    """While the context is open, knows the coordinates of every tensor that the images (N, C, H, W) lead to."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.known = WeakTensorKeyDictionary()
        self.known[images] = tuple(_line(tuple(images.shape), axis) for axis in (0, 2, 3))

    def coordinates(self, tensor: Tensor) -> Coordinates:
        found: Coordinates = self.known.get(tensor, _NONE)
        return found

    def ran(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        inputs = tensors_in(args, kwargs)
        follows = not inputs or any(t in self.known for t in inputs)  # what is made of nothing may be filled later
        out = super().ran(func, args, kwargs)
        if follows and (outputs := tensors_in(out)):
            self._follow(func, by_name(func, args, kwargs), outputs)
        return out

    def _follow(self, func: Any, args: dict[str, Any], outputs: list[Tensor]) -> None:
        hand_on = _kind(func)
        found = [_tried(hand_on, _Operation(func, args, outputs, self._looker(i))) for i in range(3)]
        if _takes_maps(func) and outputs[0].dim() == 4 and found[1][0] is None and found[2][0] is None:
            found[1][0], found[2][0] = _places(tuple(outputs[0].shape))
        for output, *coordinates in zip(outputs, *found, strict=True):
            if func._schema.is_mutable:
                self._share(output, tuple(coordinates))
            self.known[output] = tuple(coordinates)

    def _looker(self, i: int) -> Callable[[Tensor], Coordinate]:
        return lambda tensor: self.coordinates(tensor)[i]

    def _share(self, part: Tensor, new: Coordinates) -> None:
        """Other tensors that have memory in common with a changed one have changed with it."""
        if all(a is b for a, b in zip(new, self.coordinates(part), strict=True)):
            return
        memory = part.untyped_storage()._cdata
        for whole, old in [*self.known.items()]:
            if whole is not part and whole.untyped_storage()._cdata == memory:
                both = zip((_written(o, whole) for o in old), (_written(n, part) for n in new), strict=True)
                self.known[whole] = tuple(overwritten(o, whole, n, part) for o, n in both)


def spread(coordinate: Coordinate) -> list[float]:
    """How much a coordinate changes along each axis, as a share of the most; nothing where it never changes, or where
    its changes cancel out, as in a map beside its own mirror image."""
    if coordinate is None or _is_flat(coordinate):
        return []
    slim = compact(coordinate)
    axes = [d for d in range(slim.dim()) if slim.shape[d] > 1]
    if len(axes) == 1:
        return [float(d == axes[0]) for d in range(slim.dim())]
    lines = {d: _mean(slim, [e for e in axes if e != d]).flatten() for d in axes}
    changes = {d: float(line[line.isfinite()].var(correction=0)) for d, line in lines.items()}
    most = max(changes.values())
    return [changes.get(d, 0.0) / most for d in range(slim.dim())] if most > _FLAT**2 else []


@dataclass(frozen=True)
class _Operation:
    """One operation that was run, and where to look up one of the coordinates of its arguments."""

    func: Any
    args: dict[str, Any]
    outputs: list[Tensor]
    look: Callable[[Tensor], Coordinate]

    @property
    def source(self) -> Tensor:
        """The tensor that is moved, reduced or looked at through windows."""
        return tensors_in(self.args)[0]

    def all_outputs(self, first: Coordinate) -> list[Coordinate]:
        """The same for every output that has the shape of the first, such as a maximum and its index."""
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
def _kind(func: Any) -> _Rule:
    """The rule of an ATen operation, by what kind of operation it is."""
    name = func._schema.name.rpartition("::")[2].rstrip("_")
    if _NEW.fullmatch(name):
        return _new
    if name == "copy":
        return _copied
    if _VIEW.fullmatch(name):
        return _viewed
    if name in ("view_as_real", "view_as_complex"):
        return _in_parts
    if (func.is_view and name != "as_strided") or _MOVE.fullmatch(name):
        return _moved
    if name == "cat":
        return _lined_up
    if _PAD.fullmatch(name):
        return _padded
    if _PRODUCT.fullmatch(name):
        return _multiplied
    if _WINDOW.fullmatch(name):
        return _slid
    return _reduced if any(a.name == "keepdim" for a in func._schema.arguments) else _kept


@cache
def _takes_maps(func: Any) -> bool:
    """Whether an operation takes (N, C, H, W) and nothing else that has four axes."""
    return _kind(func) is _slid or _NORM.fullmatch(func._schema.name.rpartition("::")[2]) is not None


def _tried(hand_on: _Rule, run: _Operation) -> list[Coordinate]:
    """Nothing is known behind an operation that does to coordinates what it should not, or that refuses them."""
    try:
        found = hand_on(run)
    except Exception:
        return _new(run)
    fit = all(f is None or f.shape == o.shape for f, o in zip(found, run.outputs, strict=True))
    return found if fit else _new(run)


def _new(run: _Operation) -> list[Coordinate]:
    return [None] * len(run.outputs)


def _copied(run: _Operation) -> list[Coordinate]:
    source = run.look(run.args["src"])
    return [None if source is None else source.expand(run.outputs[0].shape)]


def _viewed(run: _Operation) -> list[Coordinate]:
    before = run.look(run.source)
    return [None if before is None else reshaped(before, run.outputs[0].shape)]


def _in_parts(run: _Operation) -> list[Coordinate]:
    """Complex numbers become pairs of real ones, along an axis of their own, or the other way round."""
    before, shape = run.look(run.source), run.outputs[0].shape
    if before is None:
        return [None]
    return [before[..., None].expand(shape) if len(shape) > before.dim() else _mean(before, [-1])[..., 0].expand(shape)]


def _moved(run: _Operation) -> list[Coordinate]:
    """Elements change places: the same operation moves the coordinates."""
    name = "tensors" if "tensors" in run.args else next(iter(run.args))
    tensors = tensors_in(run.args[name])
    parts, others = [run.look(t) for t in tensors], tensors_in({k: v for k, v in run.args.items() if k != name})
    if all(part is None for part in parts):
        return [None] * len(run.outputs)
    if any(t.is_meta for t in others):  # then it is not known which elements of an axis are taken
        ((part,), axis) = parts, run.args["dim"]
        return run.all_outputs(None if part is None else _mean(part, [axis]).expand(run.outputs[0].shape))
    repeated = [] if others else _untouched(run, parts)
    slim = {id(t): compact(_written(p, t), repeated) for t, p in zip(tensors, parts, strict=True)}
    args = {**run.args, name: with_tensors(run.args[name], lambda t: slim[id(t)])}
    found = tensors_in(run.func(**args))
    return [each.expand(output.shape) for each, output in zip(found, run.outputs, strict=True)]


def _untouched(run: _Operation, parts: Sequence[Coordinate]) -> list[int]:
    """The axes that an operation leaves alone and along which the coordinates of all its tensors repeat."""
    axes, touched = run.outputs[0].dim(), run.args.get("dims", run.args.get("dim"))
    if run.func.is_view or touched is None or any(part is not None and part.dim() != axes for part in parts):
        return []
    touched = {d % axes for d in ([touched] if isinstance(touched, int) else touched)}
    others = [d for d in range(axes) if d not in touched]
    return [d for d in others if all(part is None or part.stride(d) == 0 for part in parts)]


def _padded(run: _Operation) -> list[Coordinate]:
    """Padding gets the coordinates of the border beside it, so that what is left of a map keeps an order."""
    before, pads = run.look(run.source), run.args["pad" if "pad" in run.args else "padding"]
    if before is None:
        return [None]
    for axis, low, high in zip(range(-1, -before.dim() - 1, -1), pads[::2], pads[1::2], strict=False):
        n = before.shape[axis]
        before = _picked(before, axis, torch.arange(-low, n + high).clamp(0, n - 1))
    return [before.expand(run.outputs[0].shape)]


def _lined_up(run: _Operation) -> list[Coordinate]:
    """Maps of the same places are joined along their channels, as networks do often; or whatever else is joined."""
    parts = [run.look(t) for t in tensors_in(run.args)]
    slim = [compact(part) for part in parts if part is not None]
    axis = run.args["dim"]
    if len(slim) == len(parts) and slim[0].shape[axis] == 1 and all(torch.equal(slim[0], each) for each in slim[1:]):
        return [slim[0].expand(run.outputs[0].shape)]
    return _moved(run)


def _reduced(run: _Operation) -> list[Coordinate]:
    """A mean, sum, maximum or norm along axes."""
    before, dims = run.look(run.source), run.args.get("dim")
    if before is None or run.outputs[0].numel() == 1:
        return [None] * len(run.outputs)
    dims = [dims] if isinstance(dims, int) else [*(dims or range(before.dim()))]
    return run.all_outputs(reshaped(_mean(before, dims), run.outputs[0].shape))


def _multiplied(run: _Operation) -> list[Coordinate]:
    """Rows of the one matrix meet columns of the other; a bias is added."""
    *bias, a, b = [value for value in run.args.values() if isinstance(value, Tensor)]
    sides = ((run.look(a), -1), (run.look(b), -2))
    parts = [_mean(side, [axis]) for side, axis in sides if side is not None]
    parts += [part for part in map(run.look, bias) if part is not None]
    return run.all_outputs(_joined([p for p in parts if not _is_flat(p)], run.outputs[0].shape))


def _slid(run: _Operation) -> list[Coordinate]:
    """Windows slide over the last axes: what comes of them lies as before, more or less closely."""
    before, shape = run.look(run.source), tuple(run.outputs[0].shape)
    if before is None:
        return [None] * len(run.outputs)
    weight = run.args.get("weight")
    if isinstance(weight, Tensor):
        before = _mean(before, [1])  # all channels, or those of a group, become one
    for axis in range(2 - weight.dim() if isinstance(weight, Tensor) else -2, 0):
        before = _spaced(before, axis, shape[axis])
    return run.all_outputs(before.expand(shape))


def _kept(run: _Operation) -> list[Coordinate]:
    """Element by element, with broadcasting, or along axes that keep their coordinate: a normalisation, a GLU."""
    parts = [part for part in map(run.look, tensors_in(run.args)) if part is not None]
    return [_joined([p for p in parts if _fits(compact(p).shape, o.shape)], o.shape) for o in run.outputs]


def _fits(shape: Shape, other: Shape) -> bool:
    """Whether a tensor of one shape can be expanded to another."""
    lengths = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(n in (1, m) for n, m in lengths)


def _line(shape: Shape, axis: int) -> Coordinate:
    """From -1 to 1 along an axis of images of this shape; None where that has length 1."""
    n = shape[axis]
    if n == 1:
        return None
    lengths = [n if d == axis % len(shape) else 1 for d in range(len(shape))]
    return torch.linspace(-1, 1, n).view(lengths).expand(tuple(shape))


def _places(shape: Shape) -> tuple[Coordinate, Coordinate]:
    """Of a map without an order, as one that a dense layer made: what takes maps only says what its rows are."""
    rows, columns = _line(shape, 2), _line(shape, 3)
    return (rows, columns) if rows is not None and columns is not None else (None, None)


def _joined(parts: Sequence[Tensor], shape: Shape) -> Coordinate:
    """What several parts come to together, an element that has no coordinate in one of them having the other's."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0].shape == shape:
        return parts[0]
    return reduce(_both, map(compact, parts)).expand(tuple(shape))


def _both(a: Tensor, b: Tensor) -> Tensor:
    joined = _FIRST * a + (1 - _FIRST) * b
    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, joined))


def _mean(coordinate: Tensor, dims: Sequence[int]) -> Tensor:
    """The mean along some axes, which stay with length 1."""
    slim = compact(coordinate, [*dims])
    open_ = [d for d in dims if slim.shape[d] > 1]
    return slim.nanmean(open_, keepdim=True) if open_ else slim


def _spaced(coordinate: Tensor, axis: int, count: int) -> Tensor:
    """So many places along an axis, evenly from first to last."""
    n = coordinate.shape[axis]
    return coordinate if n == count else _picked(coordinate, axis, ((torch.arange(count) + 0.5) * n / count).long())


def _picked(coordinate: Tensor, axis: int, places: Tensor) -> Tensor:
    """Places along an axis; where numbers repeat there, it has length 1."""
    slim = compact(coordinate)
    return slim if slim.shape[axis] == 1 else slim.index_select(axis, places)


def _is_flat(coordinate: Tensor) -> bool:
    numbers = compact(coordinate)
    if numbers.numel() < 2:
        return True
    low, high = numbers.aminmax()
    if low.isnan():  # somewhere in between
        finite = numbers[numbers.isfinite()]
        return len(finite) < 2 or bool(finite.max() - finite.min() < _FLAT)
    return float(high - low) < _FLAT


def _written(coordinate: Coordinate, tensor: Tensor) -> Tensor:
    """A coordinate as a tensor, whether there is one or not."""
    return torch.tensor(nan).expand(tensor.shape) if coordinate is None else coordinate

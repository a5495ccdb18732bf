"""Tape: a network written down as the operations that it does to an image, to be run again on parts of it.

The operations are torch's lowest level (ATen), to which modules, functions and operators all come down. They are
written down in two dry runs, with two and with three images: a number among the arguments that grows with the images
is one per image, and whatever else differs cannot be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from vizcnn.graph.geometry import operation_name
from vizcnn.models.layers.axes import Axes, layer_axes, usual
from vizcnn.models.layers.dryrun import OnMeta, by_name, tensors_in, twin, watched, with_tensors
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT

Shape = tuple[int, ...]


class Untraceable(Exception):  # noqa: N818 - no failure: the plain engine then does the work
    """The network cannot be written down as operations on one image. The text says why."""


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor that depends on the image, by its number on the tape."""

    value: int


@dataclass(frozen=True)
class PerImage:
    """A whole number that grows with the images of a batch: so many for each."""

    each: int


@dataclass(frozen=True)
class Step:
    """One operation: its arguments by name, with Refs for what the image led to, and the numbers of its outputs."""

    func: Any
    args: dict[str, Any]
    outputs: tuple[int, ...]

    @cached_property
    def name(self) -> str:
        """As in ATen's schema, without the underscore of an operation in place."""
        return operation_name(self.func)

    @cached_property
    def inputs(self) -> list[int]:
        return refs_in(self.args)

    @cached_property
    def changes(self) -> int | None:
        """The value that the operation overwrites, if it is one in place."""
        return self.inputs[0] if self.func._schema.is_mutable else None

    def filled(self, value: Callable[[int], Tensor], images: int) -> dict[str, Any]:
        """Arguments for a run of so many images: Refs replaced by tensors, numbers per image multiplied out."""
        return self.args | {name: _filled(self.args[name], value, images) for name in self._open}

    @cached_property
    def _open(self) -> list[str]:
        """The arguments that differ from run to run."""
        holds = {name: tree_flatten(tree)[0] for name, tree in self.args.items()}
        return [name for name, leaves in holds.items() if any(isinstance(leaf, Ref | PerImage) for leaf in leaves)]


def _filled(tree: Any, value: Callable[[int], Tensor], images: int) -> Any:
    if isinstance(tree, list | tuple):
        return [_filled(part, value, images) for part in tree]
    if isinstance(tree, Ref):
        return value(tree.value)
    return tree.each * images if isinstance(tree, PerImage) else tree


@dataclass(frozen=True)
class Tape:
    """The steps from the image, which is value 0, to what is wanted.

    shapes: of each value, without the batch; None for one whose first axis is no batch.
    wanted: for each layer asked for, and OUTPUT, its output: Refs in whatever structure the network returns.
    """

    steps: tuple[Step, ...]
    shapes: dict[int, Shape | None]
    wanted: dict[str, Any]


def refs_in(tree: Any) -> list[int]:
    return [leaf.value for leaf in tree_flatten(tree)[0] if isinstance(leaf, Ref)]


def record(model: Model, size: tuple[int, int], layers: Iterable[str]) -> Tape:
    """Write down the network, for images of height and width `size`, as far as the layers need it.

    Raises Untraceable: for a network that needs to see numbers while it runs, or whose steps depend on the batch."""
    layers = frozenset(layers)
    axes = layer_axes(model, model.grey(size), layers - {OUTPUT})
    try:
        two, three = (_recorded(model, size, layers, axes, images) for images in (2, 3))
    except Untraceable:
        raise
    except Exception as error:  # whatever a network raises when it meets tensors without values
        raise Untraceable(f"a run without numbers fails: {type(error).__name__}: {error}") from error
    return _without_unused(_merged(two, three))


@dataclass
class _Raw:
    images: int
    steps: list[Step]
    shapes: dict[int, Shape]
    wanted: dict[str, Any]


def _recorded(
    model: Model, size: tuple[int, int], layers: frozenset[str], axes: Mapping[str, Axes], images: int
) -> _Raw:
    model = twin(model)
    batch = torch.empty(images, model.input.channels, *size, dtype=model.dtype, device="meta")  # (N, C, H, W)
    recorder = _Recorder(batch, model.device)
    wanted: dict[str, Any] = {}

    def see(name: str, output: Any) -> None:
        if name in layers:
            own = usual(output, axes.get(name)).clone()  # as `capture` does: what is done in place later is not meant
            wanted[name] = recorder.named(own)

    with model.borrowed() as network, torch.no_grad(), watched(network, see), recorder:
        output = model(batch)
    if OUTPUT in layers:
        wanted[OUTPUT] = recorder.named(output)
    if missing := layers - wanted.keys():
        raise Untraceable(f"layer {min(missing)!r} did not run")
    return _Raw(images, recorder.steps, recorder.shapes, wanted)


class _Recorder(OnMeta):
    """Numbers every tensor that the image leads to, and writes down every operation on one."""

    def __init__(self, batch: Tensor, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.known = WeakTensorKeyDictionary()
        self.steps: list[Step] = []
        self.shapes: dict[int, Shape] = {}
        self._number(batch)

    def named(self, tree: Any) -> Any:
        """The same structure with Refs for the tensors that the image led to."""
        return tree_map_only(Tensor, self._named, tree)

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if not self._follows(args, kwargs):
            return super().run_operation(func, args, self._with_numbers(kwargs))
        written = with_tensors(by_name(func, args, kwargs), self._named)
        out = super().run_operation(func, args, kwargs)
        self._write(func, written, tree_flatten(out)[0])
        return out

    def _with_numbers(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A constant that the network makes on the image's device is made where its weights are, to have values."""
        on_meta = kwargs.get("device") == torch.device("meta")
        return {**kwargs, "device": self.device} if on_meta else kwargs

    def _follows(self, *trees: Any) -> bool:
        return any(tensor in self.known for tensor in tensors_in(trees))

    def _write(self, func: Any, args: dict[str, Any], outputs: list[Any]) -> None:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Untraceable(f"random numbers ({func})")
        if not all(isinstance(output, Tensor) for output in outputs):
            return  # a question about shape or type, answered
        if func._schema.is_mutable:
            self._check_change(func, args, outputs)
        self.steps.append(Step(func, args, tuple(self._number(output) for output in outputs)))

    def _check_change(self, func: Any, args: dict[str, Any], outputs: list[Tensor]) -> None:
        """Values are kept by tensor, so a change seen through another view of the same memory would be missed."""
        if len(outputs) != 1 or not isinstance(next(iter(args.values())), Ref):
            raise Untraceable(f"an operation that changes what was there before ({func})")
        memory = outputs[0].untyped_storage()._cdata
        if any(t is not outputs[0] and t.untyped_storage()._cdata == memory for t in self.known):
            raise Untraceable(f"a change in place of shared memory ({func})")

    def _number(self, tensor: Tensor) -> int:
        number = len(self.shapes)
        self.known[tensor] = number
        self.shapes[number] = tuple(tensor.shape)
        return number

    def _named(self, tensor: Tensor) -> Any:
        if tensor in self.known:
            return Ref(self.known[tensor])
        if tensor.is_meta:
            raise Untraceable("a tensor without values among the constants")
        return tensor


def _merged(two: _Raw, three: _Raw) -> Tape:
    """One tape from those of two and of three images."""
    if [step.func for step in two.steps] != [step.func for step in three.steps]:
        raise Untraceable("the network does other things to three images than to two")
    steps = [
        Step(a.func, _generalised(a.args, b.args, (two.images, three.images)), a.outputs)
        for a, b in zip(two.steps, three.steps, strict=True)
    ]
    shapes = {number: _per_image(shape, two.images, three.shapes[number]) for number, shape in two.shapes.items()}
    return Tape(tuple(steps), shapes, two.wanted)


def _per_image(shape: Shape, images: int, other: Shape) -> Shape | None:
    batched = bool(shape) and shape[0] == images and shape[0] != other[0] and shape[1:] == other[1:]
    return shape[1:] if batched else None


def _generalised(first: Any, second: Any, images: tuple[int, int]) -> Any:
    ours, form = tree_flatten(first)
    others, other_form = tree_flatten(second)
    if form != other_form:
        raise Untraceable("arguments change with the batch")
    return tree_unflatten([_either(a, b, images) for a, b in zip(ours, others, strict=True)], form)


def _either(a: Any, b: Any, images: tuple[int, int]) -> Any:
    """One argument that holds for any batch."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if not _equal(a, b):
            raise Untraceable("a constant changes with the batch")
        return a
    if type(a) is int and type(b) is int and a != b:
        if a * images[1] != b * images[0] or a % images[0]:
            raise Untraceable("a number changes with the batch")
        return PerImage(a // images[0])
    if a != b:
        raise Untraceable("an argument changes with the batch")
    return a


def _equal(a: Tensor, b: Tensor) -> bool:
    """Two looks at one memory, such as a large weight transposed, are not compared number by number."""
    if a is b or a.shape != b.shape:
        return a is b
    strided = a.layout == b.layout == torch.strided and a.dtype == b.dtype
    return (strided and a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


def _without_unused(tape: Tape) -> Tape:
    needed, kept = set(refs_in(tape.wanted)), []
    for step in reversed(tape.steps):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(step.inputs)
    return Tape(tuple(reversed(kept)), tape.shapes, tape.wanted)


def last_uses(steps: Sequence[Step], kept: Iterable[int]) -> dict[int, list[int]]:
    """For each step's place the values that nobody reads after it."""
    last, kept = dict[int, int](), frozenset(kept)
    for place, step in enumerate(steps):
        last.update(dict.fromkeys([*step.outputs, *step.inputs], place))
    found: dict[int, list[int]] = {}
    for value, place in last.items():
        if value not in kept:
            found.setdefault(place, []).append(value)
    return found

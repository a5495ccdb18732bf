"""Recording: a network as the graph of operations that it applies to an image, to be run again on parts of it.

The operations are torch's lowest level (ATen), to which modules, functions and operators all come down. They are
recorded in two dry runs, of two images and of three. Arguments that differ between the two depend on the size of the
batch: a whole number that grows with it is stored as so many per image (`PerImage`); for a network in which anything
else differs there is no graph (`Untraceable`).
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

from vizcnn.graph.geometry import name_operation
from vizcnn.models.layers.axes import Axes, find_axes, to_usual_form
from vizcnn.models.layers.dryrun import (
    MetaMode,
    copy_for_dry_run,
    find_tensors,
    map_tensors,
    name_arguments,
    watch_layers,
)
from vizcnn.models.model import Model
from vizcnn.models.outputs import Unsettled, find_output
from vizcnn.models.targets import OUTPUT, RAW, pick_layers
from vizcnn.process import rest_collector

Shape = tuple[int, ...]


class Untraceable(Exception):  # noqa: N818 - no failure: whoever asked goes on without a graph
    """There is no graph of the network as operations on one image. The text says why."""


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor that depends on the image, by its number in the graph."""

    value: int


@dataclass(frozen=True)
class PerImage:
    """A whole number that is a multiple of the images in the batch: `each` times as large."""

    each: int


@dataclass(frozen=True)
class Step:
    """One operation of the graph.

    args: by name, with a Ref in place of each tensor that depends on the image. outputs: the numbers of its outputs."""

    func: Any
    args: dict[str, Any]
    outputs: tuple[int, ...]

    @cached_property
    def name(self) -> str:
        """As in ATen's schema, without the underscore of an operation in place."""
        return name_operation(self.func)

    @cached_property
    def inputs(self) -> list[int]:
        """The numbers of the values that it reads."""
        return find_refs(self.args)

    @cached_property
    def changes(self) -> int | None:
        """The number of the value that an operation in place overwrites; None for any other operation."""
        return self.inputs[0] if self.func._schema.is_mutable else None

    def fill_in(self, value: Callable[[int], Tensor], images: int) -> dict[str, Any]:
        """The arguments for a run of so many images: tensors for Refs, whole numbers for numbers per image.

        value: gives the tensor of a number."""
        return self.args | {name: _fill_in(self.args[name], value, images) for name in self._varying}

    @cached_property
    def _varying(self) -> list[str]:
        """The names of the arguments that differ from run to run."""
        holds = {name: tree_flatten(tree)[0] for name, tree in self.args.items()}
        return [name for name, leaves in holds.items() if any(isinstance(leaf, Ref | PerImage) for leaf in leaves)]


def _fill_in(tree: Any, value: Callable[[int], Tensor], images: int) -> Any:
    if isinstance(tree, list | tuple):
        return [_fill_in(part, value, images) for part in tree]
    if isinstance(tree, Ref):
        return value(tree.value)
    return tree.each * images if isinstance(tree, PerImage) else tree


@dataclass(frozen=True)
class Graph:
    """The operations that lead from the image, which is value 0, to the outputs that were asked for.

    shapes: of each value by its number, without the axis of images; None where the first axis is not that.
    wanted: by layer name, OUTPUT or RAW: that output, with a Ref in place of each tensor, in whatever structure the
        network returns.
    """

    steps: tuple[Step, ...]
    shapes: dict[int, Shape | None]
    wanted: dict[str, Any]


def find_refs(tree: Any) -> list[int]:
    """The numbers of all Refs in nested lists, tuples and dictionaries."""
    return [leaf.value for leaf in tree_flatten(tree)[0] if isinstance(leaf, Ref)]


def record(model: Model, size: tuple[int, int], layers: Iterable[str]) -> Graph:
    """The network's graph for images of height and width `size`, as far as these layers (or OUTPUT, RAW) need it.

    Raises Untraceable for a network that looks at values while it runs, or does other things to a larger batch."""
    layers = frozenset(layers)
    if model.is_black_box or model.one_at_a_time:
        raise Untraceable("it is a black box" if model.is_black_box else "it takes one image at a time")
    axes = find_axes(model, model.grey(size), pick_layers(layers))
    try:
        with rest_collector():
            two, three = (_record_run(model, size, layers, axes, images) for images in (2, 3))
    except Untraceable:
        raise
    except Exception as error:  # whatever a network raises when it meets tensors without values
        raise Untraceable(f"a run without numbers fails: {type(error).__name__}: {error}") from error
    return drop_unused(_merge_runs(two, three))


@dataclass
class _Run:
    """What one dry run has recorded: of so many images, with shapes that include them."""

    images: int
    steps: list[Step]
    shapes: dict[int, Shape]
    wanted: dict[str, Any]


def _record_run(
    model: Model, size: tuple[int, int], layers: frozenset[str], axes: Mapping[str, Axes], images: int
) -> _Run:
    model = copy_for_dry_run(model)
    batch = torch.empty(images, model.input.channels, *size, dtype=model.dtype, device="meta")  # (N, C, H, W)
    recorder = _Recorder(batch, model.device)
    wanted: dict[str, Any] = {}

    def see(name: str, output: Any) -> None:
        own = to_usual_form(
            output, axes.get(name)
        ).clone()  # as `capture` does: what is done in place later is not meant
        wanted[name] = recorder.replace_tensors(own)

    with model.borrowed() as network, torch.no_grad(), watch_layers(network, see, layers), recorder:
        raw = model(batch)
        output = find_output(raw, model.output, images) if OUTPUT in layers else raw
    if isinstance(output, Unsettled):
        raise Untraceable(output.reason)
    wanted |= {name: recorder.replace_tensors(one) for name, one in ((OUTPUT, output), (RAW, raw)) if name in layers}
    if missing := layers - wanted.keys():
        raise Untraceable(f"layer {min(missing)!r} did not run")
    return _Run(images, recorder.steps, recorder.shapes, wanted)


class _Recorder(MetaMode):
    """Numbers every tensor that depends on the images, and records every operation on one."""

    def __init__(self, batch: Tensor, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.known = WeakTensorKeyDictionary()
        self.steps: list[Step] = []
        self.shapes: dict[int, Shape] = {}
        self._number(batch)

    def replace_tensors(self, tree: Any) -> Any:
        """The same structure, with a Ref in place of each tensor that depends on the image."""
        return tree_map_only(Tensor, self._refer_to, tree)

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if not any(tensor in self.known for tensor in find_tensors((args, kwargs))):
            return super().run_operation(func, args, self._give_values(kwargs))
        recorded = map_tensors(name_arguments(func, args, kwargs), self._refer_to)
        out = super().run_operation(func, args, kwargs)
        self._record(func, recorded, tree_flatten(out)[0])
        return out

    def _give_values(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Let a constant be made on the device of the weights: on the image's device, meta, it would have no values."""
        on_meta = kwargs.get("device") == torch.device("meta")
        return {**kwargs, "device": self.device} if on_meta else kwargs

    def _record(self, func: Any, args: dict[str, Any], outputs: list[Any]) -> None:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Untraceable(f"random numbers ({func})")
        if not all(isinstance(output, Tensor) for output in outputs):
            return  # a question about shape or type, answered
        if func._schema.is_mutable:
            self._check_change(func, args, outputs)
        self.steps.append(Step(func, args, tuple(self._number(output) for output in outputs)))

    def _check_change(self, func: Any, args: dict[str, Any], outputs: list[Tensor]) -> None:
        """Raise Untraceable where another view shows the changed memory too: values are stored by tensor, so the graph
        would miss that change."""
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

    def _refer_to(self, tensor: Tensor) -> Any:
        if tensor in self.known:
            return Ref(self.known[tensor])
        if tensor.is_meta:
            raise Untraceable("a tensor without values among the constants")
        return tensor


def _merge_runs(two: _Run, three: _Run) -> Graph:
    """One graph for any number of images, from the runs of two and of three."""
    if [step.func for step in two.steps] != [step.func for step in three.steps]:
        raise Untraceable("the network does other things to three images than to two")
    if tree_flatten(two.wanted)[1] != tree_flatten(three.wanted)[1]:
        raise Untraceable("what the network returns has a part for each image")
    steps = [
        Step(a.func, _merge_arguments(a.args, b.args, (two.images, three.images)), a.outputs)
        for a, b in zip(two.steps, three.steps, strict=True)
    ]
    shapes = {
        number: _remove_batch_axis(shape, two.images, three.shapes[number]) for number, shape in two.shapes.items()
    }
    return Graph(tuple(steps), shapes, two.wanted)


def _remove_batch_axis(shape: Shape, images: int, other: Shape) -> Shape | None:
    """A value's shape without its axis of images; None where the first axis is not that, going by `other`, the same
    value's shape in the other run."""
    batched = bool(shape) and shape[0] == images and shape[0] != other[0] and shape[1:] == other[1:]
    return shape[1:] if batched else None


def _merge_arguments(first: Any, second: Any, images: tuple[int, int]) -> Any:
    ours, form = tree_flatten(first)
    others, other_form = tree_flatten(second)
    if form != other_form:
        raise Untraceable("arguments change with the batch")
    return tree_unflatten([_merge_argument(a, b, images) for a, b in zip(ours, others, strict=True)], form)


def _merge_argument(a: Any, b: Any, images: tuple[int, int]) -> Any:
    """One argument for any number of images, from the same argument in two runs; images: how many each run had."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if not _are_equal(a, b):
            raise Untraceable("a constant changes with the batch")
        return a
    if type(a) is int and type(b) is int and a != b:
        if a * images[1] != b * images[0] or a % images[0]:
            raise Untraceable("a number changes with the batch")
        return PerImage(a // images[0])
    if a != b:
        raise Untraceable("an argument changes with the batch")
    return a


def _are_equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values. Views of one memory, as of a large transposed weight, are not compared
    value by value."""
    if a is b or a.shape != b.shape:
        return a is b
    strided = a.layout == b.layout == torch.strided and a.dtype == b.dtype
    return (strided and a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


def drop_unused(graph: Graph) -> Graph:
    """The graph without the operations on which nothing that is wanted depends."""
    return Graph(tuple(select_steps(graph.steps, find_refs(graph.wanted))), graph.shapes, graph.wanted)


def select_steps(steps: Sequence[Step], wanted: Iterable[int]) -> list[Step]:
    """The steps that these values need, in order."""
    needed, kept = {*wanted}, []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(step.inputs)
    return kept[::-1]


def find_last_uses(steps: Sequence[Step], kept: Iterable[int]) -> dict[int, list[int]]:
    """The values that no later step reads, by the position of the step after which they can be freed; `kept` ones never
    are."""
    last, kept = dict[int, int](), frozenset(kept)
    for place, step in enumerate(steps):
        last.update(dict.fromkeys([*step.outputs, *step.inputs], place))
    found: dict[int, list[int]] = {}
    for value, place in last.items():
        if value not in kept:
            found.setdefault(place, []).append(value)
    return found

"""The ascent itself: many pictures at once, each towards its own goal, as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vizcnn.ascent.alike import likeness
from vizcnn.ascent.canvas import Pixels
from vizcnn.ascent.optimisers import OPTIMISERS
from vizcnn.ascent.recipe import Recipe
from vizcnn.ascent.streams import Streams
from vizcnn.errors import NetworkError, NonFiniteResult, NotDifferentiable, ShapeError, TargetError
from vizcnn.models.backward import Redirection
from vizcnn.models.layers.capture import reading
from vizcnn.models.model import Model
from vizcnn.models.targets import OutputFunction, Target
from vizcnn.progress import bar

Reader = Callable[[Tensor], Mapping[str, Any]]
Precision = Literal["float32", "bfloat16"]
_PATIENCE = 3  # redirected gradients that were zero too, after which a picture is left as it is
_SHOWN_EVERY = 8  # steps between updates of the progress bar's value


@dataclass(frozen=True)
class Goal:
    """One picture to be made: the target to raise, or to lower, and which of several pictures of that target it is."""

    target: Target
    copy: int = 0
    lowered: bool = False

    @property
    def key(self) -> str:
        """What the picture's random numbers depend on. Two functions of one name share them: by nothing else could each
        find its own again, alone as in company."""
        return f"{'-' if self.lowered else '+'}{self.target.spec}#{self.copy}"

    @property
    def subject(self) -> tuple[object, ...]:
        """What all copies have in common, and two functions of one name have not."""
        functions = [id(unit.function) for _, unit in self.target.terms if isinstance(unit, OutputFunction)]
        return (self.lowered, self.target.spec, *functions)


@dataclass(frozen=True)
class Peaks:
    """Pictures that were climbed to.

    which: the numbers of their N goals, ascending: all of them, unless Ctrl-C came before some were begun.
    pictures: (N, C, H, W) in [0, 1]. values: float64 (N,), the targets' numbers for them, without any warp, in the
        network's own precision. computed: the same in the precision of the ascent.
    moved: bool (N,), whether the target ever responded to a change of its picture.
    frames: uint8 (F, N, C, H, W), the way there, from the start to the pictures.
    finished: False after Ctrl-C; the pictures are then as far as they got.
    """

    which: tuple[int, ...]
    pictures: Tensor
    values: Tensor
    computed: Tensor
    moved: Tensor
    frames: Tensor
    finished: bool = True


def climb(
    model: Model,
    goals: Sequence[Goal],
    recipe: Recipe,
    *,
    size: tuple[int, int] | None = None,
    start: Tensor | None = None,
    seed: int = 0,
    diversity: float = 0.0,
    precision: Precision = "float32",
    batch: int = 16,
    frames: int = 0,
    label: str = "ascent",
    progress: bool = True,
) -> Peaks:
    """Optimise a picture per goal. The network must be borrowed.

    size: height and width of the pictures in px; by default the model's input.
    start: pictures (N, C, H, W) in [0, 1] to begin with, for recipes of pixels; else each begins with its own noise.
    diversity: weight of a term that makes copies of one target differ: how alike they are is subtracted from the
        target (Olah et al. 2017).
    batch: pictures optimised together; copies of one target always are. It changes memory and speed only.
    frames: how many states to keep, evenly spread, the last being the result.

    Raises NotDifferentiable, NonFiniteResult, TargetError, ShapeError. Ctrl-C ends the ascent; what it got to is
    returned.
    """
    groups = list(_batches(goals, batch))
    for group in groups:
        _refuse_missing_units(model, [goals[i] for i in group], size)
    done: list[Peaks] = []
    with bar(recipe.steps * len(groups), label, "step", shown=progress) as steps:
        for group in groups:
            chosen = [goals[i] for i in group]
            begun = None if start is None else start[group]
            try:
                ascent = _Ascent(model, chosen, recipe, size or model.input.size, begun, seed, diversity, precision)
                done.append(replace(ascent.run(frames, steps), which=tuple(group)))
            except KeyboardInterrupt:  # before the first step, or while values were computed
                if not done:
                    raise
                done[-1] = replace(done[-1], finished=False)
            if not done[-1].finished:
                break
    return _in_order(done)


def _batches(goals: Sequence[Goal], most: int) -> Iterator[list[int]]:
    """Indices of goals that end at the same layers, with all copies of a target together."""
    by_layers: dict[frozenset[str], dict[tuple[object, ...], list[int]]] = {}
    for i, goal in enumerate(goals):
        by_layers.setdefault(goal.target.layers, {}).setdefault(goal.subject, []).append(i)
    for same_layers in by_layers.values():
        group: list[int] = []
        for copies in same_layers.values():
            if group and len(group) + len(copies) > most:
                yield group
                group = []
            group += copies
        yield group


def _refuse_missing_units(model: Model, goals: Sequence[Goal], size: tuple[int, int] | None) -> None:
    """Raise TargetError for a channel or position that the layer has not, and ShapeError for a size that the network
    cannot take, before anything is optimised."""
    usual = model.input.size
    with torch.no_grad(), reading(model, goals[0].target.layers) as read:
        try:
            found = read(model.grey(size))
        except NetworkError as error:
            if size in (None, usual):
                raise
            raise ShapeError(
                f"{model.name} reaches {goals[0].target} with pictures of its own size only, {usual[0]} x {usual[1]} "
                f"px, got {size[0]} x {size[1]}: {error.__cause__}. Layers before the dense ones take any size"
            ) from error
        for goal in goals:
            goal.target(found)


def _in_order(done: Sequence[Peaks]) -> Peaks:
    """One Peaks in the order of the goals."""
    which = [i for each in done for i in each.which]
    order = torch.tensor(which).argsort()
    fewest = min(len(each.frames) for each in done)  # after Ctrl-C the last batch has fewer

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in done])[order]

    return Peaks(
        tuple(sorted(which)),
        joined("pictures"),
        joined("values"),
        joined("computed"),
        joined("moved"),
        torch.cat([each.frames[len(each.frames) - fewest :] for each in done], 1)[:, order],
        all(each.finished for each in done),
    )


def _marks(frames: int, steps: int) -> set[int]:
    """The steps before which a state is kept; the last state of all comes after the last step."""
    return {1 + round(k * steps / (frames - 1)) for k in range(frames - 1)} if frames > 1 else set()


class _Ascent:
    """One batch of pictures on their way up."""

    def __init__(
        self,
        model: Model,
        goals: Sequence[Goal],
        recipe: Recipe,
        size: tuple[int, int],
        start: Tensor | None,
        seed: int,
        diversity: float,
        precision: Precision,
    ) -> None:
        self.model, self.goals, self.recipe, self.diversity = model, goals, recipe, diversity
        self.shape = (model.input.channels, *size)
        self.mean = torch.tensor(model.input.mean, dtype=torch.float32, device=model.device).view(1, -1, 1, 1)
        self.streams = Streams(seed, [goal.key for goal in goals], self.mean)
        self.numbers = (recipe.canvas.start(self.shape, self.streams) if start is None else start).clone()
        self.begun = self.pictures()
        self.moved = torch.zeros(len(goals), dtype=torch.bool, device=model.device)
        self.optimiser = OPTIMISERS[recipe.optimiser](self.numbers, recipe.rate)
        self.precision = precision
        self.fruitless = torch.zeros(len(goals), dtype=torch.int64, device=model.device)
        self.current = 0.0

    def run(self, frames: int, steps: Any) -> Peaks:
        """All steps of the recipe, or those before Ctrl-C."""
        kept: list[Tensor] = []
        marks, finished = _marks(frames, self.recipe.steps), True
        try:
            with self._reading() as read:
                for step in range(1, self.recipe.steps + 1):
                    kept += [self.pictures()] if step in marks else []
                    self._step(read, step)
                    self._show(steps, step)
        except KeyboardInterrupt:
            finished = False
        return self._peaks([*kept, self.pictures()] if frames else [], finished)

    @contextmanager
    def _reading(self) -> Iterator[Reader]:
        with reading(self.model, self.goals[0].target.layers) as read, torch.inference_mode(False), torch.enable_grad():
            yield read

    def pictures(self) -> Tensor:
        """(N, C, H, W) in [0, 1], as they are now."""
        with torch.no_grad():
            return self.recipe.canvas.pictures(self.numbers, self.shape).clamp(0, 1)

    def _step(self, read: Reader, step: int) -> None:
        numbers = self.numbers.detach().requires_grad_()
        pictures = self.recipe.canvas.pictures(numbers, self.shape)
        seen = pictures.detach().requires_grad_()  # (N, C, H, W)
        upwards = self._gradient(read, seen)
        whole = upwards - self._penalty_gradient(seen)
        (slope,) = torch.autograd.grad(pictures, numbers, whole)
        with torch.no_grad():
            self.optimiser(slope)
            if isinstance(self.recipe.canvas, Pixels):
                self._mend(upwards, step)

    def _mend(self, upwards: Tensor, step: int) -> None:
        if not self.recipe.repair.is_none:
            self.numbers.copy_(self.recipe.repair(self.numbers, self.mean, upwards, step))
        self.numbers.clamp_(0, 1)

    def _gradient(self, read: Reader, seen: Tensor) -> Tensor:
        """Of each target, and of what makes copies differ, with respect to its picture, (N, C, H, W)."""
        moved = self.recipe.warp(seen, self.streams)
        inputs = moved.detach().requires_grad_()
        own = self._outputs(read, inputs)
        numbers = _numbers(self.goals, own)
        self.current = float(numbers[0].detach())
        pull = self._pull(numbers, inputs, self.goals)
        self.moved |= pull.flatten(1).any(1)
        pull = self._redirected(read, inputs, pull)
        if self.diversity:
            alike = likeness(own, [goal.subject for goal in self.goals])
            pull = pull - self.diversity * torch.autograd.grad(alike.sum(), inputs)[0]
        upwards: Tensor
        (upwards,) = torch.autograd.grad(moved, seen, pull)
        return upwards

    def _redirected(self, read: Reader, inputs: Tensor, pull: Tensor) -> Tensor:
        """The gradient, with another for pictures that nothing reaches: what would open the ReLUs before them."""
        stuck = ~pull.flatten(1).any(1) & (self.fruitless < _PATIENCE)
        which = stuck.nonzero().flatten()
        if not len(which):
            return pull
        leaf, goals = inputs.detach()[which].requires_grad_(), [self.goals[i] for i in which.tolist()]
        with Redirection():
            found = self._pull(_numbers(goals, self._outputs(read, leaf)), leaf, goals)
        self.fruitless[which] += ~found.flatten(1).any(1)
        return pull.index_copy(0, which, found)

    def _outputs(self, read: Reader, inputs: Tensor) -> dict[str, tuple[Any, ...]]:
        """Each layer's output for each of the inputs (n, C, H, W)."""
        with self._autocast():
            found = read(inputs.to(self.model.dtype).contiguous(memory_format=torch.channels_last))
        return _own(self.goals[0].target.layers, found, len(inputs))

    def _pull(self, numbers: Tensor, inputs: Tensor, goals: Sequence[Goal]) -> Tensor:
        """The gradient of the goals' numbers (n,), upwards or downwards, with respect to the inputs (n, C, H, W)."""
        if not numbers.requires_grad:
            raise NotDifferentiable(
                f"{goals[0].target} has no gradient with respect to the picture: the network detaches or rounds "
                "what it computes before this layer. Choose an earlier layer"
            )
        if not numbers.isfinite().all():
            raise NonFiniteResult(f"a target became {numbers.detach().tolist()} during the ascent. Check the weights")
        signs = numbers.new_tensor([-1.0 if goal.lowered else 1.0 for goal in goals])
        gradient: Tensor
        (gradient,) = torch.autograd.grad((numbers * signs).sum(), inputs, retain_graph=bool(self.diversity))
        return gradient

    def _autocast(self) -> Any:
        lower = self.precision == "bfloat16"
        return torch.autocast(self.model.device.type, torch.bfloat16) if lower else nullcontext()

    def _penalty_gradient(self, seen: Tensor) -> Tensor | float:
        if self.recipe.penalty.is_none:
            return 0.0
        gradient: Tensor
        (gradient,) = torch.autograd.grad(self.recipe.penalty(seen, self.mean).sum(), seen)
        return gradient

    def _show(self, steps: Any, step: int) -> None:
        steps.update()
        if step % _SHOWN_EVERY == 0:
            steps.set_postfix_str(f"{self.goals[0].target} {self.current:.3g}", refresh=False)

    @torch.no_grad()
    def _peaks(self, kept: list[Tensor], finished: bool) -> Peaks:
        pictures = self.pictures()
        with self._autocast():
            computed = values(self.model, self.goals, pictures)
        reached = computed if self.precision == "float32" else values(self.model, self.goals, pictures)
        opened = reached != values(self.model, self.goals, self.begun)  # perhaps by the very last redirected step
        frames = [_bytes(frame) for frame in kept]
        return Peaks(
            tuple(range(len(self.goals))),
            pictures.float().cpu(),
            reached,
            computed,
            self.moved.cpu() | opened,
            torch.stack(frames) if frames else torch.empty(0, *pictures.shape, dtype=torch.uint8),
            finished,
        )


def values(model: Model, goals: Sequence[Goal], pictures: Tensor) -> Tensor:
    """The targets' numbers for pictures (N, C, H, W) in [0, 1], one per goal, of goals at the same layers: float64
    (N,)."""
    layers = goals[0].target.layers
    with torch.no_grad(), reading(model, layers) as read:
        return _numbers(goals, _own(layers, read(pictures.to(model.device, model.dtype)), len(goals))).cpu().double()


def _own(layers: frozenset[str], found: Mapping[str, Any], count: int) -> dict[str, tuple[Any, ...]]:
    """Each layer's output for each picture."""
    return {layer: _each(layer, found[layer], count) for layer in layers}


def _numbers(goals: Sequence[Goal], own: Mapping[str, tuple[Any, ...]]) -> Tensor:
    """Each picture's own target, (N,)."""
    numbers = [goal.target({name: parts[i] for name, parts in own.items()}) for i, goal in enumerate(goals)]
    joined = torch.cat(numbers)
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


def _each(layer: str, values: Any, count: int) -> tuple[Any, ...]:
    """A layer's output for each picture alone, (1, ...)."""
    if not isinstance(values, Tensor) or len(values) != count:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        where = f"layer {layer!r}" if layer else "the network's output"
        raise TargetError(f"{where} is {got} for {count} pictures; one entry for each is needed")
    return tuple(values.split(1))  # one operation, whose backward pass joins the parts


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.float().cpu() * 255).round().to(torch.uint8)

"""The loop of gradient ascent: many pictures at once, each towards its own objective, as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vizcnn.ascent.checks import Reader, choose_layout, describe_infinite, require_gradient
from vizcnn.ascent.diversity import measure_similarity
from vizcnn.ascent.objective import Objective, score_outputs, score_pictures, split_outputs
from vizcnn.ascent.optimisers import OPTIMISERS
from vizcnn.ascent.parametrization import Pixels
from vizcnn.ascent.recipe import Recipe
from vizcnn.ascent.rng import Rng
from vizcnn.models.backward import Redirection
from vizcnn.models.determinism import pick_rows
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.progress import bar

Precision = Literal["float32", "bfloat16"]
_PATIENCE = 3  # redirected gradients that were zero too, after which a picture is left as it is
_SHOWN_EVERY = 8  # steps between updates of the progress bar's score


@dataclass(frozen=True)
class Outcome:
    """The pictures that an optimisation came to.

    indices: the positions of their N objectives among those given, ascending: all of them, unless Ctrl-C came before
        some were begun.
    pictures: (N, C, H, W) in [0, 1].
    scores: float64 (N,), the targets' numbers for them, without transforms and in the network's own precision.
    computed: the same in the precision of the optimisation.
    moved: bool (N,), whether the target ever responded to a change of its picture.
    frames: uint8 (F, N, C, H, W), the way there, from the start to the pictures.
    finished: False after Ctrl-C; the pictures are then as far as they got.
    """

    indices: tuple[int, ...]
    pictures: Tensor
    scores: Tensor
    computed: Tensor
    moved: Tensor
    frames: Tensor
    finished: bool = True


def optimize(
    model: Model,
    objectives: Sequence[Objective],
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
) -> Outcome:
    """A picture for each objective, made by gradient ascent. The network must be borrowed.

    size: height and width of the pictures in px; by default the model's input.
    start: pictures (N, C, H, W) in [0, 1] to begin with, for recipes of pixels; else each begins with its own noise.
    diversity: weight of a term that makes copies of one target differ: how similar they are is subtracted from the
        target (Olah et al. 2017).
    batch: pictures optimised together; copies of one target always are. It changes memory and speed only.
    frames: how many states to keep, evenly spread, the last being the result.

    Raises NotDifferentiable, NonFiniteResult, TargetError, ShapeError. Ctrl-C ends the ascent; what it got to is
    returned.

        import vizcnn
        from vizcnn.ascent import RECIPES, Objective, optimize

        model = vizcnn.load("tiny")
        objectives = [Objective(vizcnn.target(f"layer2:{channel}")) for channel in range(12)]
        with model.borrowed():
            pictures = optimize(model, objectives, RECIPES["robust"]).pictures  # (12, 3, 64, 64)
    """
    groups = list(_split_into_batches(objectives, batch))
    layouts = [choose_layout(model, [objectives[i] for i in group], size) for group in groups]
    done: list[Outcome] = []
    with bar(recipe.steps * len(groups), label, "step", shown=progress) as steps:
        for group, layout in zip(groups, layouts, strict=True):
            chosen = [objectives[i] for i in group]
            first = None if start is None else pick_rows(start, group)
            try:
                ascent = _Ascent(
                    model, chosen, recipe, size or model.input.size, first, seed, diversity, precision, layout
                )
                done.append(replace(ascent.run(frames, steps), indices=tuple(group)))
            except KeyboardInterrupt:  # before the first step, or while scores were computed
                if not done:
                    raise
                done[-1] = replace(done[-1], finished=False)
            if not done[-1].finished:
                break
    return _join(done)


def _split_into_batches(objectives: Sequence[Objective], most: int) -> Iterator[list[int]]:
    """Indices of objectives that end at the same layers, with all copies of a target together."""
    by_layers: dict[frozenset[str], dict[tuple[object, ...], list[int]]] = {}
    for i, objective in enumerate(objectives):
        by_layers.setdefault(objective.target.layers, {}).setdefault(objective.group, []).append(i)
    for same_layers in by_layers.values():
        batch: list[int] = []
        for copies in same_layers.values():
            if batch and len(batch) + len(copies) > most:
                yield batch
                batch = []
            batch += copies
        yield batch


def _join(outcomes: Sequence[Outcome]) -> Outcome:
    """One Outcome from those of the batches, in the order of the objectives."""
    indices = [i for each in outcomes for i in each.indices]
    order = torch.tensor(indices).argsort()
    fewest = min(len(each.frames) for each in outcomes)  # after Ctrl-C the last batch has fewer

    def join(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in outcomes])[order]

    return Outcome(
        tuple(sorted(indices)),
        join("pictures"),
        join("scores"),
        join("computed"),
        join("moved"),
        torch.cat([each.frames[len(each.frames) - fewest :] for each in outcomes], 1)[:, order],
        all(each.finished for each in outcomes),
    )


def _choose_steps_to_keep(frames: int, steps: int) -> set[int]:
    """The steps before which a state is kept; the last state of all comes after the last step."""
    return {1 + round(k * steps / (frames - 1)) for k in range(frames - 1)} if frames > 1 else set()


class _Ascent:
    """One batch of pictures on their way up.

    A step has three gradients, chained by hand, because each is looked at on its way: the target's with respect to what
    the network sees, then with respect to the picture, where the penalty's is subtracted, then with respect to the
    parameters.
    """

    def __init__(
        self,
        model: Model,
        objectives: Sequence[Objective],
        recipe: Recipe,
        size: tuple[int, int],
        start: Tensor | None,
        seed: int,
        diversity: float,
        precision: Precision,
        layout: torch.memory_format,
    ) -> None:
        self.model, self.objectives, self.recipe, self.diversity = model, objectives, recipe, diversity
        self.shape = (model.input.channels, *size)
        self.mean = torch.tensor(model.input.mean, dtype=torch.float32, device=model.device).view(1, -1, 1, 1)
        self.rng = Rng(seed, [objective.rng_key for objective in objectives], self.mean)
        first = recipe.parametrization.initialize(self.shape, self.rng) if start is None else start
        self.parameters = first.clone()  # (N, ...)
        self.first_pictures = self.render()
        self.signs = self.mean.new_tensor(
            [-1.0 if one.lowered else 1.0 for one in objectives]
        )  # (N,), higher is better
        self.moved = torch.zeros(len(objectives), dtype=torch.bool, device=model.device)
        self.optimiser = OPTIMISERS[recipe.optimiser](self.parameters, recipe.rate)
        self.precision, self.layout = precision, layout
        self.failed_redirections = torch.zeros(len(objectives), dtype=torch.int64, device=model.device)
        self.shown_score = torch.zeros(())
        self.best = _Best(self.first_pictures) if recipe.keep == "best" else None

    def run(self, frames: int, steps: Any) -> Outcome:
        """All steps of the recipe, or those before Ctrl-C."""
        kept: list[Tensor] = []
        to_keep, finished = _choose_steps_to_keep(frames, self.recipe.steps), True
        try:
            with self._open_reader() as read:
                for step in range(1, self.recipe.steps + 1):
                    kept += [self.render()] if step in to_keep else []
                    self._step(read, step)
                    self._show(steps, step)
                self._judge_last(read)
        except KeyboardInterrupt:
            finished = False
        result = self.best.pictures if self.best else self.render()
        return self._collect(result, [*kept, result] if frames else [], finished)

    @contextmanager
    def _open_reader(self) -> Iterator[Reader]:
        """A reader whose outputs have gradients, whatever mode the caller is in."""
        layers = self.objectives[0].target.layers
        with open_reader(self.model, layers) as read, torch.inference_mode(False), torch.enable_grad():
            yield read

    def render(self) -> Tensor:
        """The pictures as they are now, (N, C, H, W) in [0, 1]."""
        with torch.no_grad():
            return self.recipe.parametrization.render(self.parameters, self.shape).clamp(0, 1)

    def _step(self, read: Reader, step: int) -> None:
        parameters = self.parameters.detach().requires_grad_()
        pictures = self.recipe.parametrization.render(parameters, self.shape)
        seen = pictures.detach().requires_grad_()  # (N, C, H, W)
        upwards, heights = self._compute_target_gradient(read, seen)
        downwards, penalties = self._compute_penalty_gradient(seen)
        (gradient,) = torch.autograd.grad((pictures * (upwards - downwards)).sum(), parameters)
        with torch.no_grad():
            if self.best:
                self.best.see(pictures, heights - penalties)
            self.optimiser(gradient)
            if isinstance(self.recipe.parametrization, Pixels):
                if not self.recipe.repair.is_none:
                    self.parameters.copy_(self.recipe.repair(self.parameters, self.mean, upwards, step))
                self.parameters.clamp_(0, 1)

    def _judge_last(self, read: Reader) -> None:
        """Let the pictures that the last step made be the best ones, if they are."""
        if self.best is None:
            return
        with torch.no_grad():
            pictures = self.render()
            scores = score_outputs(self.objectives, self._run(read, self.recipe.transforms(pictures, self.rng)))
            self.best.see(pictures, scores * self.signs - self.recipe.penalty(pictures, self.mean))

    def _compute_target_gradient(self, read: Reader, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Of each target, and of what makes copies differ, with respect to its picture, (N, C, H, W); and the scores
        (N,), negative for what is lowered."""
        transformed = self.recipe.transforms(seen, self.rng)
        inputs = transformed.detach().requires_grad_()
        outputs = self._run(read, inputs)
        scores = score_outputs(self.objectives, outputs)
        self.shown_score = scores[0].detach()
        gradient = self._differentiate(scores, inputs, self.signs)
        reached = gradient.flatten(1).any(1)
        self.moved |= reached
        stuck = ~reached & (self.failed_redirections < _PATIENCE)
        # One wait for the device in a step is enough: both answers come together.
        is_finite, is_stuck = torch.stack([scores.isfinite().all(), stuck.any()]).tolist()
        if not is_finite:
            raise describe_infinite(self.model, scores)
        if is_stuck:
            gradient = self._redirect(read, inputs, gradient, stuck.nonzero().flatten())
        if self.diversity:
            similarity = measure_similarity(outputs, [objective.group for objective in self.objectives])
            gradient = gradient - self.diversity * torch.autograd.grad(similarity.sum(), inputs)[0]
        upwards: Tensor
        (upwards,) = torch.autograd.grad((transformed * gradient).sum(), seen)
        return upwards, scores.detach() * self.signs

    def _redirect(self, read: Reader, inputs: Tensor, gradient: Tensor, indices: Tensor) -> Tensor:
        """The gradient, with another for the pictures of these indices, which nothing reaches: what would open the
        ReLUs before them."""
        leaf, objectives = inputs.detach()[indices].requires_grad_(), [self.objectives[i] for i in indices.tolist()]
        with Redirection():
            found = self._differentiate(score_outputs(objectives, self._run(read, leaf)), leaf, self.signs[indices])
        self.failed_redirections[indices] += ~found.flatten(1).any(1)
        return gradient.index_copy(0, indices, found)

    def _run(self, read: Reader, inputs: Tensor) -> dict[str, tuple[Any, ...]]:
        """Each layer's output for each of the inputs (n, C, H, W)."""
        with self._apply_precision():
            outputs = read(inputs.to(self.model.dtype).contiguous(memory_format=self.layout))
        return split_outputs(self.objectives[0].target.layers, outputs, len(inputs))

    def _differentiate(self, scores: Tensor, inputs: Tensor, signs: Tensor) -> Tensor:
        """The gradient of the scores (n,), times these signs, with respect to the inputs (n, C, H, W)."""
        require_gradient(scores, self.objectives[0])
        gradient: Tensor
        (gradient,) = torch.autograd.grad((scores * signs).sum(), inputs, retain_graph=bool(self.diversity))
        return gradient

    def _apply_precision(self) -> Any:
        lower = self.precision == "bfloat16"
        return torch.autocast(self.model.device.type, torch.bfloat16) if lower else nullcontext()

    def _compute_penalty_gradient(self, seen: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Of each picture's penalty with respect to its pixels, (N, C, H, W); and the penalties (N,)."""
        if self.recipe.penalty.is_none:
            return 0.0, 0.0
        penalties = self.recipe.penalty(seen, self.mean)
        (gradient,) = torch.autograd.grad(penalties.sum(), seen)
        return gradient, penalties.detach()

    def _show(self, steps: Any, step: int) -> None:
        steps.update()
        if step % _SHOWN_EVERY == 0:
            steps.set_postfix_str(f"{self.objectives[0].target} {float(self.shown_score):.3g}", refresh=False)

    @torch.no_grad()
    def _collect(self, pictures: Tensor, kept: list[Tensor], finished: bool) -> Outcome:
        with self._apply_precision():
            computed = score_pictures(self.model, self.objectives, pictures)
        same = self.precision == "float32"
        scores = computed if same else score_pictures(self.model, self.objectives, pictures)
        first = score_pictures(self.model, self.objectives, self.first_pictures)
        frames = [_to_bytes(frame) for frame in kept]
        return Outcome(
            tuple(range(len(self.objectives))),
            pictures.float().cpu(),
            scores,
            computed,
            self.moved.cpu() | (scores != first),  # perhaps by the very last redirected step
            torch.stack(frames) if frames else torch.empty(0, *pictures.shape, dtype=torch.uint8),
            finished,
        )


class _Best:
    """Each picture's best state so far.

    pictures: (N, C, H, W). heights: (N,), their targets less their penalties."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures.clone()
        self.heights = pictures.new_full((len(pictures),), -torch.inf)

    def see(self, pictures: Tensor, heights: Tensor) -> None:
        better = heights > self.heights  # (N,)
        self.pictures = torch.where(better.view(-1, 1, 1, 1), pictures.detach(), self.pictures)
        self.heights = torch.where(better, heights.to(self.heights), self.heights)


def _to_bytes(pictures: Tensor) -> Tensor:
    return (pictures.float().cpu() * 255).round().to(torch.uint8)

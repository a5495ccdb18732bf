"""The loop of gradient ascent: many pictures at once, each towards its own objective, as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from vizcnn.ascent.batches import Group, choose_batch, group_objectives
from vizcnn.ascent.checks import Reader, describe_infinite, require_gradient
from vizcnn.ascent.diversity import measure_similarity
from vizcnn.ascent.objective import Objective, score_outputs, score_pictures, split_outputs
from vizcnn.ascent.optimisers import OPTIMISERS
from vizcnn.ascent.outcome import Outcome, join_outcomes
from vizcnn.ascent.parametrization import Pixels
from vizcnn.ascent.recipe import Recipe
from vizcnn.ascent.rng import Rng
from vizcnn.ascent.state import Best, State
from vizcnn.models.backward import Redirection
from vizcnn.models.batches import run_batches
from vizcnn.models.determinism import pick_rows
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.progress import bar

Precision = Literal["float32", "bfloat16"]
_PATIENCE = 3  # redirected gradients that were zero too, after which a picture is left as it is
_BLOCK = 8  # steps between two looks at what a device computes, and between two scores that the progress bar shows


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
    batch: int | None = None,
    frames: int = 0,
    label: str = "ascent",
    progress: bool = True,
) -> Outcome:
    """A picture for each objective, made by gradient ascent. The network must be borrowed.

    size: height and width of the pictures in px; by default the model's input.
    start: pictures (N, C, H, W) in [0, 1] to begin with, for recipes of pixels; else each begins with its own noise.
    diversity: weight of a term that makes copies of one target differ: how similar they are is subtracted from the
        target (Olah et al. 2017).
    batch: pictures optimised together; copies of one target always are. It changes memory and speed only. By default as
        many as fit into memory; when that runs out, half as many.
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
    size, done = size or model.input.size, list[Outcome]()
    groups = group_objectives(model, objectives, size)

    def run(group: Group, part: slice) -> None:
        indices = [i for copies in group.targets[part] for i in copies]
        first = None if start is None else pick_rows(start, indices)
        chosen = [objectives[i] for i in indices]
        ascent = _Ascent(model, chosen, recipe, size, first, seed, diversity, precision, group.layout)
        done.append(replace(ascent.run(frames, steps), indices=tuple(indices)))
        if not done[-1].finished:
            raise KeyboardInterrupt

    try:
        with bar(recipe.steps * len(objectives), label, "step", shown=progress) as steps:
            for group in groups:
                most = batch or choose_batch(model, group, objectives[group.indices[0]], size)
                targets = max(1, most // max(map(len, group.targets)))
                for _ in run_batches(len(group.targets), targets, partial(run, group)):
                    pass
    except KeyboardInterrupt:  # also before the first step of a batch, or while its scores were computed
        if not done:
            raise
        done[-1] = replace(done[-1], finished=False)
    return join_outcomes(done)


def _choose_steps_to_keep(frames: int, steps: int) -> set[int]:
    """The steps before which a state is kept; the last state of all comes after the last step."""
    return {1 + round(k * steps / (frames - 1)) for k in range(frames - 1)} if frames > 1 else set()


class _Ascent:
    """One batch of pictures on their way up.

    A step has three gradients, chained by hand, because each is looked at on its way: the target's with respect to what
    the network sees, then with respect to the picture, where the penalty's is subtracted, then with respect to the
    parameters.

    Two answers can change what a step does: a score that is not finite ends it, and a picture that nothing reaches gets
    another gradient. A device would have to be waited for in each step to know them. So there a block of steps is taken
    as if all were well; the answers come at its end, and if one is bad, the block is taken again with a look at each
    step. The pictures are the same.
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
        self.state = State.begin(OPTIMISERS[recipe.optimiser](first.clone(), recipe.rate))
        self.first_pictures = self.render()
        if recipe.keep == "best":
            self.state.best = Best(self.first_pictures)
        self.signs = self.mean.new_tensor(
            [-1.0 if one.lowered else 1.0 for one in objectives]
        )  # (N,), higher is better
        self.precision, self.layout = precision, layout
        self.score, self.shown = self.mean.new_zeros(()), 0.0  # of the first picture
        self.is_near = model.device.type == "cpu"
        self.looks = True  # at each step
        self.trouble = torch.zeros((), dtype=torch.bool, device=model.device)  # whether there was any in this block
        self.to_keep, self.frames = set[int](), dict[int, Tensor]()  # pictures (N, C, H, W) before a step

    def run(self, frames: int, steps: Any) -> Outcome:
        """All steps of the recipe, or those before Ctrl-C."""
        self.to_keep = _choose_steps_to_keep(frames, self.recipe.steps)
        finished, before = True, self.state
        try:
            with self._open_reader() as read:
                for block in self._split_into_blocks():
                    before = self.state if self.looks else self.state.copy()
                    self._climb(read, block, before)
                    steps.update(len(block) * len(self.objectives))
                    self._show(steps, block[-1])
                self._judge_last(read)
        except KeyboardInterrupt:
            finished = False
            if self.trouble:
                self.state = before
        result = self.render() if self.state.best is None else self.state.best.pictures
        return self._collect(result, [*self.frames.values(), result] if frames else [], finished)

    def _split_into_blocks(self) -> Iterator[range]:
        """The steps, counted from 1. On a device they come in blocks, all but the first, from which one knows what
        random numbers a step needs."""
        yield range(1, 2)
        self.rng.learn_step()
        first, most = 2, 1 if self.is_near else self.rng.count_steps(_BLOCK)
        while first <= self.recipe.steps:
            last = min(self.recipe.steps, -(-first // most) * most)
            yield range(first, last + 1)
            first = last + 1

    def _climb(self, read: Reader, block: range, before: State) -> None:
        """Take the steps of a block; see the class. before: the state to come back to."""
        if not self.is_near:
            self.rng.begin_block(len(block), self.recipe.steps + 1 - block[0])
        self._take(read, block)
        trouble = self._wait_for_answers()
        if trouble and not self.looks:
            self.state, self.looks = before, True
            self.rng.rewind()
            self._take(read, block)
        self.looks = self.is_near or trouble

    def _take(self, read: Reader, block: range) -> None:
        self.trouble.zero_()
        for step in block:
            if step in self.to_keep:
                self.frames[step] = self.render()
            self._step(read, step)

    def _wait_for_answers(self) -> bool:
        """Whether there was trouble in this block. The score that is shown comes with it, as each wait costs time."""
        trouble, self.shown = torch.stack([self.trouble.to(self.score), self.score]).tolist()
        return bool(trouble)

    @contextmanager
    def _open_reader(self) -> Iterator[Reader]:
        """A reader whose outputs have gradients, whatever mode the caller is in."""
        layers = self.objectives[0].target.layers
        with open_reader(self.model, layers) as read, torch.inference_mode(False), torch.enable_grad():
            yield read

    def render(self) -> Tensor:
        """The pictures as they are now, (N, C, H, W) in [0, 1]."""
        with torch.no_grad():
            return self.recipe.parametrization.render(self.state.parameters, self.shape).clamp(0, 1)

    def _step(self, read: Reader, step: int) -> None:
        parameters = self.state.parameters.detach().requires_grad_()
        pictures = self.recipe.parametrization.render(parameters, self.shape)
        seen = pictures.detach().requires_grad_()  # (N, C, H, W)
        upwards, heights = self._compute_target_gradient(read, seen)
        downwards, penalties = self._compute_penalty_gradient(seen)
        (gradient,) = torch.autograd.grad((pictures * (upwards - downwards)).sum(), parameters)
        with torch.no_grad():
            if self.state.best:
                self.state.best.see(pictures, heights - penalties)
            self.state.optimiser(gradient)
            if isinstance(self.recipe.parametrization, Pixels):
                pixels = self.state.parameters
                if not self.recipe.repair.is_none:
                    pixels.copy_(self.recipe.repair(pixels, self.mean, upwards, step))
                pixels.clamp_(0, 1)

    def _judge_last(self, read: Reader) -> None:
        """Let the pictures that the last step made be the best ones, if they are."""
        if self.state.best is None:
            return
        with torch.no_grad():
            pictures = self.render()
            scores = score_outputs(self.objectives, self._run(read, self.recipe.transforms(pictures, self.rng)))
            self.state.best.see(pictures, scores * self.signs - self.recipe.penalty(pictures, self.mean))

    def _compute_target_gradient(self, read: Reader, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Of each target, and of what makes copies differ, with respect to its picture, (N, C, H, W); and the scores
        (N,), negative for what is lowered."""
        transformed = self.recipe.transforms(seen, self.rng)
        inputs = transformed.detach().requires_grad_()
        outputs = self._run(read, inputs)
        scores = score_outputs(self.objectives, outputs)
        self.score = scores[0].detach()
        gradient = self._differentiate(scores, inputs, self.signs)
        reached = gradient.flatten(1).any(1)
        self.state.moved |= reached
        stuck = ~reached & (self.state.failed_redirections < _PATIENCE)
        answers = torch.stack([scores.isfinite().all(), ~stuck.any()])
        self.trouble |= ~answers.all()
        if self.looks:
            is_finite, is_free = answers.tolist()  # together, as each wait costs time
            if not is_finite:
                raise describe_infinite(self.model, scores)
            if not is_free:
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
        self.state.failed_redirections[indices] += ~found.flatten(1).any(1)
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
        if step % _BLOCK == 0:
            steps.set_postfix_str(f"{self.objectives[0].target} {self.shown:.3g}", refresh=False)

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
            self.state.moved.cpu() | (scores != first),  # perhaps by the very last redirected step
            torch.stack(frames) if frames else torch.empty(0, *pictures.shape, dtype=torch.uint8),
            finished,
        )


def _to_bytes(pictures: Tensor) -> Tensor:
    return (pictures.float().cpu() * 255).round().to(torch.uint8)

"""Maximize: pictures that make a unit respond most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from vizcnn.ascent import RECIPES, Maco, Objective, Outcome, Recipe, find_recipe, optimize
from vizcnn.errors import ParameterError, TargetError
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Optimised
from vizcnn.results.sheet import CROPS, Made, Making, RealImages, arrange
from vizcnn.scanning import Index, crop_best, find_channel, refuse_other_network, require_unit

_CLASSES = 10  # drawn where no target was given
_SPECTRA = {"tiny": "tiny", "lecture": "mnist", "simple": "mnist"}  # of the data each bundled network was trained on
_AGREE = 0.05  # share by which values may differ between precisions
_GIVEN_UP = "bfloat16 gave values more than 5% off, so float32 was used after all"


class Maximize(Probe[Optimised]):
    """What would this filter, neuron or class like to see?

    Each picture begins as noise and is changed step by step along the gradient until its target is large: a channel's
    mean, one neuron, a class's logit, a layer's energy, or a sum of these. It shows one thing that excites the unit,
    exaggerated; photographs that excite it look different, and a picture for a class can be noise to a person.

    All pictures for one layer are optimised together, and each comes out as it would alone. The number below a picture
    is what it reaches in the network without any movement. Where a ReLU lets nothing through, the gradient is
    redirected until it does; a unit that never responds is named.

    Without a target: the first ten classes. `layer2:0-15` are sixteen channels.
    Recipes: lecture (plain pixels), yosinski-1 to -4 (blur, clipping), mahendran (total variation), lucid (waves,
    movements), robust (the same with larger movements and noise), maco (the amplitudes of real images).

    Source: Erhan et al. 2009; Simonyan et al. 2014, arXiv:1312.6034; Mahendran & Vedaldi 2016, arXiv:1512.02017;
    Yosinski et al. 2015, arXiv:1506.06579; Olah et al. 2017, doi:10.23915/distill.00007; Fel et al. 2023,
    arXiv:2306.06805. Raises TargetError, ShapeError, NotDifferentiable, NonFiniteResult.
    """

    paper: ClassVar[str] = "Erhan et al. 2009"
    needs_images: ClassVar[bool] = False

    preset: Recipe | str = param("robust", f"The recipe: {', '.join(RECIPES)}.", parse=find_recipe)
    steps: int | None = param(None, "Steps of the ascent; by default the recipe's.", min=1)
    rate: float | None = param(None, "Length of a step; by default the recipe's.", min=1e-9)
    l1: float | None = param(
        None,
        "Weight of the sum of |pixel - mean colour|, or of |pixel| for the recipe lecture; by default the recipe's.",
        min=0,
    )
    l2: float | None = param(None, "Weight of the sum of squares of the same; by default the recipe's.", min=0)
    tv: float | None = param(None, "Weight of the total variation; by default the recipe's.", min=0)
    sign: Literal["positive", "negative", "both"] = param(
        "positive", "Raise the target, lower it, or show a picture of each."
    )
    copies: int = param(1, "Pictures per target, each from noise of its own.", min=1)
    diversity: float = param(0.0, "Weight of a term that makes the copies differ.", min=0)
    size: int | None = param(None, "Side of the pictures; by default the network's input.", min=1, unit="px")
    like: str | None = param(
        None, "For maco: a folder of images whose amplitudes are kept; by default the bundled network's data."
    )
    crops: str | None = param(
        None, "The index of a scan: beside each picture the parts of real images that excite the unit most."
    )
    frames: int = param(0, "States on the way to keep, for an animation (save as .gif).", min=0)
    batch: int = param(16, "Pictures optimised together; changes memory and time only.", min=1)
    precision: Literal["float32", "bfloat16"] = param(
        "float32", "bfloat16 is faster where the machine has it; where the result disagrees, float32 is used after all."
    )

    def check(self) -> None:
        if self.diversity and self.copies < 2:
            raise ParameterError("diversity makes copies of a target differ, so it needs copies of 2 or more")
        if self.like is not None and not isinstance(self._recipe.parametrization, Maco):
            raise ParameterError(f"like is for the recipe maco, got preset {self._recipe.name}")

    @property
    def _recipe(self) -> Recipe:
        """The preset, which was a name until the options were settled."""
        assert isinstance(self.preset, Recipe)
        return self.preset

    def default_targets(self, model: Model) -> Sequence[Any]:
        return list(range(min(_CLASSES, _outputs(model))))

    def input_size(self, model: Model) -> tuple[int, int]:
        return (self.size, self.size) if self.size else model.input.size

    def keeps_frames(self) -> bool:
        return self.frames > 0

    def compute(self, subject: Subject) -> Optimised:
        used = self.settled(subject.model)
        goals = _by_panel(list(self._goals(subject.targets[0])))
        index = self._index(subject)
        peaks, precision = self._optimize(subject, goals, used)
        begun = [goals[i] for i in peaks.indices]
        provenance = subject.provenance(
            paper=_PAPERS.get(used.name, self.paper),
            recipe=used.name,
            steps=used.steps,
            size=tuple(peaks.pictures.shape[2:]),
            precision=precision,
            **({"spectrum": used.parametrization.like} if isinstance(used.parametrization, Maco) else {}),
        )
        return arrange(
            provenance,
            list(_made(begun, peaks, index)),
            _making(used),
            peaks.frames.permute(0, 1, 3, 4, 2).numpy(),  # (F, K, H, W, C)
            crops_from=None if index is None else RealImages(len(index.names), index.rank),
            notes=(_GIVEN_UP,) if precision != self.precision else (),
            interrupted_of=None if peaks.finished else len(goals),
        )

    def _index(self, subject: Subject) -> Index | None:
        if self.crops is None:
            return None
        index = Index.open(self.crops)
        refuse_other_network(index, subject.identity["weights_sha256"])
        for target in subject.targets[0]:
            find_channel(index, require_unit(target))  # what is not in the index is known before anything is optimised
        return index

    def settled(self, model: Model) -> Recipe:
        """The recipe with the options that were given in place of its own."""
        weights = {name: value for name in ("l1", "l2", "tv") if (value := getattr(self, name)) is not None}
        parametrization = self._recipe.parametrization
        if isinstance(parametrization, Maco):
            parametrization = Maco(self.like or _SPECTRA.get(model.name.partition("@")[0], parametrization.like))
        return replace(
            self._recipe,
            parametrization=parametrization,
            penalty=replace(self._recipe.penalty, **weights),
            steps=self.steps or self._recipe.steps,
            rate=self.rate or self._recipe.rate,
        )

    def _goals(self, targets: Sequence[Target]) -> Iterator[Objective]:
        for lowered in {"positive": [False], "negative": [True], "both": [False, True]}[self.sign]:
            for target in targets:
                yield from (Objective(target, copy, lowered) for copy in range(self.copies))

    def _optimize(self, subject: Subject, goals: Sequence[Objective], used: Recipe) -> tuple[Outcome, str]:
        """The pictures, and the precision they were made in."""
        peaks = self._ascent(subject, goals, used, self.precision)
        if self.precision == "float32" or not peaks.finished or _agrees(peaks):
            return peaks, self.precision
        return self._ascent(subject, goals, used, "float32"), "float32"

    def _ascent(
        self, subject: Subject, goals: Sequence[Objective], used: Recipe, precision: Literal["float32", "bfloat16"]
    ) -> Outcome:
        return optimize(
            subject.model,
            goals,
            used,
            size=self.input_size(subject.model),
            seed=subject.seed,
            diversity=self.diversity,
            precision=precision,
            batch=self.batch,
            frames=self.frames,
            label=self.name(),
            progress=subject.progress,
        )


def _outputs(model: Model) -> int:
    """How many classes the network tells apart. Raises TargetError."""
    with torch.no_grad():
        output = read_activations(model, model.grey(), [OUTPUT])[OUTPUT]
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise TargetError(f"the network's output is {got}, not (N, classes). Give a target, such as LAYER:CHANNEL")
    return output.shape[1]


def _agrees(peaks: Outcome) -> bool:
    """Whether the precision of the ascent told nearly the same values as full precision does."""
    return bool(((peaks.computed - peaks.scores).abs() <= _AGREE * peaks.scores.abs()).all())


def _by_panel(goals: Sequence[Objective]) -> list[Objective]:
    """In the order of their panels: what is raised or lowered together stands together."""
    kinds = list(dict.fromkeys(map(_kind, goals)))
    return sorted(goals, key=lambda goal: kinds.index(_kind(goal)))


def _kind(goal: Objective) -> tuple[str, bool]:
    return goal.target.quantity, goal.lowered


def _made(goals: Sequence[Objective], peaks: Outcome, index: Index | None) -> Iterator[Made]:
    """Each picture with what it was made for, and with crops from the index where there is one."""
    pixels = peaks.pictures.permute(0, 2, 3, 1).numpy().astype(np.float32)  # (K, H, W, C)
    size = pixels.shape[1], pixels.shape[2]
    for i, goal in enumerate(goals):
        yield Made(
            target=str(goal.target),
            quantity=goal.target.quantity,
            pixels=pixels[i],
            reached=float(peaks.scores[i]),
            lowered=goal.lowered,
            copy=goal.copy,
            channel=_channel(goal.target),
            responded=bool(peaks.moved[i]),
            crops=() if index is None else tuple(crop_best(index, require_unit(goal.target), CROPS, size)),
        )


def _channel(target: Target) -> int | None:
    """The number of the unit that a target is, where it is one."""
    channel = getattr(target.terms[0][1], "channel", None)
    return channel if len(target.terms) == 1 and isinstance(channel, int) else None


def _making(used: Recipe) -> Making:
    usual = RECIPES.get(used.name, used).penalty
    own = {name: getattr(used.penalty, name) for name in ("l1", "l2", "tv")}
    return Making(used.name, used.steps, {n: weight for n, weight in own.items() if weight != getattr(usual, n)})


_PAPERS = {
    "lecture": "Simonyan et al. 2014, arXiv:1312.6034",
    "mahendran": "Mahendran & Vedaldi 2016, arXiv:1512.02017",
    "lucid": "Olah et al. 2017, doi:10.23915/distill.00007",
    "robust": "Olah et al. 2017, doi:10.23915/distill.00007",
    "maco": "Fel et al. 2023, arXiv:2306.06805",
} | {f"yosinski-{number}": "Yosinski et al. 2015, arXiv:1506.06579" for number in range(1, 5)}

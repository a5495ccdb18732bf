"""Maximize: pictures that make a unit respond most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from vizcnn.ascent import RECIPES, Maco, Objective, Outcome, Recipe, check_objectives, find_recipe, optimize
from vizcnn.errors import ParameterError, TargetError
from vizcnn.models.determinism import check_without_images
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.model import Model
from vizcnn.models.outputs import Unsettled
from vizcnn.models.targets import OUTPUT, Target, parse_targets
from vizcnn.probing.facts import Facts, refuse_unsteady
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Optimised
from vizcnn.results.sheet import CROPS, Made, Making, RealImages, arrange
from vizcnn.scanning import Index, Maps, crop_best, find_channel, read_maps, refuse_other_network, require_unit

_NAMED = 3  # targets that a rehearsal names
_CLASSES = 10  # how many classes are drawn where no target was given
# by network, of the data that it was trained on
_SPECTRA = {"tiny": "tiny", "eleven": "tiny", "lecture": "mnist", "simple": "mnist"}
_TOLERANCE = 0.05  # share by which scores may differ between precisions
_GIVEN_UP = "bfloat16 gave values more than 5% off, so float32 was used after all"


class Maximize(Probe[Optimised]):
    """What would this filter, neuron or class like to see?

    Each picture begins as noise and is changed step by step along the gradient until its target is large: a channel's
    mean, one neuron, a class's logit, a layer's energy, or a sum of these. It shows one thing that excites the unit,
    exaggerated; photographs that excite it look different, and a picture for a class can be noise to a person.

    All pictures for one layer are optimised together, and each comes out as it would alone. The number below a picture
    is its score in the network, without the movements that it was optimised with. Where a ReLU lets nothing through,
    the gradient is redirected until it does; a unit that never responds is named.

    Without a target: the first ten classes. `layer2:0-15` are sixteen channels. A class of a segmentation is its mean
    over all positions.
    Recipes: lecture (plain pixels), yosinski-1 to -4 (blur, clipping), mahendran (total variation), lucid (waves,
    movements), robust (the same with larger movements and noise), quick (robust in a quarter of its time), maco (the
    amplitudes of real images).

        >>> import vizcnn
        >>> result = vizcnn.Maximize(steps=4)(vizcnn.load("lecture"), target=["conv2:7", 3])
        >>> result.provenance.targets
        (('conv2:7', '3'),)

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
    batch: int | None = param(
        None, "Pictures optimised together; changes memory and time only. By default by free memory.", min=1
    )
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
        """The preset. The option may be a name, but that was parsed when this object was made."""
        assert isinstance(self.preset, Recipe)
        return self.preset

    def default_targets(self, model: Model) -> Sequence[Any]:
        return list(range(min(_CLASSES, _count_classes(model))))

    def input_size(self, model: Model) -> tuple[int, int]:
        return (self.size, self.size) if self.size else model.input.size

    def keeps_frames(self) -> bool:
        return self.frames > 0

    def rehearse(self, facts: Facts) -> str:
        model = facts.model
        asked = [facts.target.spec] if facts.given and facts.target else self.default_targets(model)  # as one types it
        refuse_unsteady(facts)
        targets = tuple(one.resolved(model) for one in parse_targets(asked))
        objectives = [Objective(one) for one in check_without_images(model, targets, self.input_size(model))]
        check_objectives(model, objectives, size=self.input_size(model))
        return _list_few([str(one.target) for one in objectives])

    def compute(self, subject: Subject) -> Optimised:
        recipe = self.choose_recipe(subject.model)
        objectives = _sort_by_panel(list(self._list_objectives(subject.targets[0])))
        index = self._open_index(subject)
        maps = {} if index is None else _read_maps(subject, index)  # first: Ctrl-C here loses no picture
        outcome, precision = self._optimize(subject, objectives, recipe)
        begun = [objectives[i] for i in outcome.indices]
        provenance = subject.provenance(
            paper=_PAPERS.get(recipe.name, self.paper),
            recipe=recipe.name,
            steps=recipe.steps,
            size=tuple(outcome.pictures.shape[2:]),
            precision=precision,
            **({"drawn": subject.model.input.drawn} if subject.model.input.drawn else {}),
            **({"spectrum": recipe.parametrization.like} if isinstance(recipe.parametrization, Maco) else {}),
        )
        return arrange(
            provenance,
            list(_list_pictures(begun, outcome, index, maps)),
            _summarize(recipe),
            outcome.frames.permute(0, 1, 3, 4, 2).numpy(),  # (F, K, H, W, C)
            crops_from=None if index is None else RealImages(len(index.names), index.rank),
            notes=(_GIVEN_UP,) if precision != self.precision else (),
            interrupted_of=None if outcome.finished else len(objectives),
        )

    def _open_index(self, subject: Subject) -> Index | None:
        if self.crops is None:
            return None
        index = Index.open(self.crops)
        refuse_other_network(index, subject.identity["weights_sha256"])
        for target in subject.targets[0]:
            find_channel(index, require_unit(target))  # refuses what is not in the index before anything is optimised
        return index

    def choose_recipe(self, model: Model) -> Recipe:
        """The preset, with the options that were given in place of its own."""
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

    def _list_objectives(self, targets: Sequence[Target]) -> Iterator[Objective]:
        for lowered in {"positive": [False], "negative": [True], "both": [False, True]}[self.sign]:
            for target in targets:
                yield from (Objective(target, copy, lowered) for copy in range(self.copies))

    def _optimize(self, subject: Subject, objectives: Sequence[Objective], recipe: Recipe) -> tuple[Outcome, str]:
        """The pictures, and the precision they were made in."""
        outcome = self._optimize_in(self.precision, subject, objectives, recipe)
        if self.precision != "float32" and outcome.finished:
            differences = (outcome.computed - outcome.scores).abs()  # of the scores in this precision and in full
            if not (differences <= _TOLERANCE * outcome.scores.abs()).all():
                return self._optimize_in("float32", subject, objectives, recipe), "float32"
        return outcome, self.precision

    def _optimize_in(
        self,
        precision: Literal["float32", "bfloat16"],
        subject: Subject,
        objectives: Sequence[Objective],
        recipe: Recipe,
    ) -> Outcome:
        return optimize(
            subject.model,
            objectives,
            recipe,
            size=self.input_size(subject.model),
            seed=subject.seed,
            diversity=self.diversity,
            precision=precision,
            batch=self.batch,
            frames=self.frames,
            label=self.name(),
            progress=subject.progress,
        )


def _list_few(names: Sequence[str]) -> str:
    """Names in a list, of many the first and how many more there are."""
    first = ", ".join(names[:_NAMED])
    return first if len(names) <= _NAMED else f"{first} and {len(names) - _NAMED} more"


def _count_classes(model: Model) -> int:
    """How many classes the network tells apart. Raises TargetError."""
    with torch.no_grad():
        output = read_activations(model, model.grey(), [OUTPUT])[OUTPUT]
    if isinstance(output, Unsettled):
        raise TargetError(f"{output.reason}. Or name a unit, such as LAYER:CHANNEL")
    return int(output.shape[1])


def _sort_by_panel(objectives: Sequence[Objective]) -> list[Objective]:
    """The objectives panel by panel: a panel holds one quantity, either raised or lowered."""
    panels = [(one.target.quantity, one.lowered) for one in objectives]
    return [objectives[i] for i in sorted(range(len(panels)), key=lambda i: panels.index(panels[i]))]


def _read_maps(subject: Subject, index: Index) -> Maps:
    """The targets' maps in their best images, where units see most of an image."""
    return read_maps(index, subject.model, map(require_unit, subject.targets[0]), CROPS, progress=subject.progress)


def _list_pictures(
    objectives: Sequence[Objective], outcome: Outcome, index: Index | None, maps: Maps
) -> Iterator[Made]:
    """Each picture with what it was made for, and with crops from the index where there is one."""
    pixels = outcome.pictures.permute(0, 2, 3, 1).numpy().astype(np.float32)  # (K, H, W, C)
    size = pixels.shape[1], pixels.shape[2]
    for i, objective in enumerate(objectives):
        terms = objective.target.terms
        channel = getattr(terms[0][1], "channel", None) if len(terms) == 1 else None
        yield Made(
            target=str(objective.target),
            quantity=objective.target.quantity,
            pixels=pixels[i],
            reached=float(outcome.scores[i]),
            lowered=objective.lowered,
            copy=objective.copy,
            channel=channel if isinstance(channel, int) else None,
            responded=bool(outcome.moved[i]),
            crops=() if index is None else tuple(crop_best(index, require_unit(objective.target), CROPS, size, maps)),
        )


def _summarize(recipe: Recipe) -> Making:
    """What is said of a recipe: of the penalties' weights, those that are not its own."""
    usual = RECIPES.get(recipe.name, recipe).penalty
    weights = {name: getattr(recipe.penalty, name) for name in ("l1", "l2", "tv")}
    changed = {name: weight for name, weight in weights.items() if weight != getattr(usual, name)}
    return Making(recipe.name, recipe.steps, changed)


_PAPERS = {
    "lecture": "Simonyan et al. 2014, arXiv:1312.6034",
    "mahendran": "Mahendran & Vedaldi 2016, arXiv:1512.02017",
    "lucid": "Olah et al. 2017, doi:10.23915/distill.00007",
    "robust": "Olah et al. 2017, doi:10.23915/distill.00007",
    "quick": "Olah et al. 2017, doi:10.23915/distill.00007",
    "maco": "Fel et al. 2023, arXiv:2306.06805",
} | {f"yosinski-{number}": "Yosinski et al. 2015, arXiv:1506.06579" for number in range(1, 5)}

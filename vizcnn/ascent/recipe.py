"""Recipes: named settings of gradient ascent, each as its source gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vizcnn.ascent.parametrization import Fourier, Maco, Parametrization, Pixels
from vizcnn.ascent.regularizers import Penalty, Repair
from vizcnn.ascent.transforms import Transforms
from vizcnn.errors import ParameterError, did_you_mean


@dataclass(frozen=True)
class Recipe:
    """How pictures are optimised: one of each part of gradient ascent, and the steps.

    parametrization: how pictures come from what is optimised. transforms: how they are moved before the network sees
        them. penalty: what is subtracted from the target. repair: what is done to pixels between steps.
    optimiser: `adam`, `nadam`, `lbfgs`, or `ascent`: plain steps along the gradient, scaled to a root mean square of 1
        for each picture, of length `rate`.
    steps: how many.
    keep: which state is the result: the `last`, or the `best`, whose target less the penalty was highest. A step can
        lead astray, most of all one of L-BFGS that is cut off at black or white.
    """

    name: str
    parametrization: Parametrization = field(default_factory=Fourier)
    transforms: Transforms = field(default_factory=Transforms)
    penalty: Penalty = field(default_factory=Penalty)
    repair: Repair = field(default_factory=Repair)
    optimiser: Literal["adam", "nadam", "ascent", "lbfgs"] = "adam"
    rate: float = 0.05
    steps: int = 256
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        if not self.repair.is_none and not isinstance(self.parametrization, Pixels):
            raise ParameterError(f"recipe {self.name}: repairs change pixels, so the parametrization must be Pixels()")
        if self.steps < 1 or self.rate <= 0:
            raise ParameterError(f"recipe {self.name}: steps and rate must be positive, got {self.steps}, {self.rate}")


def _make_yosinski(number: int, repair: Repair) -> Recipe:
    return Recipe(f"yosinski-{number}", Pixels(), repair=repair, optimiser="ascent", rate=0.05)


_LARGE = Transforms(jitter=0.08, scale=0.15, rotate=15, noise=0.1)

_ALL = (
    Recipe("lecture", Pixels(), penalty=Penalty(origin="black"), optimiser="ascent", rate=0.02),
    # The four settings of Yosinski et al. 2015, table 1; the length of a step is ours.
    _make_yosinski(1, Repair(blur=0.5, every=4, small_norm=50)),
    _make_yosinski(2, Repair(decay=0.3, small_norm=20)),
    _make_yosinski(3, Repair(decay=0.0001, blur=1.0, every=4)),
    _make_yosinski(4, Repair(blur=0.5, every=4, small_contribution=90)),
    Recipe("mahendran", Pixels(), Transforms(jitter=0.06), Penalty(alpha=1e-4, tv=0.01), rate=0.02),
    Recipe("lucid", Fourier(), Transforms(jitter=0.06, scale=0.1, rotate=10)),
    Recipe("robust", Fourier(), _LARGE),
    Recipe("quick", Fourier(), _LARGE, rate=0.1, steps=60),
    Recipe("maco", Maco(), Transforms(jitter=0.06, crop=0.25, noise=0.05), optimiser="nadam", rate=1.0),
)

RECIPES = {one.name: one for one in _ALL}
"""lecture: plain pixels. yosinski-1 to -4: blur and clipping. mahendran: total variation and a bound on brightness.
lucid: waves and transforms. robust: lucid with larger movements and noise, which measures best. quick: robust in a
quarter of the time, with fewer and longer steps.
maco: the amplitudes of real images, phases optimised."""


def find_recipe(name: str) -> Recipe:
    """The recipe of this name. Raises ValueError saying which there are."""
    if name not in RECIPES:
        near = did_you_mean(name, RECIPES).strip()
        raise ValueError(f"one of {', '.join(RECIPES)}{near and f' ({near})'}")
    return RECIPES[name]


def require_recipe(given: Recipe | str) -> Recipe:
    """A recipe, or that of a name. Raises ParameterError."""
    if isinstance(given, Recipe):
        return given
    try:
        return find_recipe(given)
    except ValueError as error:
        raise ParameterError(f"recipe must be {error}, got {given!r}") from None

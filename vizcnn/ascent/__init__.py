"""Gradient ascent on images: pictures that make a target large.

A picture x = render(p) is optimised by way of its parameters p, so that

    target(network(transform(x))) - penalty(x)

becomes large. Each part is a module that can be read alone: how a picture comes from its parameters
(`parametrization`), how it is moved about before the network sees it (`transforms`), and what keeps it from becoming
noise (`regularizers`). A `Recipe` names one of each; `optimize` is the loop that runs it for a list of objectives.
"""

from vizcnn.ascent.checks import check_objectives
from vizcnn.ascent.diversity import compute_gram
from vizcnn.ascent.loop import optimize
from vizcnn.ascent.objective import Objective, score_pictures
from vizcnn.ascent.outcome import Outcome
from vizcnn.ascent.parametrization import Fourier, Maco, Parametrization, Pixels
from vizcnn.ascent.recipe import RECIPES, Recipe, find_recipe
from vizcnn.ascent.regularizers import Penalty, Repair
from vizcnn.ascent.transforms import Transforms

__all__ = [
    "RECIPES",
    "Fourier",
    "Maco",
    "Objective",
    "Outcome",
    "Parametrization",
    "Penalty",
    "Pixels",
    "Recipe",
    "Repair",
    "Transforms",
    "check_objectives",
    "compute_gram",
    "find_recipe",
    "optimize",
    "score_pictures",
]


def __dir__() -> list[str]:
    return [*__all__]

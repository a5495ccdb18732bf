"""Gradient ascent on images: pictures that make a target large.

Four parts that know nothing of each other: the targets to raise, how a picture is parametrised (`canvas`), how it is
moved about before the network sees it (`warp`), and what holds it back (`restraint`). A `recipe` names one of each;
`climb` runs them.
"""

from vizcnn.ascent.alike import gram
from vizcnn.ascent.canvas import Canvas, Fourier, Maco, Pixels
from vizcnn.ascent.loop import Goal, Peaks, climb, values
from vizcnn.ascent.recipe import RECIPES, Recipe, recipe
from vizcnn.ascent.restraint import Penalty, Repair
from vizcnn.ascent.warp import Warp

__all__ = [
    "RECIPES",
    "Canvas",
    "Fourier",
    "Goal",
    "Maco",
    "Peaks",
    "Penalty",
    "Pixels",
    "Recipe",
    "Repair",
    "Warp",
    "climb",
    "gram",
    "recipe",
    "values",
]

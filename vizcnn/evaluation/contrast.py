"""Contrast: the class that a network did not choose, whose map should look otherwise."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from vizcnn.models.model import Model
from vizcnn.models.targets import Target
from vizcnn.models.terms import Unit


def choose_contrast(model: Model, target: Target, output: Tensor | None) -> Target | str:
    """The class of middling rank among the others, for which a map is compared with the target's; or why there is none.

    The second best class may share the first one's evidence, and the last may be the opposite of it.
    target: resolved. output: the network's for the image, (K,)."""
    ((weight, unit), *others) = target.terms
    if others or not isinstance(unit, Unit) or unit.layer:
        return f"{target} is no class"
    if unit.has_place:
        return f"{target} is about a part of the output, and no class of the whole image"
    if output is None or output.dim() != 1:
        return "the network's output is not one number for each class"
    if len(output) < 2:
        return "the network has one output, and no other class to compare with"
    order = [i for i in output.argsort(descending=True).tolist() if i != unit.channel]
    index = order[len(order) // 2]
    other = replace(unit, channel=index, label=model.class_name(index))
    return Target(((weight, other),)).resolved(model)

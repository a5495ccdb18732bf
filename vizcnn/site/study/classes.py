"""Classes: the page of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vizcnn.site.records import ClassPage, Missing, Picture, Vote
from vizcnn.site.study.material import Material
from vizcnn.site.study.units import find_pictures

EXAMPLES, VOTES, EARLY, CONFUSED = 12, 12, 4, 6
"""How many images, units for and against, units of each layer, and mistaken classes the page of a class lists."""

_MEAN = ("mean over all places",)  # what may stand between the last hidden site and the output


def describe_classes(material: Material) -> Iterator[ClassPage]:
    """The pages of all classes, in order; none where the output is not a number for each of several classes."""
    if material.output is None:
        return
    pictures = find_pictures(material, material.output)
    means = {i: material.class_means(i) for i in material.hidden}
    ratios = {i: _divide_by_mean(means[i]) for i in material.hidden}
    for number in range(len(material.classes)):
        yield _describe_class(material, number, pictures[number], means, ratios)


def _describe_class(
    material: Material,
    number: int,
    picture: Picture | Missing,
    means: dict[int, npt.NDArray[np.float64]],
    ratios: dict[int, npt.NDArray[np.float64]],
) -> ClassPage:
    own = material.labels == number
    answered = own & (material.predicted >= 0)
    right = int((own & (material.predicted == number)).sum())
    return ClassPage(
        images=int(own.sum()),
        right=right if material.has_labels else material.no_labels,
        picture=picture,
        examples=_list_examples(material, number),
        votes=_list_votes(material, number, means),
        early=_list_early(number, ratios) if own.any() else _explain_none(material),
        taken_for=_count(material.predicted[answered & (material.predicted != number)]),
        taken_from=_count(material.labels[(material.predicted == number) & ~own & (material.labels >= 0)]),
    )


def _explain_none(material: Material) -> Missing:
    """Why nothing is known of what a class's images do."""
    return Missing("It has no images.") if material.has_labels else material.no_labels


def _list_examples(material: Material, number: int) -> tuple[int, ...]:
    """Images of a class, or those that are taken for it where there are no labels; those named so first, surest
    first."""
    chosen = np.flatnonzero((material.labels if material.has_labels else material.predicted) == number)
    sure = np.where(material.predicted[chosen] == number, np.nan_to_num(material.probabilities[chosen]), -1)
    return tuple(chosen[np.argsort(-sure, kind="stable")][:EXAMPLES].tolist())


def _list_votes(
    material: Material, number: int, means: dict[int, npt.NDArray[np.float64]]
) -> tuple[Vote, ...] | Missing:
    """The units of the last hidden site for and against a class: weight x mean over the class's images."""
    assert material.output is not None
    output = material.site(material.output)
    origins = output.paths[0].origins if len(output.paths) == 1 else ()
    source = material.sites.source(origins[0].source) if len(origins) == 1 else None
    path = output.paths[0] if output.paths else None
    if path is None or path.weights is None or source is None or path.shape[1:] != (1, 1):
        return Missing("The output does not read one layer through one dense layer.")
    if origins[0].via not in ((), _MEAN) or output.activation:
        return Missing("The output does not read the means of one layer.")
    own = means[source][:, number]
    if np.isnan(own).any():
        return _explain_none(material)
    weights = path.fold()[number, :, 0, 0]
    values = weights * own
    order = np.argsort(-values, kind="stable")
    chosen = [*order[: VOTES // 2], *order[max(VOTES // 2, len(order) - VOTES // 2) :]]
    return tuple(Vote(source, int(k), float(values[k]), float(weights[k])) for k in chosen)


def _divide_by_mean(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each unit's mean over a class's images as a multiple of its mean over all classes (C, K); NaN where that says
    nothing, as where means are not all positive."""
    known = ~np.isnan(means)
    total = np.where(known, means, 0).sum(1) / np.maximum(1, known.sum(1))
    says = (total > 0) & (np.where(known, means, 0).min(1) >= 0)
    divided: npt.NDArray[np.float64] = np.where(says[:, None], means / np.where(says, total, 1)[:, None], np.nan)
    return divided


def _list_early(
    number: int, ratios: dict[int, npt.NDArray[np.float64]]
) -> tuple[tuple[int, tuple[tuple[int, float], ...]], ...]:
    found = []
    for i, ratio in ratios.items():
        own = ratio[:, number]
        units = [int(k) for k in np.argsort(-np.nan_to_num(own, nan=-1), kind="stable")[:EARLY] if own[k] > 0]
        if units:
            found.append((i, tuple((k, float(own[k])) for k in units)))
    return tuple(found)


def _count(classes: Sequence[int] | npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    numbers, counts = np.unique(np.asarray(classes, np.int64), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSED]
    return tuple((int(numbers[k]), int(counts[k])) for k in order)

"""Records as plain values for a page's script. Lists stand for what comes thousands of times, keys for all else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from vizcnn.anatomy.changes import Changes
from vizcnn.geometry import Box
from vizcnn.receptive.field import ReceptiveField
from vizcnn.site.comparison import Answers, Beside, Comparison
from vizcnn.site.packing import clean, describe, pack, pack_halves, pack_signed, round_number, to_missing
from vizcnn.site.records import (
    ByHand,
    ClassPage,
    Crop,
    Effect,
    Floats,
    Folded,
    Histogram,
    ImagePage,
    Images,
    Layer,
    Link,
    MapOf,
    Missing,
    Network,
    Origin,
    Picture,
    Reading,
    Unit,
    Wall,
)

DENSE = 256
"""The most classes for which a wall has the mean of every unit over every class; beyond, it has the best of each."""

BEST = 20
"""How many classes of a unit a wall has where there are too many for all."""

_T = TypeVar("_T")


def _or_missing(value: _T | Missing, enter: Callable[[_T], Any]) -> Any:
    return to_missing(value) if isinstance(value, Missing) else enter(value)


def enter_network(network: Network, pictured: Sequence[bool | str]) -> dict[str, Any]:
    """The overview. pictured: for each layer whether its units have pictures: all, none, or a bit of each in base64."""
    return {
        "title": clean(network.title),
        "input": network.input,
        "parameters": network.parameters,
        "classes": [clean(name) for name in network.classes],
        "images": network.images,
        "accuracy": describe(network.accuracy),
        "graph": to_missing(network.graph) if network.graph else None,
        "notes": {clean(page): clean(note) for page, note in network.notes.items()},
        "origin": enter_origin(network.origin),
        "layers": [_enter_layer(layer, has) for layer, has in zip(network.layers, pictured, strict=True)],
    }


def enter_origin(origin: Origin) -> dict[str, Any]:
    """What the site was made from, also for whoever reads its folder without a browser."""
    return {
        "version": origin.version,
        "made": origin.made,
        "model": clean(origin.model),
        "weights": origin.weights,
        "data": clean(origin.data),
        "fingerprint": origin.fingerprint,
        "options": [[clean(name), clean(value)] for name, value in origin.options],
    }


def _enter_layer(layer: Layer, pictured: bool | str) -> dict[str, Any]:
    return {
        "name": clean(layer.name),
        "read": clean(layer.read),
        "stage": clean(layer.stage),
        "shape": layer.shape,
        "paths": [
            {
                "source": path.source,
                "weights": clean(path.weights),
                "norm": clean(path.norm),
                "kernel": path.kernel,
                "groups": path.groups,
                "via": [clean(step) for step in path.via],
                "joined": path.is_joined,
            }
            for path in layer.paths
        ],
        "activation": layer.activation,
        "slope": layer.slope,
        "parameters": layer.parameters,
        "field": _or_missing(layer.field, _enter_field),
        "zeros": describe(layer.zeros),
        "dead": describe(layer.dead),
        "always": describe(layer.always_on),
        "strongest": layer.strongest,
        "output": layer.is_output,
        "pictured": pictured,
    }


def _enter_field(field: ReceptiveField) -> dict[str, Any]:
    return {
        "size": field.size,
        "stride": [round_number(step) for step in field.stride],
        "offset": [round_number(start) for start in field.offset],
    }


def _enter_sides(field: ReceptiveField) -> list[list[int]]:
    """Where the boxes of a layer's places lie: top, bottom, left, right."""
    return [side.tolist() for side in (field.top, field.bottom, field.left, field.right)]


def enter_wall(layer: Layer, wall: Wall, kernels: Sequence[Floats | None]) -> dict[str, Any]:
    """All units of a layer at a glance. kernels: of units that read the image."""
    floats = {
        "high": wall.highest,
        "mean": wall.mean,
        "zeros": wall.zeros,
        "select": wall.selectivity,
        "effect": wall.effect,
    }
    entered = [None if kernel is None else enter_kernel(kernel) for kernel in kernels]
    return {
        **{name: pack(values, np.float32) for name, values in floats.items()},
        "dead": np.flatnonzero(wall.dead).tolist(),
        "best": pack(wall.best_class, np.int32),
        "estimated": np.flatnonzero(wall.is_estimated).tolist(),
        "of": clean(wall.effect_of),
        "means": _or_missing(wall.class_means, _enter_means),
        "sides": None if isinstance(layer.field, Missing) else _enter_sides(layer.field),
        "kernels": entered if any(entered) else None,
    }


def _enter_means(means: Floats) -> dict[str, Any]:
    """Each unit's means over the classes as shares of its highest, in bytes; of many classes the best few alone."""
    without = np.isnan(means).all(0)  # classes of which there are no images
    known = np.nan_to_num(means)
    top = np.maximum(known.max(1, keepdims=True, initial=0), 1e-30)  # (C, 1)
    shares = np.round(np.clip(known / top, 0, 1) * 255)  # (C, classes)
    average = np.clip(known / top, 0, 1).sum(1) / max(1, (~without).sum())
    entered = {"average": pack(average, np.float32), "without": np.flatnonzero(without).tolist()}
    if means.shape[1] <= DENSE:
        return {"all": pack(shares, np.uint8), **entered}
    order = np.argsort(-shares, axis=1, kind="stable")[:, :BEST]
    best = np.take_along_axis(shares, order, 1)
    return {
        "best": BEST,
        "class": pack(order, np.uint16),
        "share": pack(best, np.uint8),
        **entered,
    }


def enter_unit(unit: Unit, edges: list[Floats]) -> dict[str, Any]:
    """The page of a unit. edges: those of all histograms of the file; this unit's are added where they are new."""
    return {
        "crops": [enter_crop(crop) for crop in unit.crops],
        "picture": enter_picture(unit.picture),
        "hist": _or_missing(unit.histogram, lambda histogram: _enter_histogram(histogram, edges)),
        "mean": round_number(unit.mean),
        "sd": round_number(unit.sd),
        "low": round_number(unit.lowest),
        "high": round_number(unit.highest),
        "zeros": describe(unit.zeros),
        "classes": _or_missing(unit.classes, _enter_means_of_classes),
        "overall": describe(unit.overall),
        "effect": _or_missing(unit.effect, _enter_effect),
        "reads": _or_missing(unit.reads, lambda links: [_enter_link(link) for link in links]),
        "feeds": _or_missing(unit.feeds, lambda links: [_enter_link(link) for link in links]),
        "are": [clean(unit.reads_are), clean(unit.feeds_are)],
        "near": _or_missing(
            unit.neighbours, lambda near: [[n.layer, n.unit, round_number(n.correlation, 3)] for n in near]
        ),
        "kernel": None if unit.kernel is None else enter_kernel(unit.kernel),
    }


def _enter_means_of_classes(classes: Sequence[tuple[int, float]]) -> list[Any]:
    return [[c, round_number(mean)] for c, mean in classes]


def enter_crop(crop: Crop) -> list[Any]:
    return [crop.image, round_number(crop.value), crop.place, enter_box(crop.box)]


def enter_box(box: Box | None) -> list[Any] | None:
    """Top, left, bottom and right in px of the input."""
    return None if box is None else [round_number(side, 5) for side in (box.top, box.left, box.bottom, box.right)]


def enter_picture(picture: Picture | Missing) -> Any:
    """What an optimised picture reaches, or why there is none."""
    return _or_missing(picture, lambda made: round_number(made.reached))


def _enter_histogram(histogram: Histogram, edges: list[Floats]) -> list[Any]:
    """Zeros, the number of its edges, the first bin with anything in it, and the counts up to the last such."""
    own = next((n for n, known in enumerate(edges) if np.array_equal(known, histogram.edges)), len(edges))
    if own == len(edges):
        edges.append(histogram.edges)
    filled = np.flatnonzero(histogram.counts)
    first, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    return [histogram.zeros, own, first, histogram.counts[first:end].tolist()]


def enter_edges(edges: Floats) -> list[Any]:
    """The edges of bins; None at an open end."""
    return [round_number(edge) for edge in edges.tolist()]


def _enter_effect(effect: Effect) -> dict[str, Any]:
    return {
        "change": round_number(effect.change, 3),
        "images": effect.images,
        "flips": effect.flips,
        "before": None if effect.before is None else round_number(effect.before),
        "after": None if effect.after is None else round_number(effect.after),
        "classes": [[c, round_number(change, 3)] for c, change in effect.by_class],
        "of": clean(effect.of),
        "r": None if effect.correlation is None else round_number(effect.correlation, 3),
        "checked": effect.checked,
    }


def _enter_link(link: Link) -> list[Any]:
    kernel = None if link.kernel is None else enter_kernel(link.kernel[..., None])
    return [link.layer, link.unit, link.path, round_number(link.value, 3), kernel]


def enter_kernel(kernel: Floats) -> list[Any]:
    """Columns, channels and bytes of a kernel (rows, columns, channels)."""
    return [kernel.shape[1], kernel.shape[2], pack_signed(kernel)[0]]


def enter_class(page: ClassPage) -> dict[str, Any]:
    return {
        "n": page.images,
        "right": describe(page.right),
        "picture": enter_picture(page.picture),
        "examples": page.examples,
        "votes": _or_missing(
            page.votes,
            lambda votes: [[v.layer, v.unit, round_number(v.value, 3), round_number(v.weight, 3)] for v in votes],
        ),
        "early": _or_missing(
            page.early,
            lambda early: [[layer, [[k, round_number(ratio, 3)] for k, ratio in units]] for layer, units in early],
        ),
        "as": page.taken_for,
        "from": page.taken_from,
    }


def enter_beside(unit: Beside) -> dict[str, Any]:
    """A unit of another network."""
    return {
        "crops": [enter_crop(crop) for crop in unit.crops],
        "picture": enter_picture(unit.picture),
        "mean": round_number(unit.mean),
        "high": round_number(unit.highest),
        "zeros": None if isinstance(unit.zeros, Missing) else round_number(unit.zeros),
        "classes": _or_missing(unit.classes, _enter_means_of_classes),
        "overall": describe(unit.overall),
        "effect": _or_missing(unit.effect, _enter_effect),
    }


def enter_comparison(comparison: Comparison, pictured: Mapping[int, bool | str]) -> dict[str, Any]:
    """Two networks at a glance. pictured: by layer whether the other's units have pictures, as for `enter_network`."""
    return {
        "weights": comparison.weights,
        "images": comparison.images,
        "accuracy": describe(comparison.accuracy),
        "layers": [
            [i, _or_missing(found, _enter_changes), pictured.get(i, False)] for i, found in comparison.layers.items()
        ],
        "left": [[clean(name), clean(reason)] for name, reason in comparison.left_out],
        "answers": _or_missing(comparison.answers, _enter_answers),
    }


def _enter_changes(found: Changes) -> dict[str, str]:
    return {
        "change": pack(found.change, np.float32),
        "nearest": pack(found.nearest, np.int32),
        "like": pack(found.likeness, np.float32),
    }


def _enter_answers(answers: Answers) -> dict[str, Any]:
    return {
        "agree": round_number(answers.agree),
        "classes": _or_missing(answers.classes, list),
        "gained": [answers.gained, answers.gained_shown],
        "lost": [answers.lost, answers.lost_shown],
    }


def enter_images(images: Images) -> dict[str, Any]:
    """The labels and answers of all images."""
    return {
        "label": pack(images.labels, np.int32),
        "said": pack(images.predicted, np.int32),
        "sure": pack(images.probabilities, np.float16),
    }


def enter_image(page: ImagePage) -> dict[str, Any]:
    return {
        "answers": [[c, round_number(p, 4)] for c, p in page.answers],
        "maps": [_enter_map(one) for one in page.maps],
        "unmade": [clean(why) for why in page.unmade],
        "fired": _or_missing(
            page.fired,
            lambda fired: [
                [layer, [[f.unit, round_number(f.value, 3), round_number(f.share, 3), enter_box(f.box)] for f in units]]
                for layer, units in fired
            ],
        ),
    }


def _enter_map(one: MapOf) -> dict[str, Any]:
    values, end = pack_signed(one.values)
    return {
        "method": clean(one.method),
        "meaning": clean(one.meaning),
        "target": clean(one.target),
        "size": one.values.shape,
        "values": values,
        "end": round_number(end, 3),
        "signed": bool((one.values < 0).any()),
        "trust": _or_missing(
            one.trust,
            lambda trust: {"sign": trust.sign, "verdict": trust.verdict, "why": [clean(s) for s in trust.sentences]},
        ),
    }


def enter_weights(hand: ByHand) -> list[Any]:
    return [None if term is None else _enter_folded(term) for term in hand.terms]


def _enter_folded(term: Folded) -> dict[str, Any]:
    return {
        "weight": pack_halves(term.weight),
        "bias": pack(term.bias, np.float32),
        "stride": term.stride,
        "padding": term.padding,
        "dilation": term.dilation,
        "groups": term.groups,
    }


def enter_reading(reading: Reading) -> dict[str, Any]:
    return {"reads": [pack_halves(one) for one in reading.reads], "says": pack_halves(reading.says)}

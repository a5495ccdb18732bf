"""Units: the page of each unit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vizcnn.anatomy import links as anatomy
from vizcnn.anatomy.pictures import make_pictures
from vizcnn.errors import NotDifferentiable
from vizcnn.geometry import Box
from vizcnn.graph.paths import Path
from vizcnn.graph.sites import Site
from vizcnn.scanning.statistics import LEVELS, compute_bin_edges
from vizcnn.site.records import Crop, Floats, Histogram, Link, Missing, Neighbour, Picture, Unit
from vizcnn.site.study.layers import CUT_OFF, NOT_CUT_OFF, find_way, list_ways
from vizcnn.site.study.material import Material
from vizcnn.site.study.numbers import Numbers

LINKS, CLASSES = 8, 8
"""How many links each way, and how many classes, the page of a unit lists."""

_LARGEST_KERNEL = 11  # px, that a link shows


def describe_units(material: Material, numbers: Numbers, i: int) -> Iterator[Unit]:
    """The pages of a site's units, in order."""
    pictures = find_pictures(material, i)
    means = material.class_means(i)
    for unit in range(material.site(i).shape[0]):
        yield _describe_unit(material, numbers, i, unit, pictures[unit], means[unit])


def find_pictures(material: Material, i: int) -> list[Picture | Missing]:
    """An optimised picture of each unit of a site, or why there is none."""
    site, plan, tally = material.site(i), material.plan, material.tally(i)
    count = site.shape[0]
    if plan.pictures is not None and site.name not in plan.pictures:
        return [Missing("It was not asked for.")] * count
    try:
        with material.model.borrowed():
            made = make_pictures(
                material.model, site, range(count), plan.recipe, seed=plan.seed, keeper=material.keeper,
                progress=material.progress,
            )  # fmt: skip
    except NotDifferentiable:
        return [Missing("It takes a gradient, and none leads from this layer to the image.")] * count
    silent = Missing("No image excites it, and neither did the picture that was made for it.")
    lowest = np.minimum(tally.lowest.numpy(), 0)
    return [
        silent if tally.highest[k] <= 0 and site.activation in CUT_OFF and made.reached[k] <= lowest[k]
        else Picture(made.pixels[k], float(made.reached[k]))
        for k in range(count)
    ]  # fmt: skip


def _describe_unit(
    material: Material, numbers: Numbers, i: int, unit: int, picture: Picture | Missing, means: npt.NDArray[np.float64]
) -> Unit:
    site, statistics = material.site(i), material.tally(i).statistics(unit)
    classes, overall = rank_classes(material, means)
    return Unit(
        crops=tuple(list_crops(material, i, unit)),
        picture=picture,
        histogram=_count_activations(material, i, unit),
        mean=statistics["mean"],
        sd=statistics["sd"],
        lowest=statistics["lowest"],
        highest=statistics["highest"],
        zeros=statistics["share of zeros"] if site.activation in CUT_OFF else NOT_CUT_OFF,
        classes=classes,
        overall=overall,
        effect=numbers.find_effect(i, unit),
        reads=_list_reads(material, numbers, i, unit),
        feeds=_list_feeds(material, numbers, i, unit),
        neighbours=_list_neighbours(numbers, i, unit),
        kernel=_find_input_kernel(material, site, unit),
    )


def rank_classes(
    material: Material, means: npt.NDArray[np.float64]
) -> tuple[tuple[tuple[int, float], ...] | Missing, float | Missing]:
    """The classes that a unit responds to most with its means over their images, best first, and the mean of its means
    over all classes. means: (K,), NaN for classes without images."""
    known = np.flatnonzero(~np.isnan(means))
    if not len(known):
        return material.no_labels, material.no_labels
    best = known[np.argsort(-means[known], kind="stable")][:CLASSES]
    return tuple((int(c), float(means[c])) for c in best), float(means[known].mean())


def list_crops(material: Material, i: int, unit: int) -> Iterator[Crop]:
    """What excites a unit of a site most, best first."""
    tally, site = material.tally(i), material.site(i)
    field, excited = material.index.field(site.read), tally.excited()[:, unit]
    rows = (each[:, unit][excited].tolist() for each in (tally.images, tally.values, tally.places))
    for image, value, at in list(zip(*rows, strict=True))[: material.plan.crops]:
        place = divmod(at, site.shape[2]) if len(site.shape) == 3 else None
        yield Crop(image, value, place, clip(field.box(*place), material.index.size) if field and place else None)


def clip(box: Box, size: tuple[int, int]) -> Box | None:
    """The part of a box that lies in an image of this height and width; None where none does."""
    part = Box(max(0, box.top), max(0, box.left), min(size[0], box.bottom), min(size[1], box.right))
    return part if part.bottom > part.top and part.right > part.left else None


def _count_activations(material: Material, i: int, unit: int) -> Histogram:
    """How many activations lie where; the edges are the same for all units of a site. Zeros lie in the middle bin, and
    are taken out of it."""
    counts, zeros = material.study(i).bins[unit].numpy().copy(), int(material.tally(i).zeros[unit])
    counts[LEVELS] -= zeros
    edges = compute_bin_edges().numpy().copy()
    if material.site(i).activation in CUT_OFF:  # nothing is below zero
        counts, edges = counts[LEVELS:], edges[LEVELS:]
        edges[0] = 0
    return Histogram(counts, edges, zeros)


def _explain_links(material: Material, site: Site) -> Missing | None:
    if material.unfollowed:
        return material.unfollowed
    reason = site.missing or next((path.missing for path in site.paths if path.missing), "")
    return Missing(f"What leads into it cannot be followed: {reason}.") if reason else None


def _list_reads(material: Material, numbers: Numbers, i: int, unit: int) -> tuple[Link, ...] | Missing:
    site = material.site(i)
    if reason := _explain_links(material, site):  # also of one path alone: the strongest may come through that one
        return reason
    found = anatomy.list_reads(material.sites, numbers.links, i, unit, LINKS)
    return tuple(_show_link(material, site, link, link.site, link.unit, unit) for link in found)


def _list_feeds(material: Material, numbers: Numbers, i: int, unit: int) -> tuple[Link, ...] | Missing:
    if material.unfollowed:
        return material.unfollowed
    found = anatomy.list_feeds(material.sites, numbers.links, i, unit, LINKS)
    readers = [link.site for link in found if link.site is not None]
    return tuple(
        _show_link(material, material.site(reader), link, i, unit, link.unit)
        for reader, link in zip(readers, found, strict=True)
    )


def _show_link(
    material: Material, reader: Site, link: anatomy.Link, source: int | None, channel: int, row: int
) -> Link:
    """A link as a record. source, channel: where it comes from. row: the unit of the reader that it leads to."""
    value = 0 if source is None else material.site(source).value
    way = find_way(reader, link.path, value)
    origin = list_ways(reader)[way][1]
    kernel = find_kernel(reader.paths[link.path], row, origin.first + channel)
    return Link(link.site, link.unit, way, link.deviation, kernel)


def find_kernel(path: Path, unit: int, channel: int) -> Floats | None:
    """The weights of a unit on a channel that its path reads, float32 (rows, columns); None for a single one, and for
    those that are too large to be looked at."""
    if path.weights is None or not 1 < max(path.weights.shape[2:]) <= _LARGEST_KERNEL:
        return None
    row = unit - path.rows[0]
    first = row // (len(path.scale) // path.groups) * path.weights.shape[1]
    kernel = path.weights[row, channel - first].detach().float().cpu().numpy()
    return np.asarray(kernel * path.scale[row], np.float32)


def _find_input_kernel(material: Material, site: Site, unit: int) -> Floats | None:
    """The kernel of a unit that reads the image, (rows, columns, C) for pixels in [0, 1]; None for any other unit."""
    contract = material.model.input
    for path in site.paths:
        reads_image = [origin.source for origin in path.origins] == [0] and not path.origins[0].via
        if path.weights is None or not reads_image or path.groups != 1 or contract.channels not in (1, 3):
            continue
        kernel = path.weights[unit - path.rows[0]].detach().double().cpu().numpy() * path.scale[unit - path.rows[0]]
        scaled = kernel / np.array(contract.std)[:, None, None]  # (C, rows, columns)
        return np.asarray(scaled.transpose(1, 2, 0), np.float32)
    return None


def _list_neighbours(numbers: Numbers, i: int, unit: int) -> tuple[Neighbour, ...] | Missing:
    if i not in numbers.neighbours:
        return Missing("The scan kept no sample of images, or too small a one.")
    own, hidden = numbers.neighbours[i], numbers.material.hidden
    rows = zip(own.sites[unit].tolist(), own.units[unit].tolist(), own.correlations[unit].tolist(), strict=True)
    return tuple(Neighbour(hidden[site], k, r) for site, k, r in rows if site >= 0)

"""Arithmetic: one unit, number by number: what each weight reads, the products, their sums, and what comes behind.

A unit k at place (y, x) of a site is

    activation( sum over paths of  scale[k] * sum over c, i, j of  weights[k, c, i, j] * patch[c, i, j]  +  bias[k] )

where patch holds what the path reads around the place, and zeros beyond the edges. All sums are of double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vizcnn.graph.paths import Path
from vizcnn.graph.running import run_graph, run_step
from vizcnn.graph.sites import Site, Sites
from vizcnn.results import Addend
from vizcnn.results.sums import LONGEST

Place = tuple[int, int]


@dataclass(frozen=True)
class SiteValues:
    """What is known of a site for n images.

    reads: for each of its paths what it reads, (n, C, h, w). before: what its activation is applied to, and after: what
    it gives, both in the network's own axes."""

    reads: tuple[Tensor, ...]
    before: Tensor
    after: Tensor


def read_site(found: Sites, site: Site, images: Tensor) -> SiteValues:
    """A site's numbers for images (n, C, H, W) in [0, 1]. The network must be borrowed, and the graph be there."""
    assert found.graph is not None
    wanted = {site.value, site.before, *(path.value for path in site.paths)}
    with torch.no_grad():
        values = run_graph(found.graph, images, wanted)
    reads = tuple(values[path.value].reshape(len(images), *path.shape) for path in site.paths)
    return SiteValues(reads, values[site.before], values[site.value])


@dataclass(frozen=True)
class Computed:
    """One unit by hand.

    addends: what each path that leads to it adds, those with weights first. bias: what is added beside them, norms
    included. before: their sum. after: what the activation makes of it."""

    addends: tuple[Addend, ...]
    bias: float
    before: float
    after: float


def compute_unit(
    found: Sites, site: Site, values: SiteValues, channel: int, place: Place, image: str = "the input"
) -> Computed:
    """A unit of a site whose paths are known. values: the site's for a single image. image: what that is called."""
    assert not site.missing
    addends = [
        _read_addend(path, read[0], channel, place, [*_name_channels(found, path, image)])
        for path, read in zip(site.paths, values.reads, strict=True)
        if path.rows[0] <= channel < path.rows[1]
    ]
    addends.sort(key=lambda addend: addend.weights is None)  # the main path may lead to other units only
    bias = float(site.bias[channel])
    before = bias + sum(addend.value for addend in addends)
    return Computed(tuple(addends), bias, before, _activate(found, site, values.before, (channel, *place), before))


def _read_addend(path: Path, read: Tensor, channel: int, place: Place, names: list[str]) -> Addend:
    """What a path adds to a unit. read: what it reads, (C, h, w), whose channels are called `names`."""
    row, numbers = channel - path.rows[0], read.detach().cpu().double().numpy()  # (C, h, w)
    scale = float(path.scale[row])
    if path.weights is None:
        patch = numbers[row : row + 1, place[0] : place[0] + 1, place[1] : place[1] + 1]  # (1, 1, 1)
        return Addend("", path.norm, (names[row],), patch, np.ones((1, 1), bool), None, scale)
    weights = path.weights[row].detach().cpu().double().numpy()  # (I, rows, columns)
    count = weights.shape[0]
    first = row // (len(path.scale) // path.groups) * count  # of the channels of its group
    at = [
        start * stride - padding + np.arange(side) * dilation
        for start, stride, padding, dilation, side in zip(
            place, path.stride, path.padding, path.dilation, weights.shape[1:], strict=True
        )
    ]
    inside = np.outer(*((places >= 0) & (places < side) for places, side in zip(at, path.shape[1:], strict=True)))
    rows, columns = (places.clip(0, side - 1) for places, side in zip(at, path.shape[1:], strict=True))
    patch = np.where(inside, numbers[first : first + count][:, rows[:, None], columns], 0.0)  # (I, rows, columns)
    return Addend(
        layer=path.layer,
        norm=path.norm,
        reads=tuple(names[first : first + count]),
        patch=patch,
        inside=inside,
        weights=weights,
        scale=scale,
        whole=numbers[0] if len(numbers) == 1 and max(path.shape) <= LONGEST and path.dilation == (1, 1) else None,
        stride=path.stride,
        padding=path.padding,
    )


def _name_channels(found: Sites, path: Path, image: str) -> Iterator[str]:
    """What each channel that a path reads is called: `conv1:3, max pooling of 2 x 2, every 2`."""
    for channel in range(path.shape[0]):
        origin = next((one for one in path.origins if 0 <= channel - one.first < one.channels), None)
        if origin is None:
            yield f"channel {channel}"
            continue
        source, number = found.source(origin.source), channel - origin.first
        name = f"channel {number} of {image}" if source is None else f"{found.sites[source].name}:{number}"
        yield ", ".join((name, *origin.via))


def _activate(found: Sites, site: Site, before: Tensor, unit: tuple[int, int, int], value: float) -> float:
    """What a site's activation makes of this value of one unit, beside the others as they are."""
    step = found.step(site)
    if step is None:
        return value
    exact = before.cpu().double().clone()
    _as_maps(exact)[unit] = value
    arguments = {
        name: each.cpu().double() if isinstance(each, Tensor) and each.is_floating_point() else each
        for name, each in step.fill_in(lambda _: exact, 1).items()
    }
    return float(_as_maps(run_step(step, arguments)[site.value])[unit])


def _as_maps(values: Tensor) -> Tensor:
    """What one image gives, (1, C, h, w) or (1, C), as maps (C, h, w)."""
    return values[0] if values.dim() == 4 else values[0][:, None, None]

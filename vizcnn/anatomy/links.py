"""Links: what drives a unit, and what it drives.

Through a kernel w a channel with the patches p adds w . p to a unit. Over all places and images that has

    mean  w . m    and variance  w^T S w,

where m and S are the mean and covariance of the patches. Both are exact and cost one pass, whatever the number of
units. Links are ranked by the deviation: an edge filter adds next to nothing on average, and yet it decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from vizcnn.graph.paths import Path
from vizcnn.graph.running import run_graph
from vizcnn.graph.sites import Site, Sites
from vizcnn.models.batches import default_batch
from vizcnn.models.model import Model

Floats = npt.NDArray[np.float32]

_AT_ONCE = 2**24  # numbers of patches, or of weights, that are held at a time


@dataclass(frozen=True)
class PathLinks:
    """What each channel that a path reads adds to each unit that it leads to: float32 (rows, channels), zero where
    there is no weight. deviation: the standard deviation over places and images. mean: signed."""

    deviation: Floats
    mean: Floats


@dataclass(frozen=True)
class SiteLinks:
    """What leads into a site: for each of its paths the links, and float32 (C,), the standard deviation of each unit's
    sum before its activation."""

    paths: tuple[PathLinks, ...]
    deviation: Floats


@dataclass(frozen=True)
class Link:
    """What one unit adds to another. site: the number of the other's site, None for the image. unit: its number, of the
    image a channel. path: the number of the path, of the site that reads. deviation, mean: what it adds."""

    site: int | None
    unit: int
    path: int
    deviation: float
    mean: float


@torch.no_grad()
def measure_links(model: Model, sites: Sites, images: Tensor) -> list[SiteLinks]:
    """The links into each site, over images (n, C, H, W) in [0, 1]. The network must be borrowed.

    A site whose paths are not known has none. Places at the border count, where a kernel reads the padding too."""
    assert sites.graph is not None
    paths = [path for site in sites.sites for path in site.paths]
    patches = {key: _Moments() for key in map(_patches_of, paths)}
    totals = {site.before: _Moments() for site in sites.sites if not site.missing}
    values = {path.value for path in paths} | totals.keys()
    for batch in images.split(default_batch((images.shape[2], images.shape[3]), model.device)):
        found = run_graph(sites.graph, batch.to(model.device, model.dtype), values)
        for key, moments in patches.items():
            for part in _cut_patches(found[key[0]], key):
                moments.add(part)
        for value, moments in totals.items():
            moments.add(
                found[value].flatten(2)[:, :, None] if found[value].dim() > 2 else found[value][:, :, None, None]
            )
    return [_link_site(site, patches, totals) for site in sites.sites]


def list_reads(sites: Sites, links: Sequence[SiteLinks], site: int, unit: int, most: int) -> list[Link]:
    """What drives a unit, at most so many links, that of the largest deviation first."""
    found: list[Link] = []
    for number, (path, own) in enumerate(zip(sites.sites[site].paths, links[site].paths, strict=True)):
        row = unit - path.rows[0]
        if not 0 <= row < path.rows[1] - path.rows[0]:
            continue
        for origin in path.origins:
            part = slice(origin.first, origin.first + origin.channels)
            deviation, mean = own.deviation[row, part], own.mean[row, part]
            for c in np.argsort(-deviation, kind="stable")[:most]:
                if deviation[c] > 0:
                    where = sites.source(origin.source)
                    found.append(Link(where, int(c), number, float(deviation[c]), float(mean[c])))
    return sorted(found, key=lambda link: -link.deviation)[:most]


def list_feeds(sites: Sites, links: Sequence[SiteLinks], site: int, unit: int, most: int) -> list[Link]:
    """What a unit drives, at most so many links. What it adds to each is in standard deviations of that unit's own sum;
    the largest is first."""
    found: list[Link] = []
    for reader, each in enumerate(sites.sites):
        for number, (path, own) in enumerate(zip(each.paths, links[reader].paths, strict=True)):
            for origin in path.origins:
                if origin.source != sites.sites[site].value:
                    continue
                whole = links[reader].deviation[slice(*path.rows)]
                column = origin.first + unit
                with np.errstate(divide="ignore", invalid="ignore"):
                    share = np.where(whole > 0, own.deviation[:, column] / whole, 0)
                    mean = np.where(whole > 0, own.mean[:, column] / whole, 0)
                for row in np.argsort(-share, kind="stable")[:most]:
                    if share[row] > 0:
                        k = int(row) + path.rows[0]
                        found.append(Link(reader, k, number, float(share[row]), float(mean[row])))
    return sorted(found, key=lambda link: -link.deviation)[:most]


_Patches = tuple[int, tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
"""A value, and the kernel, stride, padding and dilation of the patches that are cut from it."""


def _patches_of(path: Path) -> _Patches:
    kernel = (1, 1) if path.weights is None else (int(path.weights.shape[2]), int(path.weights.shape[3]))
    return path.value, kernel, path.stride, path.padding, path.dilation


def _cut_patches(value: Tensor, key: _Patches) -> Iterator[Tensor]:
    """The patches of a value (B, C, h, w) or (B, C), a few images at a time: (b, C, s, places)."""
    maps = value if value.dim() == 4 else value[:, :, None, None]
    _, kernel, stride, padding, dilation = key
    elements = kernel[0] * kernel[1]
    for part in maps.split(max(1, _AT_ONCE // max(1, elements * maps[0].numel()))):
        if kernel == (1, 1) and padding == (0, 0):
            yield part[:, :, :: stride[0], :: stride[1]].flatten(2)[:, :, None]
            continue
        cut = functional.unfold(part, kernel, dilation, padding, stride)  # (b, C s, places)
        yield cut.view(len(part), maps.shape[1], elements, -1)


class _Moments:
    """The mean and covariance of patches of each channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = torch.zeros(())
        self.products = torch.zeros(())

    def add(self, patches: Tensor) -> None:
        """Count patches (b, C, s, places)."""
        vectors = patches.double().permute(1, 2, 0, 3).flatten(2)  # (C, s, n)
        self.count += vectors.shape[2]
        self.sums = self.sums + vectors.sum(2).cpu()  # (C, s)
        self.products = self.products + (vectors @ vectors.transpose(1, 2)).cpu()  # (C, s, s)

    def find_mean(self) -> Tensor:
        return self.sums / self.count

    def find_covariance(self) -> Tensor:
        mean = self.find_mean()
        return self.products / self.count - mean[:, :, None] * mean[:, None, :]


def _link_site(site: Site, patches: dict[_Patches, _Moments], totals: dict[int, _Moments]) -> SiteLinks:
    if site.missing:
        return SiteLinks((), np.zeros(site.shape[0], np.float32))
    deviation = totals[site.before].find_covariance()[:, 0, 0].clamp(min=0).sqrt()  # (C,)
    return SiteLinks(tuple(_link_path(path, patches[_patches_of(path)]) for path in site.paths), _to_floats(deviation))


def _link_path(path: Path, moments: _Moments) -> PathLinks:
    """The links through one path: of each group of channels with its own units."""
    mean, covariance = moments.find_mean(), moments.find_covariance()  # (C, s), (C, s, s)
    if path.weights is None:
        scale = torch.from_numpy(path.scale)
        deviation = scale.abs() * covariance[:, 0, 0].clamp(min=0).sqrt()
        return PathLinks(_to_floats(deviation.diag()), _to_floats((scale * mean[:, 0]).diag()))
    weights = torch.from_numpy(path.fold()).flatten(2)  # (K, C / groups, s)
    units, channels = len(weights) // path.groups, weights.shape[1]
    found = torch.zeros(2, len(weights), len(mean), dtype=torch.float64)
    for group in range(path.groups):
        rows = slice(group * units, (group + 1) * units)
        for first, last in _split(channels, max(1, _AT_ONCE // (units * weights.shape[2]))):
            part = weights[rows, first:last].transpose(0, 1)  # (c, units, s)
            columns = slice(group * channels + first, group * channels + last)
            variance = ((part @ covariance[columns]) * part).sum(2)  # (c, units)
            found[0, rows, columns] = variance.clamp(min=0).sqrt().T
            found[1, rows, columns] = (part @ mean[columns, :, None])[:, :, 0].T
    return PathLinks(_to_floats(found[0]), _to_floats(found[1]))


def _split(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(count, start + size)


def _to_floats(values: Tensor) -> Floats:
    return np.asarray(values.float().numpy())

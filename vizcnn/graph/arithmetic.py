"""Arithmetic: one unit, number by number: what each weight reads, the products, their sums, and what comes behind.

A unit k at place (y, x) of a site is

    activation( sum over paths of  scale[k] * sum over c, i, j of  weights[k, c, i, j] * patch[c, i, j]  +  bias[k] )

where patch holds what the path reads around the place, and zeros beyond the edges. All sums are of double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.graph.paths import Numbers, Path
from vizcnn.graph.running import run_graph, run_step
from vizcnn.graph.sites import Site, Sites

Place = tuple[int, int]


@dataclass(frozen=True)
class Addend:
    """What one path adds to a unit.

    first: the channel of what the path reads that is channel 0 of the patch. patch: (I, rows, columns). inside: bool
    (rows, columns), which of its places lie on the map and not beyond an edge. weights: as the network has them,
    (I, rows, columns); None for an identity. scale: what their sum is multiplied with."""

    path: Path
    first: int
    patch: Numbers
    inside: npt.NDArray[np.bool_]
    weights: Numbers | None
    scale: float

    @property
    def sums(self) -> Numbers:
        """The sum of the products of each channel, (I,)."""
        products = self.patch if self.weights is None else self.patch * self.weights
        return np.asarray(products.sum((1, 2)))

    @property
    def value(self) -> float:
        return self.scale * float(self.sums.sum())


@dataclass(frozen=True)
class UnitSum:
    """One unit, number by number.

    bias: what is added beside the addends, norms included. before: their sum. after: behind the activation. said: what
    the network itself gives there, in its own precision."""

    addends: tuple[Addend, ...]
    bias: float
    before: float
    after: float
    said: float


def compute_unit(found: Sites, site: Site, inputs: Tensor, channel: int, place: Place | None) -> tuple[Place, UnitSum]:
    """A unit of a site for one image (1, C, H, W), with its place: by default where its channel is largest, the first
    of equal ones. The network must be borrowed; the site must have paths, and the graph must be there."""
    assert found.graph is not None
    assert not site.missing
    wanted = {site.value, site.before, *(path.value for path in site.paths)}
    with torch.no_grad():
        values = run_graph(found.graph, inputs, wanted)
        maps = _as_maps(values[site.value])  # (C, h, w)
        place = place or _find_largest(maps[channel])
        addends = tuple(
            _read_addend(path, channel, place, values) for path in site.paths if path.rows[0] <= channel < path.rows[1]
        )
        bias = float(site.bias[channel])
        before = bias + sum(each.value for each in addends)
        after = _activate(found, site, values[site.before], (channel, *place), before)
    return place, UnitSum(addends, bias, before, after, float(maps[(channel, *place)]))


def _as_maps(values: Tensor) -> Tensor:
    """What one image gives, (1, C, h, w) or (1, C), as maps (C, h, w)."""
    return values[0] if values.dim() == 4 else values[0][:, None, None]


def _find_largest(values: Tensor) -> Place:
    y, x = divmod(int(values.argmax()), values.shape[1])
    return y, x


def _read_addend(path: Path, channel: int, place: Place, values: Mapping[int, Tensor]) -> Addend:
    row = channel - path.rows[0]
    read = values[path.value].detach().cpu().double().reshape(path.shape).numpy()  # (C, h, w)
    scale = float(path.scale[row])
    if path.weights is None:
        patch = read[row : row + 1, place[0] : place[0] + 1, place[1] : place[1] + 1]
        return Addend(path, row, patch, np.ones((1, 1), bool), None, scale)
    weights = path.weights[row].detach().cpu().double().numpy()  # (I, rows, columns)
    count = weights.shape[0]
    first = row // (len(path.scale) // path.groups) * count
    at = [
        start * stride - padding + np.arange(side) * dilation
        for start, stride, padding, dilation, side in zip(
            place, path.stride, path.padding, path.dilation, weights.shape[1:], strict=True
        )
    ]
    ins = [(places >= 0) & (places < length) for places, length in zip(at, path.shape[1:], strict=True)]
    rows, columns = (places.clip(0, length - 1) for places, length in zip(at, path.shape[1:], strict=True))
    inside = np.outer(*ins)
    patch = np.where(inside, read[first : first + count][:, rows[:, None], columns], 0.0)
    return Addend(path, first, patch, inside, weights, scale)


def _activate(found: Sites, site: Site, before: Tensor, unit: tuple[int, int, int], value: float) -> float:
    """What a site's activation makes of this value of one unit, beside the others as they are."""
    step = found.step(site)
    if step is None:
        return value
    exact = before.double()
    _as_maps(exact)[unit] = value
    arguments = {
        name: each.double() if isinstance(each, Tensor) and each.is_floating_point() else each
        for name, each in step.fill_in(lambda _: exact, 1).items()
    }
    return float(_as_maps(run_step(step, arguments)[site.value])[unit])

"""Layers: the overview of an atlas, and what its walls show."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from vizcnn.graph.paths import Origin, Path
from vizcnn.graph.sites import Site, Sites
from vizcnn.site.records import Activation, Layer, Missing, Wall
from vizcnn.site.records import Path as Way
from vizcnn.site.study.material import Material

Floats = npt.NDArray[np.float32]

CUT_OFF = ("relu", "relu6")
"""Activations that are zero for a unit that is not excited."""

NOT_CUT_OFF = Missing("Nothing cuts off its activations at zero.")
_STANDING = 8  # units of the overview
_ALWAYS_ON = 0.01


def list_ways(site: Site) -> list[tuple[int, Origin]]:
    """The ways into a site whose source is known: the number of the path, and which of its channels one site gives."""
    return [(number, origin) for number, path in enumerate(site.paths) for origin in path.origins]


def find_way(site: Site, path: int, source: int) -> int:
    """The position of a path's channels from one source among the ways into a site. source: the site's value, or 0."""
    return next(i for i, (number, origin) in enumerate(list_ways(site)) if (number, origin.source) == (path, source))


def describe_layer(material: Material, i: int) -> Layer:
    """A site on the overview."""
    site, tally = material.site(i), material.tally(i)
    read = material.index.field(site.read)
    is_cut = site.activation in CUT_OFF
    known: Activation = site.activation if site.activation in get_args(Activation) else "other"  # type: ignore[assignment]
    share = float(tally.zero_share.mean()) if is_cut else NOT_CUT_OFF
    return Layer(
        name=site.name,
        read=site.read,
        shape=site.shape,
        paths=describe_ways(material.sites, site),
        activation=known,
        parameters=site.parameters,
        field=read or Missing("It has no places." if len(site.shape) == 1 else "What its units see is not known."),
        zeros=share,
        dead=int(find_dead(material, i).sum()) if is_cut else NOT_CUT_OFF,
        always_on=int((tally.zero_share < _ALWAYS_ON).sum()) if is_cut else NOT_CUT_OFF,
        strongest=tuple(_choose_standing(material, i)),
        stage=site.name.partition(".")[0] if "." in site.name else "",
        slope=_find_slope(material, site),
        is_output=i == material.output,
    )


def _choose_standing(material: Material, i: int) -> list[int]:
    """The units of a site that stand for it: the most selective ones, and where none are, those with the largest
    means."""
    _, selectivity = measure_selectivity(material.class_means(i))
    mean = material.tally(i).mean.numpy()
    order = np.lexsort((-mean, -np.nan_to_num(selectivity, nan=-1.0), find_dead(material, i)))
    return [int(k) for k in order[:_STANDING] if not find_dead(material, i)[k]]


def describe_ways(sites: Sites, site: Site) -> tuple[Way, ...]:
    """The ways into a site whose source is known, as an atlas shows them."""
    return tuple(
        _describe_way(sites, site.paths[number], origin, is_joined=_is_joined(site, number, origin))
        for number, origin in list_ways(site)
    )


def _is_joined(site: Site, number: int, origin: Origin) -> bool:
    """Whether a way leads to channels beside those of the one before: to other channels of one kernel, or to other
    units of the site."""
    path = site.paths[number]
    return origin is not path.origins[0] or (number > 0 and path.rows != site.paths[number - 1].rows)


def _describe_way(sites: Sites, path: Path, origin: Origin, *, is_joined: bool) -> Way:
    is_dense = path.weights is None or path.shape[1:] == tuple(path.weights.shape[2:])
    return Way(
        source=sites.source(origin.source),
        weights=path.layer,
        norm=path.norm,
        kernel=None if is_dense or path.weights is None else (path.weights.shape[2], path.weights.shape[3]),
        groups=path.groups,
        via=origin.via,
        is_joined=is_joined,
    )


def _find_slope(material: Material, site: Site) -> float:
    step = material.sites.step(site) if material.sites.graph else None
    return float(step.args["negative_slope"]) if step and site.activation == "leaky relu" else 0.0


def find_dead(material: Material, i: int) -> npt.NDArray[np.bool_]:
    """Which units of a site nothing excites: bool (C,)."""
    tally = material.tally(i)
    dead = tally.highest <= 0 if material.site(i).activation in CUT_OFF else tally.highest == tally.lowest
    return np.asarray(dead.numpy())


def find_zeros(material: Material, i: int) -> Floats:
    """Each unit's share of activations that are exactly zero, float32 (C,), NaN where that says nothing."""
    share = material.tally(i).zero_share.float().numpy()
    return share if material.site(i).activation in CUT_OFF else np.full_like(share, np.nan)


def measure_selectivity(means: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Each unit's best class, int64 (C,), -1 for none, and its selectivity, float32 (C,): with m the mean of its best
    class and n that of the others' means, (m - n) / (m + n) (Morcos et al. 2018); NaN where that says nothing.

    means: (C, K), NaN for classes without images."""
    best, selectivity = np.full(len(means), -1, np.int64), np.full(len(means), np.nan, np.float32)
    known = np.flatnonzero(~np.isnan(means).all(0)) if means.size else np.zeros(0, np.int64)
    if len(known) < 2:
        return best, selectivity
    own = means[:, known]
    highest = own.max(1)
    others = (own.sum(1) - highest) / (len(known) - 1)
    responds = (own != own[:, :1]).any(1)
    best[responds] = known[own.argmax(1)][responds]
    says = responds & (own.min(1) >= 0) & (highest + others > 0)
    selectivity[says] = ((highest - others) / np.where(says, highest + others, 1))[says]
    return best, selectivity


def describe_wall(material: Material, i: int, effect: Floats, is_estimated: npt.NDArray[np.bool_], of: str) -> Wall:
    """All units of a site at a glance. effect: (C,), NaN where it is not known. of: what changes."""
    tally, means = material.tally(i), material.class_means(i)
    best, selectivity = measure_selectivity(means)
    return Wall(
        highest=tally.highest.numpy(),
        mean=tally.mean.float().numpy(),
        zeros=find_zeros(material, i),
        dead=find_dead(material, i),
        best_class=best,
        selectivity=selectivity,
        effect=effect,
        is_estimated=is_estimated,
        class_means=means.astype(np.float32) if material.has_labels else material.no_labels,
        effect_of=of,
    )

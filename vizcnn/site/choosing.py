"""Choosing: which sites of a network an atlas shows, which units get a picture, and what can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal
from warnings import warn

from vizcnn.errors import LayerNotFound, ParameterError, UnsuitableNetwork, VizcnnWarning, did_you_mean
from vizcnn.graph.sites import Site, Sites, find_sites
from vizcnn.models.model import Model
from vizcnn.site.study.images import explain_not_by_hand

MOST_PICTURES = 2000
"""Units of a network up to which all get an optimised picture, unless something else is asked for."""

_BY_HAND = 3  # layers that can be computed by hand, where none are named


def follow(model: Model, size: tuple[int, int]) -> Sites:
    """The sites of a network, with a warning where it cannot be followed."""
    found = find_sites(model, size)
    if found.missing:
        said = f"{model.name} cannot be followed, and its atlas lacks what needs its graph: {found.missing}"
        warn(said, VizcnnWarning, stacklevel=2)
    return found


def choose_sites(model: Model, size: tuple[int, int], layers: Sequence[str] | None) -> Sites:
    """The sites that are shown, the output always. What reads a site that is left out is shown without its links."""
    found = follow(model, size)
    if not found.sites:
        raise UnsuitableNetwork(f"no layer of {model.name} has units to show: {found.missing or 'none has channels'}")
    if layers is None:
        return found
    names = _match(found, layers)
    kept = [site for site in found.sites if site.name in names or site.is_output]
    values = {0, *(site.value for site in kept)}
    return replace(found, sites=tuple(_forget_others(site, values) for site in kept))


def _forget_others(site: Site, values: set[int]) -> Site:
    """A site without its paths where one of them begins at a value that is none of these."""
    if all(origin.source in values for path in site.paths for origin in path.origins):
        return site
    return replace(site, paths=(), missing="it reads a layer that is left out")


def _match(sites: Sites, patterns: Sequence[str]) -> set[str]:
    """The names of the sites that match names or patterns. Raises LayerNotFound for one that none does."""
    names = [site.name for site in sites.sites]
    if isinstance(patterns, str):
        raise ParameterError(f"layers are a list of names or patterns, got {patterns!r}")
    found = set[str]()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise LayerNotFound(
                f"no layer of the atlas is named {pattern!r}.{did_you_mean(pattern, names)} There are "
                f"{', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"
            )
        found |= matched
    return found


def choose_pictures(sites: Sites, pictures: Sequence[str] | Literal["all", "none"] | None) -> tuple[str, ...] | None:
    """The names of the sites whose units get a picture; None for all."""
    if pictures is None:
        return None if sum(site.shape[0] for site in sites.sites) <= MOST_PICTURES else ()
    if isinstance(pictures, str):
        if pictures not in ("all", "none"):
            raise ParameterError(f"pictures are 'all', 'none' or a list of layers, got {pictures!r}")
        return None if pictures == "all" else ()
    names = _match(sites, pictures)
    return tuple(site.name for site in sites.sites if site.name in names)


def choose_by_hand(sites: Sites, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the sites that can be computed number by number, with a warning for each asked for that cannot."""
    if names is None:
        return tuple(site.name for site in sites.sites if site.paths and not explain_not_by_hand(site))[:_BY_HAND]
    chosen = _match(sites, names)
    reasons = {site.name: explain_not_by_hand(site) for site in sites.sites if site.name in chosen}
    for name in filter(reasons.get, reasons):
        warn(f"{name} cannot be computed by hand: {reasons[name]}", VizcnnWarning, stacklevel=2)
    return tuple(reasons)

"""Methods: the probes that make a map of an image for a target, by the names that they are offered under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vizcnn.errors import ParameterError, ProbeNotFound
from vizcnn.models.model import Model
from vizcnn.probing import registry
from vizcnn.probing.probe import Probe

_FIRST = "occlusion"  # it explains any network, and its map is what covering by hand shows


def list_methods(model: Model, asked: Sequence[Any] | None) -> dict[str, Probe[Any]]:
    """The probes by the name that a person sees.

    asked: names of probes, and probes with options; None for all that make maps. Of a black box those are left
    out that need its layers. Raises ParameterError, ProbeNotFound."""
    given = [asked] if isinstance(asked, str | Probe) else asked
    probes = [_make(one) for one in (_list_all() if given is None else given)]
    fit = {_name(probe): probe for probe in probes if not (model.is_black_box and probe.needs_network)}
    if not fit:
        named = ", ".join(map(_name, probes)) or "none"
        raise ParameterError(f"explore: methods must name a probe that makes maps of {model.name}, got {named}")
    return fit


def _list_all() -> list[str]:
    names = []
    for name in registry.list_names():
        try:
            if registry.get(name).makes_maps:
                names.append(name)
        except ProbeNotFound:  # a broken plugin stops nothing else
            continue
    return sorted(names, key=lambda name: (name != _FIRST, name))


def _make(asked: Any) -> Probe[Any]:
    probe = registry.get(asked)() if isinstance(asked, str) else asked
    if isinstance(probe, Probe) and probe.makes_maps:
        return probe
    known = ", ".join(_list_all())
    raise ParameterError(f"explore: methods are probes that make maps, such as {known}, got {asked!r}")


def _name(probe: Probe[Any]) -> str:
    """Its own name; with options of its own, the call that makes it."""
    return probe.name() if probe == type(probe)() else repr(probe)

"""Pairing: which sites of two networks can be compared, and whether the networks can at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vizcnn.errors import ParameterError
from vizcnn.graph.sites import Site, Sites
from vizcnn.models.contract import InputContract
from vizcnn.models.model import Model


@dataclass(frozen=True)
class Pairing:
    """Another network's part in a comparison.

    sites: of the other network, those that are paired and its output. pairs: positions of this network's sites, and of
    those of the other that they are compared with. left_out: names of sites that have none, with the reason."""

    sites: Sites
    pairs: dict[int, int]
    left_out: tuple[tuple[str, str], ...]


def refuse_other_inputs(model: Model, other: Model) -> None:
    """Raise ParameterError where two networks see different parts of a photograph, or see it at different sizes."""
    if _show_to(model) != _show_to(other):
        raise ParameterError(
            f"{other.name} and {model.name} do not see the same of an image: {_describe_input(other.input)}, and "
            f"{_describe_input(model.input)}. Compare checkpoints of one architecture, with one --input-size for both"
        )


def _show_to(model: Model) -> InputContract:
    """What decides which pixels a network gets; what it does to their values is its own affair."""
    channels = model.input.channels
    return replace(model.input, mean=(0.0,) * channels, std=(1.0,) * channels, display=None)


def _describe_input(contract: InputContract) -> str:
    height, width = contract.size
    scaled = f", scaled to {contract.resize} px" if contract.resize else ""
    return f"{contract.channels} x {height} x {width} px ({contract.fit}{scaled}, {contract.interpolation})"


def is_same(model: Model, other: Model) -> bool:
    """Whether two models are one network with the same weights, that reads images in the same way."""
    about, others = model.provenance(), other.provenance()
    return all(about[key] == others[key] for key in ("weights_sha256", "network_sha256", "input"))


def pair_sites(model: Model, sites: Sites, other: Model, others: Sites, *, is_whole: bool) -> Pairing:
    """The sites of two networks that have the same name and shape; the outputs where they tell the same classes apart.

    sites: of this network, as the atlas shows them. is_whole: whether these are all; then those that the other alone
    has are named, too. Raises ParameterError where they have none in common."""
    names = {_name(site): j for j, site in enumerate(others.sites)}
    pairs, left_out = dict[int, int](), list[tuple[str, str]]()
    for i, site in enumerate(sites.sites):
        j = names.get(_name(site))
        missing = _explain_none(site, other, others)
        reason = missing if j is None else _explain_unlike(model, site, other, others.sites[j])
        if reason or j is None:
            left_out.append((site.name, reason))
        else:
            pairs[i] = j
    if not pairs:
        raise ParameterError(
            f"{other.name} has no layer in common with {model.name}, and cannot be compared with it ({left_out[0][0]}: "
            f"{left_out[0][1]}). Name a checkpoint of the same architecture"
        )
    if is_whole:
        own = {_name(site) for site in sites.sites}
        left_out += [(s.name, _explain_none(s, model, sites)) for s in others.sites if _name(s) not in own]
    has_output = any(site.is_output for site in sites.sites)
    kept = [j for j, site in enumerate(others.sites) if j in pairs.values() or (site.is_output and has_output)]
    narrowed = replace(others, sites=tuple(others.sites[j] for j in kept))
    return Pairing(narrowed, {i: kept.index(j) for i, j in pairs.items()}, tuple(left_out))


def _name(site: Site) -> tuple[bool, str]:
    """What two sites have in common that are compared: outputs may be called as they like."""
    return site.is_output, "" if site.is_output else site.name


def _explain_none(site: Site, other: Model, others: Sites) -> str:
    """Why another network has no site to compare with one."""
    if any(each.is_output and each.name == site.name for each in others.sites):
        return f"it is the output of {other.name}"  # where only one of the two networks can be followed
    return f"{other.name} has no such layer"


def _explain_unlike(model: Model, site: Site, other: Model, its: Site) -> str:
    """Why two sites of one name cannot be compared; "" where they can."""
    if site.shape != its.shape:
        return f"{_describe_shape(site)} here, and {_describe_shape(its)} in {other.name}"
    if site.is_output and len(site.shape) == 1 and list_classes(model, site) != list_classes(other, its):
        return f"its classes are called otherwise in {other.name}"
    return ""


def _describe_shape(site: Site) -> str:
    return " x ".join(map(str, site.shape))


def list_classes(model: Model, output: Site) -> list[str]:
    """The names of the classes of an output, or their numbers."""
    return [model.class_name(k) for k in range(output.shape[0])]

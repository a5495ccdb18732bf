"""Arithmetic: one unit of a convolution or a dense layer, number by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any, ClassVar

from torch import Tensor, nn

from vizcnn.errors import DegenerateResult, NonFiniteResult, TargetError, UnsuitableNetwork, did_you_mean
from vizcnn.graph.arithmetic import Addend as Added
from vizcnn.graph.arithmetic import Place, compute_unit
from vizcnn.graph.arithmetic import UnitSum as Computed
from vizcnn.graph.paths import Path
from vizcnn.graph.running import run_graph
from vizcnn.graph.sites import Site, Sites, find_sites
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target, target
from vizcnn.models.terms import Unit
from vizcnn.probing.attribution import answer_pairs
from vizcnn.probing.facts import Facts, require_answer, require_steadiness
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Subject
from vizcnn.receptive import receptive_fields
from vizcnn.results import Addend, Mark, Scene, UnitSum, UnitSums

_TOLERANCE = {4: 1e-3, 8: 1e-6}  # by bytes of a number, the share of all products that rounding may come to
_HALF = 5e-2  # of half precision


class Arithmetic(Probe[UnitSums]):
    """One convolution by hand: from which numbers does the network compute this unit?

    A unit `LAYER:CHANNEL@Y,X` is drawn as what it reads, times its kernel, which gives products, and their sum for each
    input channel, those that add most first. Then comes what else is added up: other channels, a shortcut, the bias and
    the norm, and what the activation makes of it. That is what the network gives, whose number stands below.
    `LAYER:CHANNEL` is the channel's largest place in the image; a class is its unit of the last layer. Without a
    target: the strongest unit of the first convolution.

        sum over paths of  scale * sum over c, i, j of  weights[c, i, j] * patch[c, i, j]  +  bias

    All in double precision. patch: zero beyond the edges. scale: of the norm behind the weights. On a map of at most
    8 x 8 px with a single channel, a second page shows the kernel sliding over all places.

    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    Raises TargetError for what is no unit of a convolution or dense layer, UnsuitableNetwork where what leads into it
    cannot be followed, NonFiniteResult.
    """

    paper: ClassVar[str] = "Dumoulin & Visin 2016, arXiv:1603.07285"

    def default_targets(self, model: Model) -> Sequence[Any] | None:
        convolutions = (name for name, module in model.layers().items() if isinstance(module, nn.Conv2d))
        first = next(convolutions, None)
        return None if first is None else [f"strongest({first})"]

    def rehearse(self, facts: Facts) -> str:
        found = _find_sites(facts.model)
        if facts.given:
            asked = require_answer(facts)
        else:
            require_steadiness(facts)
            (first, *_) = self.default_targets(facts.model) or [None]
            if first is None:
                raise TargetError(f"{facts.model.name} has no convolution whose unit could be shown. Name a target")
            asked = target(f"{first.removeprefix('strongest(').removesuffix(')')}:0").resolved(facts.model)
        unit = _require_unit(asked)
        site = _find_site(found, unit.layer, facts.model)
        _, computed = compute_unit(found, site, facts.image, int(unit.channel), unit.at)
        _check(computed, facts.image, site, facts.model)
        return f"units of {sum(bool(site.paths) for site in found.sites)} layers"

    def compute(self, subject: Subject) -> UnitSums:
        subject, found = subject.run(), _find_sites(subject.model)

        def answer(pairs: Sequence[tuple[int, Target]]) -> list[UnitSum]:
            return [_compute(subject, found, i, target) for i, target in pairs]

        answers = answer_pairs(subject, answer, label="arithmetic", unit="unit")
        subject = subject.keep(answers)
        return UnitSums(subject.provenance(), tuple(map(tuple, answers.rows)), partial=answers.partial)


def _find_sites(model: Model) -> Sites:
    """Raises UnsuitableNetwork where nothing can be followed."""
    found = find_sites(model)
    if found.graph is None:
        raise UnsuitableNetwork(f"the arithmetic of {model.name} cannot be followed: {found.missing}")
    return found


def _require_unit(target: Target) -> Unit:
    """The unit that a target is. Raises TargetError."""
    ((weight, unit), *others) = target.terms
    single = isinstance(unit, Unit) and not others and weight == 1
    if not isinstance(unit, Unit) or not single or unit.probability or unit.over is not None or unit.negated:
        raise TargetError(f"arithmetic is of one unit, LAYER:CHANNEL@Y,X or LAYER:CHANNEL, or of a class, got {target}")
    return unit


def _find_site(found: Sites, layer: str, model: Model) -> Site:
    """The site that a layer leads into, or is. Raises TargetError, and UnsuitableNetwork."""
    sites = [site for site in found.sites if _is_of(site, layer)]
    named = next((site for site in sites if site.name == layer), sites[0] if sites else None)
    if named is None:
        names = [site.name for site in found.sites if site.paths]
        kind = type(model.layer(layer)).__name__
        raise TargetError(
            f"layer {layer!r} is a {kind}, and arithmetic is of a convolution or a dense layer."
            f"{did_you_mean(layer, names)} "
            f"There are {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
        )
    if named.missing or not named.paths:
        raise UnsuitableNetwork(f"what leads into {layer!r} is no sum of products alone: {named.missing or 'nothing'}")
    return named


def _is_of(site: Site, layer: str) -> bool:
    if layer == OUTPUT:
        return site.is_output
    read = {site.read, site.read.partition("(")[2].rstrip(")")}
    return layer in read or any(layer in (path.layer, path.norm) for path in site.paths)


def _compute(subject: Subject, found: Sites, i: int, target: Target) -> UnitSum:
    unit, inputs = _require_unit(target), subject.inputs[i : i + 1]
    site = _find_site(found, unit.layer, subject.model)
    place, computed = compute_unit(found, site, inputs, int(unit.channel), unit.at)
    _check(computed, inputs, site, subject.model)
    maps = len(site.shape) == 3
    name = str(unit) if not unit.layer else f"{unit.layer}:{unit.channel}" + (f"@{place[0]},{place[1]}" if maps else "")
    main = computed.addends[0]
    return UnitSum(
        name=name,
        image=subject.photos[i].name,
        scene=Scene(subject.photos[i], subject.seen[i], (_mark(subject, i, site, place),)),
        addends=tuple(_describe(found, addend) for addend in computed.addends),
        bias=computed.bias,
        activation=site.activation,
        before=computed.before,
        after=computed.after,
        said=computed.said,
        place=place,
        **_read_whole(found, main, inputs),
    )


def _check(computed: Computed, inputs: Tensor, site: Site, model: Model) -> None:
    """Raise DegenerateResult where the numbers are not those of the network: rounding differs, nothing else may.
    Raise NonFiniteResult where the network gives none."""
    if not isfinite(computed.said):
        raise NonFiniteResult(f"a unit of {site.name} holds NaN or infinity")
    size = abs(computed.bias) + sum(abs(each.scale) * float(abs(each.sums).sum()) for each in computed.addends)
    share = _TOLERANCE.get(inputs.element_size(), _HALF)
    if not abs(computed.after - computed.said) <= share * max(size, 1e-6):
        raise DegenerateResult(
            f"by hand, {site.name} comes to {computed.after:.6g}, and {model.name} gives {computed.said:.6g}: something in "
            "between is no sum of products. Look at another layer"
        )


def _describe(found: Sites, addend: Added) -> Addend:
    path = addend.path
    return Addend(
        layer=path.layer,
        norm=path.norm,
        reads=tuple(_name_channels(found, path, addend)),
        patch=addend.patch,
        inside=addend.inside,
        weights=addend.weights,
        scale=addend.scale,
    )


def _name_channels(found: Sites, path: Path, addend: Added) -> Iterator[str]:
    """What each channel that a path reads is called: `conv1:3, max pooling of 2 x 2, every 2`."""
    for channel in range(addend.first, addend.first + len(addend.patch)):
        origin = next((one for one in path.origins if 0 <= channel - one.first < one.channels), None)
        if origin is None:
            yield f"channel {channel}"
            continue
        source, number = found.source(origin.source), channel - origin.first
        name = f"channel {number} of the input" if source is None else f"{found.sites[source].name}:{number}"
        yield ", ".join((name, *origin.via))


def _mark(subject: Subject, i: int, site: Site, place: Place) -> Mark | None:
    """What of the photograph the unit sees; None where that is not known."""
    layer = next((path.layer for path in site.paths if path.layer in subject.model.layers()), "")
    if len(site.shape) != 3 or not layer:
        return None
    field = receptive_fields(subject.model, subject.size, layers=[layer], progress=subject.progress).get(layer)
    return None if field is None else Mark(subject.in_photo(i, field.box(*place)), "what it sees")


def _read_whole(found: Sites, main: Added, inputs: Tensor) -> dict[str, Any]:
    """The map that the first path reads, where it is one channel and not padded out of sight."""
    path = main.path
    if path.weights is None or path.shape[0] != 1 or path.dilation != (1, 1) or max(path.shape[1:]) == 1:
        return {}
    assert found.graph is not None
    whole = run_graph(found.graph, inputs, [path.value])[path.value]
    numbers = whole.detach().cpu().double().reshape(path.shape)[0].numpy()
    return {"whole": numbers, "stride": path.stride, "padding": path.padding}

"""Arithmetic: one unit of a convolution or a dense layer, number by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor

from vizcnn.errors import DegenerateResult, NonFiniteResult, TargetError, UnsuitableNetwork, did_you_mean
from vizcnn.graph.arithmetic import Computed, Place, compute_unit, read_site
from vizcnn.graph.sites import Site, Sites, find_sites
from vizcnn.models.clean import run_clean
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.layers.kernels import list_convolutions
from vizcnn.models.layers.readings import finish_reading, split_reading
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target, target
from vizcnn.models.terms import Unit
from vizcnn.probing.attribution import answer_pairs
from vizcnn.probing.facts import Facts, require_answer, require_output
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Subject
from vizcnn.receptive import ReceptiveField, trace_fields
from vizcnn.results import Mark, Scene, UnitSum, UnitSums

_TOLERANCE = {4: 1e-3, 8: 1e-6}  # by bytes of a number, the share of all products that rounding may come to
_HALF = 5e-2  # of half precision
_LISTED = 5  # layers that a message names

Fields = Mapping[str, ReceptiveField | None]


class Arithmetic(Probe[UnitSums]):
    """One convolution by hand: from which numbers does the network compute this unit?

    A unit `LAYER:CHANNEL@Y,X` is drawn as what it reads, times its kernel, which gives products, and their sum for each
    input channel, those that add most first. Then comes what else is added up: other channels, a shortcut, the bias and
    the norm, and what the activation makes of it. That is what the network gives, whose number stands below.
    `LAYER:CHANNEL` is the channel's largest place in the image, behind the activation; a class is its unit of the last
    layer. Without a target: the strongest unit of the first convolution, or the predicted class where there is none.

        activation( sum over paths of  scale * sum over c, i, j of  weights[c, i, j] * patch[c, i, j]  +  bias )

    All in double precision, and compared with what the network gives. patch: zero beyond the edges. scale: of the norm
    behind the weights. On a map of at most 8 x 8 px with a single channel, a second page shows the kernel sliding over
    all places.

        >>> import vizcnn
        >>> result = vizcnn.Arithmetic()(vizcnn.load("tiny"), "sample:grace_hopper", target="layer2.0.conv2:17@12,8")
        >>> unit = result.units[0]
        >>> [round(addend.value, 2) for addend in unit.addends], round(unit.bias, 2), round(unit.network, 2)
        ([1.88, 9.7], -6.12, 5.46)

    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    Raises TargetError for what is no unit of a convolution or dense layer, UnsuitableNetwork where what leads into it
    cannot be followed, DegenerateResult where the network computes something else, NonFiniteResult.
    """

    paper: ClassVar[str] = "Dumoulin & Visin 2016, arXiv:1603.07285"

    def default_targets(self, model: Model) -> Sequence[Any] | None:
        convolutions = list_convolutions(model)
        return [f"strongest({convolutions[0]})"] if convolutions else None

    def rehearse(self, facts: Facts) -> str:
        require_output(facts)
        default = None if facts.given else self.default_targets(facts.model)
        if default is None:
            asked = require_answer(facts)
        else:
            ((asked,),) = run_clean(facts.model, facts.image, (target(default[0]).resolved(facts.model),)).targets
        return _compute_unit(facts.model, _find_sites(facts.model), facts.image, asked).name

    def compute(self, subject: Subject) -> UnitSums:
        subject, found = subject.run(), _find_sites(subject.model)
        fields = trace_fields(subject.model, subject.size)

        def answer(pairs: Sequence[tuple[int, Target]]) -> list[UnitSum]:
            return [_answer(subject, found, fields, i, target) for i, target in pairs]

        answers = answer_pairs(subject, answer, label="arithmetic", unit="unit")
        subject = subject.keep(answers)
        return UnitSums(subject.provenance(), tuple(map(tuple, answers.rows)), partial=answers.partial)


def _answer(subject: Subject, found: Sites, fields: Fields, i: int, target: Target) -> UnitSum:
    """A target of image i as the sum that it is."""
    unit = _compute_unit(subject.model, found, subject.inputs[i : i + 1], target)
    return UnitSum(
        name=unit.name,
        image=subject.photos[i].name,
        scene=Scene(subject.photos[i], subject.seen[i], (_mark(subject, fields, i, unit),)),
        place=unit.place,
        addends=unit.computed.addends,
        bias=unit.computed.bias,
        activation=unit.site.activation,
        before=unit.computed.before,
        after=unit.computed.after,
        network=unit.given,
    )


@dataclass(frozen=True)
class _Found:
    """A unit of a site at its place, as it comes to by hand. given: what the network itself gives there."""

    name: str
    site: Site
    place: Place
    computed: Computed
    given: float


def _compute_unit(model: Model, found: Sites, image: Tensor, target: Target) -> _Found:
    """The unit that a target is, for one image (1, C, H, W), checked against what the network gives.

    Raises TargetError, UnsuitableNetwork, DegenerateResult and NonFiniteResult."""
    unit = _require_unit(target)
    site, channel = _find_unit(found, unit, model)
    maps = _read_maps(model, image, site)
    place = unit.at or _find_largest(maps[channel])
    normalised = "the input" if _is_plain(model) else "the normalised input"
    computed = compute_unit(found, site, read_site(found, site, image), channel, place, normalised)
    given = float(maps[(channel, *place)])
    _check(computed, given, image.element_size(), site, model)
    at = place if unit.layer and len(site.shape) == 3 else unit.at
    return _Found(str(replace(unit, at=at)), site, place, computed, given)


def _find_sites(model: Model) -> Sites:
    """Raises UnsuitableNetwork where nothing can be followed."""
    found = find_sites(model)
    if found.graph is None:
        raise UnsuitableNetwork(
            f"the arithmetic of {model.name} cannot be followed: {found.missing}. Look at its weights with filters, "
            "and at what its layers give with feature-maps"
        )
    return found


def _require_unit(target: Target) -> Unit:
    """The unit that a target is. Raises TargetError."""
    ((weight, unit), *others) = target.terms
    single = isinstance(unit, Unit) and not others and weight == 1
    if not isinstance(unit, Unit) or not single or unit.probability or unit.over is not None or unit.negated:
        raise TargetError(
            f"arithmetic is of one unit, LAYER:CHANNEL@Y,X or LAYER:CHANNEL, or of a class, got {target}, which is a "
            "mean, a probability or made of several"
        )
    return unit


def _find_unit(found: Sites, unit: Unit, model: Model) -> tuple[Site, int]:
    """The site that a unit leads into, or is of, and its channel there. Raises TargetError, and UnsuitableNetwork."""
    layer, channel = unit.layer, int(unit.channel)
    placed = next(((site, first) for site in found.sites if (first := _find_first(site, layer)) is not None), None)
    if placed is None or not _has_weights(placed[0], channel + placed[1]):
        names = [path.layer for site in found.sites for path in site.paths[:1] if path.layer]
        what = f"layer {layer!r} is a {type(model.layer(layer)).__name__}" if layer else "the output has no weights"
        raise TargetError(
            f"{what}, and arithmetic is of a convolution or a dense layer.{did_you_mean(layer, names)} There are "
            f"{', '.join(names[:_LISTED])}{' and others' if len(names) > _LISTED else ''}"
        )
    site, first = placed
    if site.missing:
        where = f"layer {layer!r}" if layer else "the output"
        raise UnsuitableNetwork(
            f"what leads into {where} is no sum of products alone: {site.missing}. Name another layer"
        )
    return site, first + channel


def _find_first(site: Site, layer: str) -> int | None:
    """Which of a site's channels is the first of a layer: that the site reads, or whose weights or norm lead into it;
    None for any other layer."""
    if layer == OUTPUT:
        return 0 if site.is_output else None
    if layer == split_reading(site.read)[1]:
        return 0
    return min((path.rows[0] for path in site.paths if layer in (path.layer, path.norm)), default=None)


def _has_weights(site: Site, channel: int) -> bool:
    """Whether weights lead to a unit of a site, as far as that is known."""
    if site.missing:
        return True
    return any(path.weights is not None and path.rows[0] <= channel < path.rows[1] for path in site.paths)


def _read_maps(model: Model, image: Tensor, site: Site) -> Tensor:
    """What the network itself gives at a site, (C, h, w)."""
    layer = OUTPUT if site.is_output else split_reading(site.read)[1]
    with torch.no_grad():
        values = finish_reading(site.read, read_activations(model, image, [layer])[layer])[0]
    return values if values.dim() == 3 else values[:, None, None]


def _find_largest(values: Tensor) -> Place:
    """Row and column of the largest number (h, w), the first of equal ones."""
    y, x = divmod(int(values.argmax()), values.shape[1])
    return y, x


def _is_plain(model: Model) -> bool:
    """Whether the network's input is the image as it is."""
    return not any(model.input.mean) and all(each == 1 for each in model.input.std)


def _check(computed: Computed, given: float, bytes_: int, site: Site, model: Model) -> None:
    """Raise DegenerateResult where the numbers are not those of the network: rounding differs, nothing else may.
    Raise NonFiniteResult where the network gives none. given: by the network, in numbers of so many bytes."""
    if not isfinite(given):
        raise NonFiniteResult(f"a unit of {site.name} holds NaN or infinity. Check the weights")
    size = abs(computed.bias) + sum(abs(each.scale) * float(abs(each.products).sum()) for each in computed.addends)
    if not abs(computed.after - given) <= _TOLERANCE.get(bytes_, _HALF) * max(size, 1e-6):
        raise DegenerateResult(
            f"by hand, {site.name} comes to {computed.after:.6g}, and {model.name} gives {given:.6g}: something in "
            "between is no sum of products. Look at another layer"
        )


def _mark(subject: Subject, fields: Fields, i: int, unit: _Found) -> Mark | None:
    """What of photograph i the unit sees; None where that is nothing, or not known."""
    field = fields.get(split_reading(unit.site.read)[1])
    if len(unit.site.shape) != 3 or field is None:
        return None
    box = field.box(*unit.place)
    seen = box.bottom > box.top and box.right > box.left
    return Mark(subject.in_photo(i, box), "what it sees") if seen else None

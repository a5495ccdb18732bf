"""Images: the page of an image that was looked at closely, sums by hand, and photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.anatomy.by_hand import Term, explain_missing, read_by_hand
from vizcnn.geometry import Box
from vizcnn.graph.running import run_graph
from vizcnn.graph.sites import Site
from vizcnn.inputs.datasets import Images
from vizcnn.inputs.tensors import to_photo
from vizcnn.models.contract import InputContract
from vizcnn.progress import bar
from vizcnn.results.photos import as_bytes, cut_out, reduce_photo, shrink
from vizcnn.site.records import ByHand, Fired, Folded, ImagePage, MapOf, Missing, Pixels, Reading
from vizcnn.site.study.layers import list_ways
from vizcnn.site.study.maps import make_maps
from vizcnn.site.study.material import Material
from vizcnn.site.study.units import clip

FIRED = 5
"""How many units of each layer the page of an image lists."""

_RIGHT = 0.6  # the share of pages that go to images with the right answer


def choose_pages(material: Material) -> list[int]:
    """The images that get a page: right and wrong ones, each the surest of its class, ascending."""
    sure = np.nan_to_num(material.probabilities, nan=0.0)
    answered, known = material.predicted >= 0, material.labels >= 0
    if not answered.any():
        return [int(n) for n in material.choose_spread(material.plan.pages)]
    wrong = answered & known & (material.labels != material.predicted)
    count, rightly = material.plan.pages, int((answered & ~wrong).sum())
    few = min(int(wrong.sum()), count - min(rightly, round(count * _RIGHT)))
    rest = [*_spread(answered & ~wrong, material.predicted, sure, count - few)]
    return sorted([*_spread(wrong, material.labels, sure, few), *rest])


def _spread(
    among: npt.NDArray[np.bool_], classes: npt.NDArray[np.int64], sure: npt.NDArray[np.float32], count: int
) -> list[int]:
    """At most so many of these images, of as many classes as can be, the surest first."""
    order = [int(n) for n in np.argsort(-sure, kind="stable") if among[n]]
    taken: dict[int, int] = {}
    rank = {}
    for n in order:
        rank[n] = taken[int(classes[n])] = taken.get(int(classes[n]), -1) + 1
    return sorted(order, key=lambda n: rank[n])[:count]


def describe_pages(material: Material) -> Iterator[ImagePage]:
    """The pages of the chosen images."""
    numbers = choose_pages(material)
    with bar(len(numbers), "images", "image", shown=material.progress) as shown:
        for number in numbers:
            image = material.read_inputs([number])  # (1, C, H, W)
            found = list(make_maps(material, number, image))
            yield ImagePage(
                image=number,
                answers=_list_answers(material, number),
                maps=tuple(one for one in found if isinstance(one, MapOf)),
                unmade=tuple(one.reason for one in found if isinstance(one, Missing)),
                fired=_list_fired(material, image),
            )
            shown.update()


def _list_answers(material: Material, number: int) -> tuple[tuple[int, float], ...]:
    if material.output is None:
        return ()
    answers = material.index.answers
    row = np.flatnonzero(answers.numbers.numpy() == number)
    if not len(row):
        return ()
    pair = zip(answers.classes[row[0]].tolist(), answers.probabilities[row[0]].tolist(), strict=True)
    return tuple((int(c), float(p)) for c, p in pair)


@torch.no_grad()
def _list_fired(material: Material, image: Tensor) -> tuple[tuple[int, tuple[Fired, ...]], ...] | Missing:
    """For each hidden site the units nearest to their highest of all images."""
    if material.unfollowed:
        return material.unfollowed
    assert material.sites.graph is not None
    wanted = {material.site(i).value for i in material.hidden}
    with material.model.borrowed():
        values = run_graph(material.sites.graph, image.to(material.model.device, material.model.dtype), wanted)
    return tuple((i, tuple(_rank_units(material, i, values[material.site(i).value]))) for i in material.hidden)


def _rank_units(material: Material, i: int, value: Tensor) -> Iterator[Fired]:
    site, highest = material.site(i), material.tally(i).highest
    maps = site.axes.apply(value)[0].float().cpu()
    peaks, places = maps.flatten(1).max(1) if maps.dim() > 1 else (maps, None)
    shares = torch.where(highest > 0, peaks / highest.clamp(min=1e-12), -torch.inf)
    field = material.index.field(site.read)
    for unit in shares.argsort(descending=True, stable=True)[:FIRED].tolist():
        if shares[unit] <= 0:
            break
        box = None
        if field and places is not None:
            box = clip(field.box(*divmod(int(places[unit]), site.shape[2])), material.index.size)
        yield Fired(unit, float(peaks[unit]), float(shares[unit]), box)


def explain_not_by_hand(site: Site) -> str:
    """Why no page computes a site number by number, in words; "" where one can."""
    if reason := explain_missing(site) or next((path.missing for path in site.paths if path.missing), ""):
        return reason
    return "" if len(list_ways(site)) == len(site.paths) else "it reads the joined channels of several layers"


def describe_by_hand(material: Material, i: int, numbers: Sequence[int]) -> ByHand | Missing:
    """All numbers of a site, for these images."""
    site = material.site(i)
    if site.name not in material.plan.by_hand:
        return Missing("It was not asked for.")
    if material.unfollowed:
        return material.unfollowed
    if reason := explain_not_by_hand(site):
        return Missing(f"It cannot be shown: {reason}.")
    with material.model.borrowed():
        found = read_by_hand(material.model, material.sites, site, material.read_inputs(numbers))
    flat = [path.weights is not None and path.shape[1:] == (1, 1) for path in site.paths]
    readings = (
        Reading(
            number,
            tuple(read[n].reshape(-1) if is_flat else read[n] for read, is_flat in zip(found.reads, flat, strict=True)),
            found.says[n],
        )
        for n, number in enumerate(numbers)
    )
    return ByHand(tuple(map(_fold, found.terms, flat)), tuple(readings))


def _fold(term: Term | None, is_flat: bool) -> Folded | None:
    if term is None:
        return None
    weight = term.weights[:, :, 0, 0] if is_flat else term.weights
    return Folded(weight, term.bias, term.stride, term.padding, term.dilation, term.groups)


def show_photograph(images: Images, contract: InputContract, number: int, side: int) -> Pixels:
    """What a network with this contract sees of an image, uint8 (h, w, 3) or (h, w, 1), at most so many px wide or
    high."""
    image = images.read(number, contract.reading)[0]
    whole = to_photo(image) if isinstance(image, Tensor) else image
    seen = Box(0, 0, *whole.size) if isinstance(image, Tensor) else contract.seen(whole.size)
    photo = reduce_photo(whole, max(whole.size), contract.display)
    return as_bytes(shrink(cut_out(photo, seen), side))

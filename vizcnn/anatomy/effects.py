"""Effects: what happens to a network's answers without single units.

A unit is removed at its site: its activations are set to zero everywhere. Only what depends on the site is run again,
so that units of late sites cost next to nothing.

To first order the change of a logit f is  - sum over places of  activation x df/d activation,  which one backward pass
gives for all units of all sites. How far that holds differs from site to site; in the last blocks of a network it is
nearly exact, before them it may have the wrong sign. So it stands in for a measurement only where it has been shown to
agree with some.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.graph.running import Values, run_graph, run_steps, select_steps_behind
from vizcnn.graph.sites import Site, Sites
from vizcnn.models.batches import default_batch, default_part_batch
from vizcnn.models.model import Model
from vizcnn.progress import bar

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

CHECKED, AGREES = 20, 0.95
"""On how many units of a site an estimate must have been compared with measurements, and Pearson's correlation from
which on it stands in for one."""


_TIMED = 24  # images on which it is found out what a unit costs
_MEMORY = 2**27  # numbers that are kept of a clean run


@dataclass(frozen=True)
class Effects:
    """What happens without each of U units of a site, on n images.

    units: int64 (U,), in the order in which they were measured.
    images: how many. change: float64 (U,), the mean change of the output of each image's class. flips: int64 (U,), how
    many images get another answer. before, after: the share of images whose answer is their class, float and (U,).
    classes: int64 (G,), the classes of the images. by_class: float64 (U, G), the mean change over each one's images.
    seconds: how long it took."""

    units: Integers
    images: int
    change: Numbers
    flips: Integers
    before: float
    after: Numbers
    classes: Integers
    by_class: Numbers
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The effects of all C units of a site to first order, on the same images.

    change: float64 (C,). correlation: Pearson's with what was measured, NaN where that says nothing. checked: on how
    many units."""

    change: Numbers
    correlation: float
    checked: int

    @property
    def is_good(self) -> bool:
        """Whether it may stand in for measurements."""
        return self.checked >= CHECKED and self.correlation >= AGREES


def measure_effects(
    model: Model,
    sites: Sites,
    wanted: Sequence[Site],
    images: Tensor,
    classes: Integers,
    orders: Sequence[Sequence[int]],
    *,
    seconds: float,
    progress: bool = False,
) -> list[Effects]:
    """What happens without units of some sites: of as many units as the time allows, but of one of each site at least.

    images: (n, C, H, W) in [0, 1]. classes: int64 (n,), whose output is looked at in each, the right class or the
    predicted one. orders: for each site its units in the order of their importance. seconds: for all together; sites
    share it evenly, and what cheap ones leave over goes to the others. The network must be borrowed.

    The first images tell what a unit of each site costs. Each batch of images runs up to the sites only once.
    """
    ablations = [_Ablation(model, sites, site) for site in wanted]
    outputs: list[list[Tensor]] = [[] for _ in wanted]
    spent, clean, units = np.zeros(len(wanted)), list[Tensor](), [list(order) for order in orders]
    with bar(len(images), "effects", "image", shown=progress) as shown:
        for batch in images.split(_choose_batch(model, sites, ablations, images)):
            begun = time.monotonic()
            values = _run_clean(model, sites, ablations, batch)
            if not clean:
                left = seconds - (time.monotonic() - begun) * len(images) / len(batch)
                begun = time.monotonic()
                costs = [each.time_unit(values, order[0]) for each, order in zip(ablations, orders, strict=True)]
                units = _choose_units(orders, np.array(costs) * len(images), left - (time.monotonic() - begun))
            for i, ablation in enumerate(ablations):
                begun = time.monotonic()
                outputs[i].append(torch.stack([ablation.run_without(values, unit) for unit in units[i]]))  # (U, B, K)
                spent[i] += time.monotonic() - begun
            clean.append(values[_find_output(sites)])
            shown.update(len(batch))
    truth, before = torch.as_tensor(classes, device=model.device), torch.cat(clean)
    return [_summarize(units[i], before, torch.cat(outputs[i], 1), truth, float(spent[i])) for i in range(len(wanted))]


def _choose_units(orders: Sequence[Sequence[int]], costs: Numbers, seconds: float) -> list[list[int]]:
    """As many units of each site as the time allows, but one at least. costs: seconds for a unit of each site."""
    chosen: list[list[int]] = [[] for _ in orders]
    totals = costs * [len(order) for order in orders]
    for done, i in enumerate(np.argsort(totals, kind="stable")):
        share = max(0.0, seconds) / (len(orders) - done)
        count = max(1, min(len(orders[i]), int(share / max(costs[i], 1e-9))))
        chosen[i] = list(orders[i][:count])
        seconds -= count * costs[i]
    return chosen


def _choose_batch(model: Model, sites: Sites, ablations: Sequence[_Ablation], images: Tensor) -> int:
    """How many images to run at once: what is kept of them must fit into memory."""
    assert sites.graph is not None
    shapes = (sites.graph.shapes[value] for value in _list_kept(ablations))
    numbers = sum(prod(shape) for shape in shapes if shape is not None)
    most = default_part_batch((images.shape[2], images.shape[3]), model.device)
    return max(1, min(most, _MEMORY // max(1, numbers)))


def _list_kept(ablations: Sequence[_Ablation]) -> set[int]:
    """The values that are kept of a clean run."""
    return {value for each in ablations for value in (each.site.value, each.output, *each.needed)}


@torch.no_grad()
def _run_clean(model: Model, sites: Sites, ablations: Sequence[_Ablation], images: Tensor) -> Values:
    assert sites.graph is not None
    values = {_find_output(sites), *_list_kept(ablations)}
    return run_graph(sites.graph, images.to(model.device, model.dtype), values)


def _find_output(sites: Sites) -> int:
    return next(site.value for site in sites.sites if site.is_output)


class _Ablation:
    """A site, and what has to run again without one of its units."""

    def __init__(self, model: Model, sites: Sites, site: Site) -> None:
        assert sites.graph is not None
        self.site, self.output, self.device = site, _find_output(sites), model.device
        self.steps, self.needed = select_steps_behind(sites.graph, site.value, [self.output])
        self.is_by_image = all(sites.graph.shapes[value] is not None for value in {site.value, *self.needed})

    @torch.no_grad()
    def run_without(self, values: Values, unit: int) -> Tensor:
        """The output (B, K) where a unit is zero. values: of a clean run, which are afterwards as they were."""
        given = {value: values[value] for value in {self.site.value, *self.needed}}
        channel = self.site.axes.apply(given[self.site.value])[:, unit]  # a view
        before = channel.clone()
        try:
            channel.zero_()
            return run_steps(self.steps, given, [self.output])[self.output].clone()
        finally:
            channel.copy_(before)

    def time_unit(self, values: Values, unit: int) -> float:
        """The seconds that one unit takes for one image, rather too many than too few: few images are slower each."""
        few = {value: values[value] for value in {self.site.value, *self.needed}}
        if self.is_by_image:
            few = {value: tensor[:_TIMED] for value, tensor in few.items()}
        begun = time.monotonic()
        self.run_without(few, unit).sum().item()  # waits for a device
        return (time.monotonic() - begun) / len(few[self.site.value])


def _summarize(units: Sequence[int], clean: Tensor, outputs: Tensor, truth: Tensor, seconds: float) -> Effects:
    """clean: (n, K). outputs: (U, n, K). truth: (n,)."""
    rows = torch.arange(len(truth), device=truth.device)
    change = (outputs - clean)[:, rows, truth].double().cpu()  # (U, n)
    answers, before = outputs.argmax(2), clean.argmax(1)
    classes, members = truth.cpu().unique(return_inverse=True)
    sums = torch.zeros(len(units), len(classes), dtype=torch.float64).index_add_(1, members, change)
    return Effects(
        units=np.array(units, np.int64),
        images=len(truth),
        change=change.mean(1).numpy(),
        flips=(answers != before).sum(1).cpu().numpy(),
        before=float((before == truth).double().mean()),
        after=(answers == truth).double().mean(1).cpu().numpy(),
        classes=classes.numpy(),
        by_class=(sums / members.bincount(minlength=len(classes))).numpy(),
        seconds=seconds,
    )


def estimate_effects(
    model: Model, sites: Sites, wanted: Sequence[Site], images: Tensor, classes: Integers
) -> list[Numbers]:
    """For each of some sites the effects of all its units to first order, float64 (C,), from one backward pass a batch.

    images, classes: as for `measure_effects`. The network must be borrowed."""
    totals = [np.zeros(site.shape[0]) for site in wanted]
    for changes in _differentiate(model, sites, wanted, images, torch.as_tensor(classes)):
        for total, change in zip(totals, changes, strict=True):
            total += change
    return [total / len(images) for total in totals]


def _differentiate(
    model: Model, sites: Sites, wanted: Sequence[Site], images: Tensor, classes: Tensor
) -> Iterator[list[Numbers]]:
    """For each batch the sum over its images, by site, (C,) each."""
    assert sites.graph is not None
    output = _find_output(sites)
    size = default_batch((images.shape[2], images.shape[3]), model.device)
    for batch, truth in zip(images.split(size), classes.split(size), strict=True):
        inputs = batch.to(model.device, model.dtype).requires_grad_()
        with torch.enable_grad():
            values = run_graph(sites.graph, inputs, {output, *(site.value for site in wanted)})
            score = values[output].gather(1, truth.to(model.device)[:, None]).sum()
            held = [values[site.value] for site in wanted]
            gradients = _find_gradients(score, held)
        products = (
            site.axes.apply(-gradient * value.detach()).flatten(2) if value.dim() > 2 else -gradient * value.detach()
            for site, value, gradient in zip(wanted, held, gradients, strict=True)
        )
        yield [p.double().sum((0, *range(2, p.dim()))).cpu().numpy() for p in products]


def _find_gradients(score: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a score with respect to each of these values. Where the network detaches or rounds in front of a
    value it is zero, which agrees with no measured effect: such a layer's estimate is not shown."""
    known = [value for value in values if value.requires_grad] if score.requires_grad else []
    found = torch.autograd.grad(score, known, allow_unused=True, materialize_grads=True) if known else ()
    gradients = dict(zip(map(id, known), found, strict=True))
    return [gradients.get(id(value), torch.zeros_like(value)) for value in values]


def check_estimate(change: Numbers, effects: Effects) -> Estimate:
    """An estimate for all units, with how far it agrees with what was measured of some."""
    own, measured = change[effects.units], effects.change
    varies = len(own) > 1 and own.std() > 0 and measured.std() > 0
    correlation = float(np.corrcoef(own, measured)[0, 1]) if varies else float("nan")
    return Estimate(change, correlation, len(own))


def choose_images(classes: Integers, most: int) -> Integers:
    """The numbers of at most so many images with a class, as evenly over the classes as can be, ascending.

    classes: int64 (N,), -1 for those without."""
    known = np.flatnonzero(classes >= 0)
    rank = np.zeros(len(known), np.int64)  # how many images of its class come before
    seen: dict[int, int] = {}
    for i, number in enumerate(classes[known].tolist()):
        rank[i] = seen[number] = seen.get(number, -1) + 1
    return np.sort(known[np.argsort(rank, kind="stable")[:most]])

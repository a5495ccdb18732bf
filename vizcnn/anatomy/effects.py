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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.graph.recording import Step
from vizcnn.graph.running import Values, run_graph, run_steps, select_steps_behind
from vizcnn.graph.sites import Site, Sites
from vizcnn.models.batches import default_batch
from vizcnn.models.model import Model

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

CHECKED, AGREES = 20, 0.95
"""On how many units of a site an estimate must have been compared with measurements, and Pearson's correlation from
which on it stands in for one."""


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
    model: Model, sites: Sites, site: Site, images: Tensor, classes: Integers, order: Sequence[int], *, seconds: float
) -> Effects:
    """What happens without units of a site, one after the other until the time is up, but at least one.

    images: (n, C, H, W) in [0, 1]. classes: int64 (n,), whose output is looked at in each, the right class or the
    predicted one. order: the units in the order of their importance. The network must be borrowed.

    How many units fit into the time is told by the first, so that each batch of images runs up to the site only once.
    """
    started = time.monotonic()
    ablation = _Ablation(model, sites, site)
    truth = torch.as_tensor(classes, device=model.device)
    clean, outputs, units = [], [], list(order)
    batches = images.split(default_batch((images.shape[2], images.shape[3])))
    for i, batch in enumerate(batches):
        given, before = ablation.run_clean(batch)
        if i == 0 and len(units) > 1:
            ablation.run_without(given, units[0])  # whose first run may be slower
            begun = time.monotonic()
            ablation.run_without(given, units[0])
            cost = (time.monotonic() - begun) * len(images) / len(batch)
            left = seconds - (begun - started) * len(batches)
            units = units[: max(1, int(left / max(cost, 1e-9)))]
        clean.append(before)
        outputs.append(torch.stack([ablation.run_without(given, unit) for unit in units]))  # (U, B, K)
    return _summarize(units, torch.cat(clean), torch.cat(outputs, 1), truth, time.monotonic() - started)


class _Ablation:
    """A site, and what has to run again without one of its units."""

    def __init__(self, model: Model, sites: Sites, site: Site) -> None:
        assert sites.graph is not None
        self.model, self.graph, self.site = model, sites.graph, site
        self.output = next(each.value for each in sites.sites if each.is_output)
        steps, beside = select_steps_behind(self.graph, site.value, [self.output])
        self.steps: list[Step] = steps
        self.needed = beside

    @torch.no_grad()
    def run_clean(self, images: Tensor) -> tuple[Values, Tensor]:
        """What the steps behind the site read, and the output (B, K)."""
        inputs = images.to(self.model.device, self.model.dtype)
        values = run_graph(self.graph, inputs, {self.site.value, self.output, *self.needed})
        return {value: values[value] for value in {self.site.value, *self.needed}}, values[self.output]

    @torch.no_grad()
    def run_without(self, given: Values, unit: int) -> Tensor:
        """The output (B, K) where a unit is zero."""
        value = given[self.site.value].clone()
        self.site.axes.apply(value)[:, unit] = 0
        return run_steps(self.steps, {**given, self.site.value: value}, [self.output])[self.output]


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
    output = next(each.value for each in sites.sites if each.is_output)
    size = default_batch((images.shape[2], images.shape[3]))
    for batch, truth in zip(images.split(size), classes.split(size), strict=True):
        inputs = batch.to(model.device, model.dtype).requires_grad_()
        with torch.enable_grad():
            values = run_graph(sites.graph, inputs, {output, *(site.value for site in wanted)})
            score = values[output].gather(1, truth.to(model.device)[:, None]).sum()
            held = [values[site.value] for site in wanted]
            gradients = torch.autograd.grad(score, held, allow_unused=True, materialize_grads=True)
        products = (
            site.axes.apply(-gradient * value.detach()).flatten(2) if value.dim() > 2 else -gradient * value.detach()
            for site, value, gradient in zip(wanted, held, gradients, strict=True)
        )
        yield [p.double().sum((0, *range(2, p.dim()))).cpu().numpy() for p in products]


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

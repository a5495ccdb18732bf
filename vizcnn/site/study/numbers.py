"""Numbers: what is measured once for all pages: effects, links, neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcnn.anatomy.effects import (
    AGREES,
    CHECKED,
    Effects,
    Estimate,
    check_estimate,
    choose_images,
    estimate_effects,
    measure_effects,
)
from vizcnn.anatomy.keeping import Arrays
from vizcnn.anatomy.links import PathLinks, SiteLinks, measure_links
from vizcnn.anatomy.neighbours import Neighbours, find_neighbours
from vizcnn.site.records import Effect, Missing
from vizcnn.site.study.material import Material

NEIGHBOURS = 8
MOST_ACROSS = 10_000
"""Units from which on neighbours are looked for in the same site alone."""

_LISTED = 5, 3  # the classes most hurt, and most helped, of an effect


@dataclass(frozen=True)
class Numbers:
    """What is measured once, each when it is first asked for, and kept. The network is borrowed for as long."""

    material: Material

    @property
    def effect_of(self) -> str:
        """What changes without a unit, in words."""
        whose = "right" if self.material.has_labels else "predicted"
        return f"the {whose} class's {self.material.quantity}"

    @cached_property
    def no_effects(self) -> Missing | None:
        """Why no effects are measured at all; None where they are."""
        if self.material.unfollowed:
            return self.material.unfollowed
        if self.material.output is None:
            return Missing(self.material.no_answer)
        if not len(self._effect_images[0]):
            return Missing("No image has an answer.")
        return None if self.material.plan.effects > 0 else Missing("It was not asked for.")

    @cached_property
    def _effect_images(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The images on which effects are measured, and the class that is looked at in each."""
        material = self.material
        classes = np.where(
            material.predicted >= 0, material.labels if self.material.has_labels else material.predicted, -1
        )
        chosen = choose_images(classes, material.plan.effect_images)
        return chosen, classes[chosen]

    @cached_property
    def effects(self) -> dict[int, Effects]:
        """By hidden site, what was measured."""
        if self.no_effects:
            return {}
        material, (numbers, classes) = self.material, self._effect_images
        orders = [np.argsort(-material.tally(i).mean.numpy(), kind="stable").tolist() for i in material.hidden]

        def make() -> Arrays:
            with material.model.borrowed():
                made = measure_effects(
                    material.model,
                    material.sites,
                    [material.site(i) for i in material.hidden],
                    material.read_inputs(numbers),
                    classes,
                    orders,
                    seconds=material.plan.effects,
                    progress=material.progress,
                )
            return {
                f"{i} {each.name}": np.asarray(getattr(one, each.name))
                for i, one in zip(material.hidden, made, strict=True)
                for each in fields(Effects)
            }

        kept = material.keeper.recall(self._effects_key, make)
        found: dict[int, Effects] = {}
        for i in material.hidden:
            own: dict[str, Any] = {each.name: kept[f"{i} {each.name}"] for each in fields(Effects)}
            found[i] = Effects(**{name: array if array.ndim else array.item() for name, array in own.items()})
        return found

    def list_kept(self) -> set[str]:
        """Which of `effects` and `links` an earlier atlas has kept."""
        has = self.material.keeper.has
        return {name for name, key in (("effects", self._effects_key), ("links", self._links_key)) if has(key)}

    @property
    def _effects_key(self) -> Mapping[str, Any]:
        _, classes = self._effect_images
        return self._key("effects", images=len(classes), seconds=self.material.plan.effects)

    @property
    def _links_key(self) -> Mapping[str, Any]:
        return self._key("links", images=len(self.material.choose_spread(self.material.plan.link_images)))

    def _key(self, what: str, **more: Any) -> Mapping[str, Any]:
        names = [site.name for site in self.material.sites.sites]  # arrays are kept by their numbers
        return self.material.key(what, sites=names, **more)

    @cached_property
    def estimates(self) -> dict[int, Estimate]:
        """By hidden site, the effects of all units to first order, compared with those that were measured."""
        if self.no_effects:
            return {}
        material, (numbers, classes) = self.material, self._effect_images
        wanted = [material.site(i) for i in material.hidden]

        def make() -> Arrays:
            with material.model.borrowed():
                made = estimate_effects(material.model, material.sites, wanted, material.read_inputs(numbers), classes)
            return {str(i): change for i, change in zip(material.hidden, made, strict=True)}

        kept = material.keeper.recall(self._key("estimates", images=len(classes)), make)
        return {i: check_estimate(kept[str(i)], self.effects[i]) for i in material.hidden}

    def find_effect(self, i: int, unit: int) -> Effect | Missing:
        """What happens without a unit: as measured, else as estimated where that holds."""
        if self.no_effects:
            return self.no_effects
        effects, estimate = self.effects[i], self.estimates[i]
        found = np.flatnonzero(effects.units == unit)
        if len(found):
            return self._describe(effects, int(found[0]))
        if not estimate.is_good:
            count = self.material.site(i).shape[0]
            return Missing(
                f"In the time that was given {len(effects.units)} of the {count} units of this layer were measured, "
                f"and this one was not. {self._explain_no_estimate(estimate)}"
            )
        return Effect(
            change=float(estimate.change[unit]), images=effects.images, of=self.effect_of,
            correlation=estimate.correlation, checked=estimate.checked,
        )  # fmt: skip

    def _explain_no_estimate(self, estimate: Estimate) -> str:
        if estimate.checked < CHECKED:
            return f"An estimate to first order is not shown: it takes {CHECKED} measured units to check it."
        correlation = "is not known" if np.isnan(estimate.correlation) else f"is {estimate.correlation:.2f}"
        return f"An estimate to first order is not shown: its correlation with them {correlation}, below {AGREES}."

    def _describe(self, effects: Effects, row: int) -> Effect:
        order = np.argsort(effects.by_class[row], kind="stable")
        hurt, helped = _LISTED
        listed = [*order[:hurt], *order[max(hurt, len(order) - helped) :]]
        return Effect(
            change=float(effects.change[row]),
            images=effects.images,
            flips=int(effects.flips[row]),
            before=effects.before if self.material.has_labels else None,
            after=float(effects.after[row]) if self.material.has_labels else None,
            by_class=tuple((int(effects.classes[c]), float(effects.by_class[row, c])) for c in listed),
            of=self.effect_of,
        )

    def list_effects(self, i: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The change without each unit of a site, float32 (C,), NaN where it is not known, and whether it is an
        estimate."""
        count = self.material.site(i).shape[0]
        change, is_estimated = np.full(count, np.nan, np.float32), np.zeros(count, np.bool_)
        if self.no_effects or i not in self.effects:
            return change, is_estimated
        effects, estimate = self.effects[i], self.estimates[i]
        if estimate.is_good:
            change[:], is_estimated[:] = estimate.change, True
        change[effects.units], is_estimated[effects.units] = effects.change, False
        return change, is_estimated

    @cached_property
    def links(self) -> list[SiteLinks]:
        """What leads into each site; none for a network that cannot be followed."""
        material = self.material
        if material.sites.graph is None:
            return []
        numbers = material.choose_spread(material.plan.link_images)

        def make() -> Arrays:
            with material.model.borrowed():
                made = measure_links(material.model, material.sites, material.read_inputs(numbers))
            arrays = {f"{i}": own.deviation for i, own in enumerate(made)}
            for i, own in enumerate(made):
                for p, path in enumerate(own.paths):
                    arrays |= {f"{i} {p} deviation": path.deviation, f"{i} {p} mean": path.mean}
            return arrays

        kept = material.keeper.recall(self._links_key, make)
        return [
            SiteLinks(
                tuple(PathLinks(kept[f"{i} {p} deviation"], kept[f"{i} {p} mean"]) for p in range(len(site.paths))),
                kept[f"{i}"],
            )
            for i, site in enumerate(material.sites.sites)
        ]

    @cached_property
    def neighbours(self) -> dict[int, Neighbours]:
        """By hidden site, the neighbours of its units; none without a sample of images."""
        material = self.material
        means = [material.study(i).means.numpy() for i in material.hidden]
        numbers = [material.study(i).numbers.numpy() for i in material.hidden]
        if not means or len(numbers[0]) < 3 or any(not np.array_equal(each, numbers[0]) for each in numbers):
            return {}
        across = sum(each.shape[1] for each in means) <= MOST_ACROSS
        found = find_neighbours(means, NEIGHBOURS, across=across)
        return dict(zip(material.hidden, found, strict=True))

"""Measured: the records of an atlas, of a network and the index of a scan of its sites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vizcnn.anatomy.keeping import NOWHERE, Keeper
from vizcnn.graph.sites import Sites
from vizcnn.models.model import Model
from vizcnn.scanning import Index
from vizcnn.site.records import (
    ByHand,
    ClassPage,
    ImagePage,
    Images,
    Layer,
    Missing,
    Network,
    Origin,
    Pixels,
    Unit,
    Wall,
)
from vizcnn.site.study.classes import describe_classes
from vizcnn.site.study.images import choose_pages, describe_by_hand, describe_pages, show_photograph
from vizcnn.site.study.layers import describe_layer, describe_wall
from vizcnn.site.study.material import Material, Plan
from vizcnn.site.study.numbers import Numbers
from vizcnn.site.study.units import describe_units
from vizcnn.version import __version__


def measure(
    model: Model, sites: Sites, index: Index, plan: Plan, *, keeper: Keeper = NOWHERE, progress: bool = False
) -> Measured:
    """The records of an atlas. Each is measured when it is asked for, and the network is afterwards as it was.

    sites: from `find_sites`. index: of a scan of what all of them read, with a study: `list_readings(sites)`.
    keeper: keeps what takes long, so that an atlas that was interrupted goes on. Raises ParameterError for another
    network's index, or one that lacks something.

        import vizcnn
        from vizcnn.graph.sites import find_sites
        from vizcnn.scanning import Study
        from vizcnn.site.study.material import Plan
        from vizcnn.site.study.measured import list_readings, measure

        model = vizcnn.load("tiny")
        sites = find_sites(model)
        index = vizcnn.scan(model, "photos/", "index", layers=list_readings(sites), study=Study())
        records = measure(model, sites, index, Plan(title="tiny", data="photos", made="2026-11-27"))
    """
    return Measured(Material(model, sites, index, plan, keeper, progress))


def list_readings(sites: Sites) -> list[str]:
    """The layers of a scan that an atlas of these sites needs."""
    return [site.read for site in sites.sites]


@dataclass(frozen=True)
class Measured:
    """See `vizcnn.site.records.Records`."""

    material: Material

    @cached_property
    def numbers(self) -> Numbers:
        """What is measured once."""
        return Numbers(self.material)

    @cached_property
    def network(self) -> Network:
        material = self.material
        plan, index, model = material.plan, material.index, material.model
        return Network(
            title=plan.title,
            input=(model.input.channels, *index.size),
            parameters=sum(parameter.numel() for parameter in model.network.parameters()),
            classes=tuple(material.classes),
            images=len(index.names) - len(index.unreadable),
            accuracy=material.accuracy,
            layers=tuple(self._list_layers()),
            origin=Origin(
                version=__version__,
                made=plan.made,
                model=model.name,
                weights=model.weights_sha256(),
                data=plan.data,
                fingerprint=index.facts["digest"],
                options=tuple(self._list_options()),
            ),
            graph=Missing(f"{material.sites.missing[:1].upper()}{material.sites.missing[1:]}.")
            if material.sites.missing
            else None,
        )

    def _list_layers(self) -> Iterable[Layer]:
        return (describe_layer(self.material, i) for i in range(len(self.material.sites.sites)))

    def _list_options(self) -> Iterable[tuple[str, str]]:
        plan = self.material.plan
        yield "pictures", "all" if plan.pictures is None else ", ".join(plan.pictures) or "none"
        yield "recipe", f"{plan.recipe.name}, {plan.recipe.steps} steps, seed {plan.seed}"
        yield "effects", f"{plan.effects:g} s on at most {plan.effect_images} images"
        yield "links", f"over {plan.link_images} images"
        yield "by hand", ", ".join(plan.by_hand) or "none"
        if plan.compared:
            yield "compared with", plan.compared

    @cached_property
    def images(self) -> Images:
        material = self.material
        return Images(
            labels=material.labels,
            predicted=material.predicted,
            probabilities=material.probabilities.astype(np.float32),
            names=tuple(material.index.names),
        )

    def wall(self, layer: int) -> Wall:
        effect, is_estimated = self.numbers.list_effects(layer)
        return describe_wall(self.material, layer, effect, is_estimated, self.numbers.effect_of)

    def units(self, layer: int) -> Iterable[Unit]:
        return describe_units(self.material, self.numbers, layer)

    def classes(self) -> Iterable[ClassPage]:
        return describe_classes(self.material)

    def image_pages(self) -> Iterable[ImagePage]:
        return describe_pages(self.material)

    def by_hand(self, layer: int) -> ByHand | Missing:
        pages = choose_pages(self.material)
        count = min(self.material.plan.hand_images, len(pages))
        spread = np.unique(np.linspace(0, len(pages) - 1, count).round().astype(int)).tolist() if count else []
        return describe_by_hand(self.material, layer, [pages[k] for k in spread])

    def photograph(self, image: int) -> Pixels:
        index = self.material.index
        return show_photograph(index.images, index.contract, image, self.material.plan.side)

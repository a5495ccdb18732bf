"""The cost of an atlas: its size and its time, from its sites and short trials, before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import torch

from vizcnn.anatomy.keeping import Keeper
from vizcnn.anatomy.links import measure_links
from vizcnn.anatomy.pictures import BATCH, describe_batch, make_pictures
from vizcnn.errors import ImageError, NotDifferentiable, ParameterError, VizcnnError
from vizcnn.graph.sites import Site, Sites
from vizcnn.inputs.datasets import Images
from vizcnn.models.model import Model
from vizcnn.scanning import Index, Study
from vizcnn.scanning.loader import Batch, Loader
from vizcnn.scanning.observe import ScanSettings, observe
from vizcnn.scanning.run import choose_scan_batch
from vizcnn.scanning.study import settle_study
from vizcnn.site.estimate import Contents, describe_size, estimate_size, weigh_picture
from vizcnn.site.records import Layer, Missing, Network, Origin, Pixels
from vizcnn.site.study.classes import EXAMPLES
from vizcnn.site.study.images import choose_pages, explain_not_by_hand, show_photograph
from vizcnn.site.study.layers import describe_ways
from vizcnn.site.study.maps import choose_occlusion, count_kept
from vizcnn.site.study.material import Material, Plan
from vizcnn.site.study.numbers import Numbers
from vizcnn.version import __version__

_SAMPLES = 12  # images that are opened, spread over the data set
_FEWEST_STEPS, _MOST_STEPS, _TRIED = 2, 32, 1.0  # steps of the recipe that are timed, for about so many seconds
_MAPS = 2.2  # of an image's page: two methods, and for some of them a second class
_UNKNOWN = Missing("It is not measured yet.")


@dataclass(frozen=True)
class AtlasCost:
    """What an atlas will take.

    units, images: that it will show. size: bytes by kind. seconds: by kind of work, without what is kept from an
    earlier call. recipe: of the optimised pictures."""

    units: int
    images: int
    size: dict[str, int]
    seconds: dict[str, float]
    recipe: str

    def describe(self) -> str:
        """The cost in two lines."""
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        names = {"pictures": f"pictures ({self.recipe})"}
        listed = ", ".join(f"{names.get(kind, kind)} {_in_words(each)}" for kind, each in parts if each >= 0.5)
        total = _in_words(sum(self.seconds.values()))
        return (
            f"{self.units:,} units and {self.images:,} images will take about {describe_size(self.size)}\n"
            f"  and about {total}{': ' if listed else ''}{listed}"
        )

    def __str__(self) -> str:
        return self.describe()


@dataclass(frozen=True)
class Trial:
    """An atlas that is going to be made, of which a little is tried.

    images: the data set. size: height and width of the inputs. keeper: of what an earlier call has kept. index: of
    its scan, if there is one. dataset_images: whether the site will show any. other: of the network that it is compared
    with, of the sites that it has in common with this one. The networks must be borrowed."""

    model: Model
    sites: Sites
    images: Images
    size: tuple[int, int]
    plan: Plan
    keeper: Keeper
    index: Index | None
    dataset_images: bool
    other: Trial | None = None

    def run(self) -> AtlasCost:
        """The cost. Raises ImageError where none of the sampled images can be read."""
        units = sum(site.shape[0] for site in self.sites.sites)
        batch = self._load_samples()
        size = estimate_size(self._list_contents(batch.numbers.tolist()))
        seconds = self._estimate_seconds(batch)
        if self.other:
            seconds |= {f"{kind} of the other network": s for kind, s in self.other.estimate_comparison(batch).items()}
        return AtlasCost(units, len(self.images), size, seconds, self.plan.recipe.name)

    # ------------------------------------------------------------------------------------------------------------ size

    def _load_samples(self) -> Batch:
        batch = self._loader.load(self._choose_samples())
        if batch.inputs is None:
            raise ImageError(f"none of the images that were tried can be read: {batch.unreadable[0][1]}")
        return batch

    @property
    def _loader(self) -> Loader:
        return Loader(self.images, self.model.input, self.size)

    def _choose_samples(self) -> list[int]:
        last = len(self.images) - 1
        return sorted(set(np.linspace(0, last, min(_SAMPLES, last + 1)).round().astype(int).tolist()))

    def _list_contents(self, samples: Sequence[int]) -> Contents:
        layers = tuple(self._describe_site(site) for site in self.sites.sites)
        by_hand = [i for i, site in enumerate(self.sites.sites) if self._is_by_hand(site)]
        kernels = [path.kernel for layer in layers for path in layer.paths if path.weights]
        contract = self.model.input
        photographs: list[Pixels] = [
            show_photograph(self.images, contract, number, self.plan.side) for number in samples
        ]
        return Contents(
            network=Network(
                title=self.plan.title,
                input=(contract.channels, *self.size),
                parameters=0,
                classes=self._name_classes(),
                images=len(self.images),
                accuracy=_UNKNOWN,
                layers=layers,
                origin=Origin(__version__, self.plan.made, self.model.name, "", self.plan.data, ""),
            ),
            images=len(self.images),
            name=round(float(np.mean([len(self.images.names[number]) for number in samples]))),
            pictures=sum(site.shape[0] for site in self._list_pictured()),
            picture=weigh_picture((contract.channels, *contract.size)),
            photographs=self._count_photographs(),
            samples=photographs,
            image_pages=self._pages,
            maps=round(_MAPS) if self._name_classes() else 0,
            map_size=round(prod(self.size) * _MAPS / round(_MAPS)),
            by_hand=tuple(by_hand),
            readings=min(self.plan.hand_images, self._pages),
            numbers_read=sum(self._count_numbers(self.sites.sites[i]) for i in by_hand),
            crops=min(self.plan.crops, len(self.images)),
            kernel=round(float(np.mean([prod(kernel) if kernel else 1 for kernel in kernels]))) if kernels else 0,
            compared=self.other.count_hidden() if self.other else 0,
            other_pictures=self.other.count_hidden(pictured=True) if self.other else 0,
            dataset_images=self.dataset_images,
        )

    def _describe_site(self, site: Site) -> Layer:
        """What a site will be in the atlas, as far as it is known without any images."""
        return Layer(
            name=site.name,
            read=site.read,
            shape=site.shape,
            paths=describe_ways(self.sites, site),
            activation="",
            parameters=site.parameters,
            field=_UNKNOWN,
            zeros=_UNKNOWN,
            dead=_UNKNOWN,
            always_on=_UNKNOWN,
            strongest=(),
            is_output=self._is_answer(site),
        )

    def _is_by_hand(self, site: Site) -> bool:
        return site.name in self.plan.by_hand and not explain_not_by_hand(site)

    @staticmethod
    def _is_answer(site: Site) -> bool:
        return site.is_output and len(site.shape) == 1 and site.shape[0] > 1

    def _name_classes(self) -> tuple[str, ...]:
        answer = next(filter(self._is_answer, self.sites.sites), None)
        return () if answer is None else tuple(self.model.class_name(k) for k in range(answer.shape[0]))

    @property
    def _pages(self) -> int:
        return min(self.plan.pages, len(self.images))

    def _count_photographs(self) -> int:
        """How many different images some page shows, if each unit and class chose its own by chance."""
        count, answer = len(self.images), len(self._name_classes())
        units = self.count_hidden() + (self.other.count_hidden() if self.other else 0)
        missed = (1 - min(1, self.plan.crops / count)) ** units * (1 - min(1, EXAMPLES / count)) ** answer
        return max(self._pages, round(count * (1 - missed)))

    @staticmethod
    def _count_numbers(site: Site) -> int:
        """How many numbers a site reads, behind any pooling, and says."""
        return prod(site.shape) + sum(prod(path.shape) for path in site.paths)

    def _list_pictured(self) -> list[Site]:
        names = self.plan.pictures
        return [site for site in self.sites.sites if names is None or site.name in names]

    def count_hidden(self, *, pictured: bool = False) -> int:
        """How many units are not classes, or are not and have a picture."""
        sites = self._list_pictured() if pictured else self.sites.sites
        return sum(site.shape[0] for site in sites if not self._is_answer(site))

    # ------------------------------------------------------------------------------------------------------------ time

    def estimate_comparison(self, batch: Batch) -> dict[str, float]:
        """Seconds by kind of work, of what both networks of a comparison take. batch: of a few images."""
        assert batch.inputs is not None
        loading = self._time(lambda: self._loader.load(batch.numbers.tolist())) / len(batch.inputs)
        looking = self._time_scan(batch)
        found = {} if self.index else {"scan": (loading + looking) * len(self.images)}
        found["pictures"] = self._estimate_pictures()
        if self.sites.graph is not None and "effects" not in self._list_kept():
            found["effects"] = self.plan.effects if self._name_classes() else 0.0
        return {kind: seconds for kind, seconds in found.items() if seconds > 0}

    def _estimate_seconds(self, batch: Batch) -> dict[str, float]:
        assert batch.inputs is not None
        found = self.estimate_comparison(batch)
        if self.sites.graph is not None and "links" not in self._list_kept():
            one = batch.inputs[:1]
            found["links"] = self._time(lambda: measure_links(self.model, self.sites, one)) * self.plan.link_images
        if self.dataset_images and self._name_classes():
            found["maps"] = self._estimate_maps(batch)
        return {kind: seconds for kind, seconds in found.items() if seconds > 0}

    def _list_kept(self) -> set[str]:
        """What of the kinds of work that are kept as a whole need not be done again."""
        return Numbers(self._material).list_kept() if self._material else set()

    @cached_property
    def _material(self) -> Material | None:
        """What an atlas begins with once its scan is there; None before, or where the scan is of another network."""
        if self.index is None:
            return None
        try:
            return Material(self.model, self.sites, self.index, self.plan, self.keeper)
        except ParameterError:
            return None

    def _time(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def _time_scan(self, batch: Batch) -> float:
        """Seconds for one image, once a first batch has gone through."""
        assert batch.inputs is not None
        names = {site.read: site.shape for site in self.sites.sites}
        study = settle_study(self.model, Study(), self.size, len(self.images))
        at_once = choose_scan_batch(self.model, self.size)
        settings = ScanSettings(names, self.size, self.plan.crops, "max", at_once, torch.get_num_threads(), study)
        with observe(self.model, settings) as observe_batch:
            finding = settings.make_finding()
            parts = min(at_once, len(batch.inputs))
            tried = Batch(batch.numbers[:parts], batch.inputs[:parts], batch.labels[:parts], ())
            observe_batch(tried, finding)
            again = settings.make_finding()
            return self._time(lambda: observe_batch(tried, again)) / parts

    def _estimate_pictures(self) -> float:
        """A few steps for a batch of the middle one of the pictured sites, times the batches that are not kept."""
        sites, plan = self._list_pictured(), self.plan
        todo = sum(
            not self.keeper.has(describe_batch(self.model, site, part, plan.recipe, plan.seed))
            for site in sites
            for part in _split(site.shape[0])
        )
        if not todo:
            return 0.0
        batches = sum(site.shape[0] for site in sites) / BATCH * todo / sum(len(_split(s.shape[0])) for s in sites)
        for site in (sites[len(sites) // 2], sites[0]):
            try:
                return self._time_step(site) * plan.recipe.steps * batches
            except NotDifferentiable:  # such a site has no pictures, and its pages say why
                continue
        return 0.0

    def _time_step(self, site: Site) -> float:
        """Seconds of a step for a full batch of pictures of a site. Raises NotDifferentiable."""
        units, plan = _split(site.shape[0])[0], self.plan

        def make(steps: int) -> float:
            recipe = replace(plan.recipe, steps=steps)
            return self._time(lambda: make_pictures(self.model, site, units, recipe, seed=plan.seed))

        first = make(1)
        steps = max(_FEWEST_STEPS, min(_MOST_STEPS, round(_TRIED / first)))
        more = make(1 + steps)
        return max(more - first, more / (1 + steps) / 2) / steps * BATCH / len(units)

    def _estimate_maps(self, batch: Batch) -> float:
        """As if each of two methods took what occlusion does with its coverings, for what is not kept."""
        assert batch.inputs is not None
        kept = count_kept(self._material, choose_pages(self._material)) if self._material else 0
        todo = 2 * self._pages - kept
        if todo <= 0:
            return 0.0
        try:
            cost = choose_occlusion(self.sites).dry_run(self.model, batch.inputs[:1], trust=True)
        except VizcnnError:  # of a network that occlusion refuses, as the atlas says in its place
            return 0.0
        return cost.seconds * todo if cost else 0.0


def _split(count: int) -> list[range]:
    return [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

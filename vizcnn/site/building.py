"""atlas(): a network and a data set become a website: scanned, studied and written in one call."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from vizcnn.anatomy.keeping import Keeper
from vizcnn.errors import LayerNotFound, ParameterError, UnsuitableNetwork, did_you_mean
from vizcnn.graph.sites import Site, Sites, find_sites
from vizcnn.inputs.datasets import dataset
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import borrow
from vizcnn.models.model import Model
from vizcnn.output import refuse_inside
from vizcnn.progress import say
from vizcnn.scanning import Index, Study, scan
from vizcnn.scanning.layer_selection import find_input_size
from vizcnn.scanning.manifest import read_manifest
from vizcnn.site.cost import AtlasCost, Trial
from vizcnn.site.folder import PAGE, refuse_foreign
from vizcnn.site.study.material import Plan
from vizcnn.site.study.measured import list_readings, measure
from vizcnn.site.writer import write_site

MOST_PICTURES = 2000
"""Units of a network up to which all get an optimised picture, unless something else is asked for."""

_BY_HAND = 3  # layers that can be computed by hand, where none are named
_WORK = ".work"  # behind the name of the site's folder


@dataclass(frozen=True)
class Atlas:
    """A website that was written.

    folder, page: where it lies, and what to open. work: the folder with the scan and what was measured, from which the
    next atlas goes on; it holds names of files of the data set. units, images: that it shows. size: bytes. seconds:
    that it took."""

    folder: Path
    work: Path
    units: int
    images: int
    size: int
    seconds: float

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    def describe(self) -> str:
        """What was written, in words."""
        return (
            f"{self.units:,} units and {self.images:,} images in {self.size / 1e6:.1f} MB, {self.seconds:.0f} s\n"
            f"  open {self.page}\n"
            f"  {self.work} keeps the scan and the pictures for the next time; delete it if you want none"
        )

    def __str__(self) -> str:
        return self.describe()


def atlas(
    model: Model,
    images: Any = None,
    folder: str | Path = "site",
    *,
    index: str | Path | None = None,
    labels: str | Path | Mapping[str, str] | None = None,
    layers: Sequence[str] | None = None,
    pictures: Sequence[str] | Literal["all", "none"] | None = None,
    effects: float = 60.0,
    by_hand: Sequence[str] | None = None,
    dataset_images: bool = True,
    title: str | None = None,
    seed: int = 0,
    client: Any = None,
    progress: bool = True,
) -> Atlas:
    """Write the website of a network: every unit one link, opened from a folder, without a server.

    Its units are read behind their activation functions, with all that leads into them (`vizcnn.graph.sites`). One pass
    over the images finds what excites each, its statistics and the network's answers; then comes what needs the network
    again: optimised pictures, what happens without a unit, what drives it, maps of some images.

    images: as of `vizcnn.scan`, labels likewise. folder: where the site goes; a site that is there is replaced,
        anything else left alone. Beside it, FOLDER.work keeps the scan and what took long: called again after a stop,
        it goes on from there.
    index: of a scan of all sites with a study, in place of images; that of another atlas is one.
    layers: names or patterns of the sites that are shown, by default all. pictures: the names or patterns of those
        whose units get an optimised picture, `all` or `none`; by default all of a network of at most 2,000 units, and
        else none. by_hand: those that can be computed number by number on a page; by default the first three.
    effects: seconds for measuring what happens without units. dataset_images: False leaves out every pixel, map,
        activation and file name of the data set. title: by default the model's name. seed: of the pictures.
    client: a `distributed.Client` whose workers share the scan. progress: whether its size and time are said first, and
    bars may appear.

    The network is afterwards as it was. Raises ParameterError, LayerNotFound, OutputError, ImageError,
    UnsuitableNetwork for a black box.

        import vizcnn

        made = vizcnn.atlas(vizcnn.load("lecture"), "digits/", "site")
        print(made)
    """
    start, folder = time.perf_counter(), Path(folder)
    order = _Order(model, folder, index, labels, layers, pictures, effects, by_hand, dataset_images, title, seed)
    order.check(images)
    with borrow(model, "Atlas"):
        made = order.prepare(images)
        if progress:
            say(made.trial.run().describe())
        found, sites = made.index, made.trial.sites
        if found is None:
            found = scan(
                model, made.trial.images, order.work / "index", layers=list_readings(sites), study=Study(),
                client=client, progress=progress,
            )  # fmt: skip
        records = measure(model, sites, found, made.trial.plan, keeper=made.trial.keeper, progress=progress)
        written = write_site(records, folder, dataset_images=dataset_images, progress=progress)
    units = sum(site.shape[0] for site in sites.sites)
    return Atlas(folder, order.work, units, records.network.images, written.size, time.perf_counter() - start)


def estimate(
    model: Model,
    images: Any = None,
    folder: str | Path = "site",
    *,
    index: str | Path | None = None,
    labels: str | Path | Mapping[str, str] | None = None,
    layers: Sequence[str] | None = None,
    pictures: Sequence[str] | Literal["all", "none"] | None = None,
    effects: float = 60.0,
    by_hand: Sequence[str] | None = None,
    dataset_images: bool = True,
    title: str | None = None,
    seed: int = 0,
) -> AtlasCost:
    """The size and the time of the atlas that `atlas` writes with the same arguments; nothing is written.

    A few images are opened, a batch of them goes through the network, and a few steps of a picture are made. The size
    is right to about 15%; the time is that of this machine at this moment, and less where an earlier call has kept
    something beside `folder`.

        import vizcnn
        from vizcnn.site.building import estimate

        print(estimate(vizcnn.load("lecture"), "digits/"))
    """
    order = _Order(model, Path(folder), index, labels, layers, pictures, effects, by_hand, dataset_images, title, seed)
    order.check(images)
    with borrow(model, "Atlas"):
        return order.prepare(images).trial.run()


@dataclass(frozen=True)
class _Prepared:
    """An atlas that can be made or tried. index: of the scan, where the person has named one."""

    trial: Trial
    index: Index | None


@dataclass(frozen=True)
class _Order:
    """What a person asks for, see `atlas`."""

    model: Model
    folder: Path
    index: str | Path | None
    labels: str | Path | Mapping[str, str] | None
    layers: Sequence[str] | None
    pictures: Sequence[str] | Literal["all", "none"] | None
    effects: float
    by_hand: Sequence[str] | None
    dataset_images: bool
    title: str | None
    seed: int

    @property
    def work(self) -> Path:
        whole = Path(os.path.abspath(self.folder))  # `.` and `..` have no name
        return whole.with_name(whole.name + _WORK)

    def check(self, images: Any) -> None:
        """Raise what is wrong before the network runs."""
        refuse_foreign(self.folder)
        refuse_inside(self.folder, images)
        refuse_black_box(self.model.network, self.model.name)
        if (images is None) == (self.index is None):
            raise ParameterError("an atlas is of images, or of the index of a scan: give one of them")

    def prepare(self, images: Any) -> _Prepared:
        """Everything that is decided before anything is measured. The network must be borrowed."""
        model = self.model
        found = _find_index(self.index, self.labels) if self.index is not None else None
        held = found.images if found is not None else dataset(images, self.labels)
        size = found.size if found is not None else find_input_size(held, model)
        sites = _find_sites(model, size, self.layers)
        plan = Plan(
            title=self.title or model.name,
            data=Path(held.where).name if self.dataset_images else "a data set",  # which may be the name of a file
            made=datetime.now(UTC).date().isoformat(),
            pictures=_choose_pictures(sites, self.pictures),
            effects=self.effects,
            by_hand=_choose_by_hand(sites, self.by_hand),
            seed=self.seed,
        )
        before = read_manifest(self.work / "index")
        is_scanned = found is not None or bool(before and before["facts"]["complete"])
        keeper = Keeper(self.work / "kept")
        return _Prepared(Trial(model, sites, held, size, plan, keeper, is_scanned, self.dataset_images), found)


def _find_index(index: str | Path, labels: Any) -> Index:
    if labels is not None:
        raise ParameterError("labels are read by the scan, and an index has them. Leave labels out")
    return Index.open(index)


def _find_sites(model: Model, size: tuple[int, int], layers: Sequence[str] | None) -> Sites:
    """The sites that are shown. What reads a site that is left out is shown without its links."""
    found = find_sites(model, size)
    if not found.sites:
        raise UnsuitableNetwork(f"no layer of {model.name} has units to show: {found.missing or 'none has channels'}")
    if layers is None:
        return found
    names = _match(found, layers)
    kept = [site for site in found.sites if site.name in names]
    values = {0, *(site.value for site in kept)}
    return replace(found, sites=tuple(_forget_others(site, values) for site in kept))


def _forget_others(site: Site, values: set[int]) -> Site:
    """A site without its paths where one of them begins at a value that is none of these."""
    if all(origin.source in values for path in site.paths for origin in path.origins):
        return site
    return replace(site, paths=(), missing="it reads a layer that is left out")


def _match(sites: Sites, patterns: Sequence[str]) -> set[str]:
    """The names of the sites that match names or patterns. Raises LayerNotFound for one that none does."""
    names = [site.name for site in sites.sites]
    found = set[str]()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise LayerNotFound(
                f"no layer of the atlas is named {pattern!r}.{did_you_mean(pattern, names)} There are "
                f"{', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"
            )
        found |= matched
    return found


def _choose_pictures(sites: Sites, pictures: Sequence[str] | Literal["all", "none"] | None) -> tuple[str, ...] | None:
    """The names of the sites whose units get a picture; None for all."""
    if pictures is None:
        return None if sum(site.shape[0] for site in sites.sites) <= MOST_PICTURES else ()
    if isinstance(pictures, str):
        if pictures not in ("all", "none"):
            raise ParameterError(f"pictures are 'all', 'none' or a list of layers, got {pictures!r}")
        return None if pictures == "all" else ()
    names = _match(sites, pictures)
    return tuple(site.name for site in sites.sites if site.name in names)


def _choose_by_hand(sites: Sites, names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return tuple(site.name for site in sites.sites if site.paths and not site.missing)[:_BY_HAND]
    chosen = _match(sites, names)
    return tuple(site.name for site in sites.sites if site.name in chosen)

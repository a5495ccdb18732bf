"""atlas(): a network and a data set become a website: scanned, studied and written in one call."""

from __future__ import annotations

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
from vizcnn.scanning import Index, Study, scan
from vizcnn.scanning.layer_selection import find_input_size
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
    client: a `distributed.Client` whose workers share the scan.

    The network is afterwards as it was. Raises ParameterError, LayerNotFound, OutputError, ImageError,
    UnsuitableNetwork for a black box.

        import vizcnn

        made = vizcnn.atlas(vizcnn.load("lecture"), "digits/", "site")
        print(made)
    """
    start, folder = time.perf_counter(), Path(folder)
    refuse_foreign(folder)
    refuse_black_box(model.network, model.name)
    if (images is None) == (index is None):
        raise ParameterError("an atlas is of images, or of the index of a scan: give one of them")
    work = folder.with_name(folder.name + _WORK)
    with borrow(model, "Atlas"):
        found = _find_index(index, labels) if index is not None else None
        size = found.size if found is not None else find_input_size(dataset(images, labels), model)
        sites = _find_sites(model, size, layers)
        if found is None:
            found = scan(
                model, images, work / "index", layers=list_readings(sites), labels=labels, study=Study(),
                client=client, progress=progress,
            )  # fmt: skip
        plan = Plan(
            title=title or model.name,
            data=Path(found.facts["where"]).name,
            made=datetime.now(UTC).date().isoformat(),
            pictures=_choose_pictures(sites, pictures),
            effects=effects,
            by_hand=_choose_by_hand(sites, by_hand),
            seed=seed,
        )
        records = measure(model, sites, found, plan, keeper=Keeper(work / "kept"), progress=progress)
        written = write_site(records, folder, dataset_images=dataset_images, progress=progress)
    units = sum(site.shape[0] for site in sites.sites)
    return Atlas(folder, work, units, records.network.images, written.size, time.perf_counter() - start)


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

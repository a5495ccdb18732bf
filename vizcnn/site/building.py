"""atlas(): a network and a data set become a website: scanned, studied and written in one call."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from warnings import warn

from vizcnn.anatomy.keeping import Keeper
from vizcnn.ascent.recipe import Recipe, require_recipe
from vizcnn.errors import ParameterError, VizcnnWarning, did_you_mean
from vizcnn.graph.sites import Sites
from vizcnn.inputs.datasets import Images, dataset
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import borrow
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.models.preparing import require_model
from vizcnn.models.threads import check_seed
from vizcnn.output import refuse_inside
from vizcnn.progress import say
from vizcnn.scanning import Index, Study, scan
from vizcnn.scanning.layer_selection import find_input_size
from vizcnn.scanning.manifest import read_manifest
from vizcnn.site.choosing import choose_by_hand, choose_pictures, choose_sites, follow
from vizcnn.site.cost import AtlasCost, Trial
from vizcnn.site.folder import PAGE, refuse_foreign
from vizcnn.site.study.comparing import Comparing
from vizcnn.site.study.material import Material, Plan
from vizcnn.site.study.measured import list_readings, measure
from vizcnn.site.study.pairing import Pairing, is_same, pair_sites, refuse_other_inputs
from vizcnn.site.writer import write_site

_WORK = ".work"  # behind the name of the site's folder


@dataclass(frozen=True)
class Atlas:
    """A website that was written.

    folder, page: where it lies, and what to open. work: the folder with the scan and what was measured, from which the
    next atlas goes on; it holds names of files of the data set. units, images: that it shows. size: bytes. seconds:
    that it took. compared: what it was compared with and what came of it, in words; "" for nothing. unreadable: the
    names of the images that could not be read and are left out, each with the reason."""

    folder: Path
    work: Path
    units: int
    images: int
    size: int
    seconds: float
    compared: str = ""
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    def describe(self) -> str:
        """What was written, in words."""
        return (
            f"{self.units:,} units and {self.images:,} images in {self.size / 1e6:.1f} MB, {self.seconds:.0f} s\n"
            + (f"  {self.compared}\n" if self.compared else "")
            + self._describe_unreadable()
            + f"  open {self.page}\n"
            f"  {self.work} keeps the scan and the pictures for the next time; delete it if you want none"
        )

    def _describe_unreadable(self) -> str:
        if not self.unreadable:
            return ""
        count = len(self.unreadable)
        images = "1 image" if count == 1 else f"{count:,} images"
        return f"  {images} could not be read and left out, the first: {self.unreadable[0][1]}\n"

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
    pages: int = 20,
    dataset_images: bool = True,
    title: str | None = None,
    compare: Model | str | None = None,
    recipe: Recipe | str = "robust",
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
    layers: names or patterns of the sites that are shown beside the output, by default all. pictures: the names or
        patterns of those whose units get an optimised picture, `all` or `none`; by default all of a network of at most
        2,000 units, and else none. by_hand: those that can be computed number by number on a page; by default the first
        three.
    effects: seconds for measuring what happens without units. pages: how many images get a page of their own, with maps
        and how far each can be believed, which is the dearest part for a large network.
    dataset_images: False leaves out every pixel, map, activation and file name of the data set. title: by default the
        model's name. recipe: of the pictures, see `vizcnn.Maximize`. seed: of their noise.
    compare: another network, mostly the same one at another time of its training, or what `vizcnn.load` takes. It is
        scanned over the same images, and each unit stands beside that of the same number in the same layer: pictures,
        crops, classes, what happens without it; most changed first. The change of a unit is 1 - r, with r Pearson's
        correlation of its means over the images, see `vizcnn.anatomy.changes`. `effects` seconds are for each network.
    client: a `distributed.Client` whose workers share the scan. progress: whether its size and time are said first, and
    bars may appear.

    The networks are afterwards as they were. Raises ParameterError, also for a network that has no layer in common with
    this one, LayerNotFound, OutputError, ImageError, UnsuitableNetwork for a black box.

        import vizcnn

        made = vizcnn.atlas(vizcnn.load("lecture"), "digits/", "site")
        print(made)
        vizcnn.atlas(vizcnn.load("lecture"), "digits/", "site", compare="lecture@runs/lecture-00067.safetensors")
    """
    start, folder = time.perf_counter(), Path(folder)
    other = _open_other(model, compare)
    order = _Order(
        model, folder, index, labels, layers, pictures, effects, by_hand, pages, dataset_images, title, other, recipe,
        seed,
    )  # fmt: skip
    order.check(images)
    with order.borrow():
        made = order.prepare(images)
        if progress:
            say(made.trial.run().describe())
        found = made.index or _scan(made.trial, order.index_folder, client, progress)
        trial = made.trial
        records = measure(model, trial.sites, found, trial.plan, keeper=trial.keeper, progress=progress)
        _warn_of_labels(records.material)
        compared = _compare(made, records.material, order, client, progress)
        written = write_site(records, folder, compared=compared, dataset_images=dataset_images, progress=progress)
    units = sum(site.shape[0] for site in trial.sites.sites)
    said = compared.comparison.describe() if compared else ""
    seconds, unreadable = time.perf_counter() - start, tuple((found.names[n], why) for n, why in found.unreadable)
    return Atlas(folder, order.work, units, records.network.images, written.size, seconds, said, unreadable)


def _open_other(model: Model, compare: Model | str | None) -> Model | None:
    """The network to compare with, on the device of this one."""
    if not isinstance(compare, str):
        return compare
    return load(compare, device=model.device, trust_pickle=model.trusts_pickle, input_size=model.input.size)


def _scan(trial: Trial, folder: Path, client: Any, progress: bool) -> Index:
    """The index of a scan of all sites of a trial."""
    layers = list_readings(trial.sites)
    return scan(trial.model, trial.images, folder, layers=layers, study=Study(), client=client, progress=progress)


def _warn_of_labels(material: Material) -> None:
    """Warn of labels that say nothing to the network: pages would call their images unlabelled without a word."""
    unknown, classes = material.unknown_labels, material.classes
    if not unknown or not classes:
        return
    first, *others = unknown
    names = (
        f"{first!r} names" if not others else f"{first!r} and {len(others):,} other label{'s' * (len(others) > 1)} name"
    )
    warn(
        f"{unknown.total():,} of {len(material.labels):,} images count as unlabelled, since {names} no class of "
        f"{material.model.name}, whose classes are {', '.join(map(repr, classes[:4]))}{', ...' * (len(classes) > 4)}."
        f"{did_you_mean(first, classes)}",
        VizcnnWarning,
        stacklevel=3,
    )


def _compare(made: _Prepared, own: Material, order: _Order, client: Any, progress: bool) -> Comparing | None:
    """The other network beside this one; None where there is none."""
    if made.pairing is None:
        return None
    trial = made.trial.other
    if trial is None:
        return Comparing(own, own, made.pairing)
    found = _scan(trial, order.other_folder, client, progress)
    other = measure(trial.model, trial.sites, found, trial.plan, keeper=trial.keeper, progress=progress)
    return Comparing(own, other.material, made.pairing)


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
    pages: int = 20,
    dataset_images: bool = True,
    title: str | None = None,
    compare: Model | str | None = None,
    recipe: Recipe | str = "robust",
    seed: int = 0,
) -> AtlasCost:
    """The size and the time of the atlas that `atlas` writes with the same arguments but `client` and `progress`;
    nothing is written.

    A few images are opened, a batch of them goes through the network, and a few steps of a picture are made. The size
    is right to about 15%; the time is that of this machine at this moment, and less where an earlier call has kept
    something beside `folder`.

        import vizcnn
        from vizcnn.site.building import estimate

        print(estimate(vizcnn.load("lecture"), "digits/"))
    """
    other, folder = _open_other(model, compare), Path(folder)
    order = _Order(
        model, folder, index, labels, layers, pictures, effects, by_hand, pages, dataset_images, title, other, recipe,
        seed,
    )  # fmt: skip
    order.check(images)
    with order.borrow():
        return order.prepare(images).trial.run()


@dataclass(frozen=True)
class _Prepared:
    """An atlas that can be made or tried.

    index: of the scan, where the person has named one. pairing: of its sites with those of the network that it is
    compared with, if it is."""

    trial: Trial
    index: Index | None
    pairing: Pairing | None


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
    pages: int
    dataset_images: bool
    title: str | None
    other: Model | None
    recipe: Recipe | str
    seed: int

    @property
    def work(self) -> Path:
        whole = Path(os.path.abspath(self.folder))  # `.` and `..` have no name
        return whole.with_name(whole.name + _WORK)

    @property
    def index_folder(self) -> Path:
        return self.work / "index"

    @property
    def other_folder(self) -> Path:
        """Where the scan of the other network is kept; each that was ever compared has its own. Weights alone do not
        tell them apart: padding or the mean of the input may differ."""
        assert self.other is not None
        about = json.dumps(self.other.provenance(), sort_keys=True, default=str)
        return self.work / f"index-{sha256(about.encode()).hexdigest()[:12]}"

    @contextmanager
    def borrow(self) -> Iterator[None]:
        """Both networks, borrowed."""
        with borrow(self.model, "Atlas"), borrow(self.other, "") if self.other else nullcontext():
            yield

    def check(self, images: Any) -> None:
        """Raise what is wrong before the network runs."""
        refuse_foreign(self.folder)
        refuse_inside(self.folder, images)
        for model in filter(None, (self.model, self.other)):
            require_model("an atlas", model)
            refuse_black_box(model.network, model.name)
        if self.other:
            refuse_other_inputs(self.model, self.other)
        if (images is None) == (self.index is None):
            raise ParameterError("an atlas is of images, or of the index of a scan: give one of them")
        require_recipe(self.recipe)
        check_seed("an atlas", self.seed)
        if not isinstance(self.pages, int) or self.pages < 1:
            raise ParameterError(f"pages, the number of images with a page, is at least 1, got {self.pages!r}")
        if not isinstance(self.effects, int | float) or not self.effects >= 0:
            raise ParameterError(f"effects are seconds, at least 0, got {self.effects!r}")

    def prepare(self, images: Any) -> _Prepared:
        """Everything that is decided before anything is measured. The network must be borrowed."""
        model = self.model
        found = _find_index(self.index, self.labels) if self.index is not None else None
        held = found.images if found is not None else dataset(images, self.labels)
        size = found.size if found is not None else find_input_size(held, model)
        sites = choose_sites(model, size, self.layers)
        plan = Plan(
            title=self.title or model.name,
            data=Path(held.where).name if self.dataset_images else "a data set",  # which may be the name of a file
            made=datetime.now(UTC).date().isoformat(),
            pictures=choose_pictures(sites, self.pictures),
            effects=self.effects,
            by_hand=choose_by_hand(sites, self.by_hand),
            pages=self.pages,
            recipe=require_recipe(self.recipe),
            seed=self.seed,
            compared=f"{self.other.name}, weights {self.other.weights_sha256()[:16]}" if self.other else "",
        )
        keeper = Keeper(self.work / "kept")
        scanned = found or _open_whole(self.index_folder)
        trial = Trial(model, sites, held, size, plan, keeper, scanned, self.dataset_images)
        if self.other is None:
            return _Prepared(trial, found, None)
        others = follow(self.other, size)
        pairing = pair_sites(model, sites, self.other, others, is_whole=self.layers is None)
        if not is_same(model, self.other):
            other = Trial(
                self.other, pairing.sites, _keep_labels(held, found) if found else held, size,
                _narrow(plan, pairing.sites), keeper, _open_whole(self.other_folder), self.dataset_images,
            )  # fmt: skip
            trial = replace(trial, other=other)
        return _Prepared(trial, found, pairing)


def _narrow(plan: Plan, sites: Sites) -> Plan:
    """The plan for a network that stands beside another: it needs no pictures of classes."""
    names = tuple(site.name for site in sites.sites if not site.is_output)
    wanted = names if plan.pictures is None else tuple(name for name in names if name in plan.pictures)
    return replace(plan, pictures=wanted)


def _open_whole(folder: Path) -> Index | None:
    """The index of a scan that was once completed; None where a folder holds none."""
    before = read_manifest(folder)
    return Index.open(folder) if before and before["facts"]["complete"] else None


def _keep_labels(images: Images, index: Index) -> Images:
    """The images of an index with the labels that they were scanned with."""
    if images.fingerprint == index.identity["dataset"]["fingerprint"]:
        return images
    return dataset(images, {n: label for n, label in zip(index.names, index.labels, strict=True) if label is not None})


def _find_index(index: str | Path, labels: Any) -> Index:
    if labels is not None:
        raise ParameterError("labels are read by the scan, and an index has them. Leave labels out")
    if read_manifest(Path(index)) is None:
        raise ParameterError(f"{index} holds no index of a scan. That of an atlas SITE is in SITE{_WORK}/index")
    return Index.open(index)

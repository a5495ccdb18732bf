"""scan(): one forward pass over a data set, kept in an index; a scan that was stopped goes on where it was."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vizcnn.errors import OutputError, ParameterError, VizcnnWarning
from vizcnn.inputs.datasets import Images, dataset
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import borrow
from vizcnn.models.layers.capture import choose_batch
from vizcnn.models.layers.readings import split_reading
from vizcnn.models.model import Model
from vizcnn.progress import bar
from vizcnn.receptive import receptive_fields
from vizcnn.scanning.cluster import distribute, send
from vizcnn.scanning.index import NAMES, Index, encode_names
from vizcnn.scanning.layer_selection import find_input_size, select_layers
from vizcnn.scanning.loader import Batch, split
from vizcnn.scanning.loader_processes import load_batches
from vizcnn.scanning.manifest import list_differences, read_manifest
from vizcnn.scanning.observe import Finding, ScanSettings, observe, set_threads
from vizcnn.scanning.shard import digest_bytes, pack_shard
from vizcnn.scanning.statistics import Rank
from vizcnn.scanning.study import Study, settle_study
from vizcnn.version import __version__

MAX_TOP = 100
"""The most images that a scan can keep for each channel."""

_MOST_SHARDS, _SMALLEST_SHARD = 256, 512  # at most so many shards, of at least so many images

_THREADS_LOCK = threading.RLock()
"""Held while a scan runs: torch's number of threads is one for the process, so scans in several threads take turns."""


@dataclass(frozen=True)
class Part:
    """The i-th of n parts of a scan, counted from 1, for runs side by side on several machines.

    A part is every n-th shard. Raises ParameterError."""

    i: int = 1
    n: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.i <= self.n:
            raise ParameterError(f"a part is i/n with i from 1 to n, got {self.i}/{self.n}")


def scan(
    model: Model,
    images: Any,
    folder: str | Path,
    *,
    layers: Sequence[str] | None = None,
    top: int = 9,
    rank: Rank = "max",
    batch: int | None = None,
    shard_size: int | None = None,
    labels: str | Path | Mapping[str, str] | None = None,
    loaders: int | None = None,
    threads: int | None = None,
    part: Part = Part(),
    client: Any = None,
    study: Study | None = None,
    progress: bool = True,
) -> Index:
    """An index of each channel's best images and statistics, from one pass of the network over a data set.

    images: a folder, an archive, a torch Dataset or a list, see `vizcnn.inputs.dataset`; labels likewise.
    folder: where the index goes. A scan that was stopped goes on when it is called again in the same way, and finds the
        same. What is missing or damaged in an index is done again, and nothing else.
    layers: names or patterns (`layer?.*`); by default convolutions, linear layers and the network's `output`.
        `relu(layer)` reads a layer behind its ReLU, see `vizcnn.models.layers.readings`.
    top: the number of images kept for each channel, 1 to 100. rank: what images are ranked by, the maximum of a
        channel's activations over positions, or their mean or sum. Of equal images the first comes first. Images that
        give NaN or infinity in a layer are left out there, and counted.
    batch: images per run of the network; by default what suits their size, or as the index was begun with.
    shard_size: images per shard, after which what was found is written to disk; by default at least 512, and at most
        256 shards.
    loaders: the number of processes that read images; by default half that of the processors. 0: this process reads.
    threads: of torch on the processor; by default as many as it uses now, or as the index was begun with. Another
        number can change the last digits of what a network computes, and so the digest. It holds for the whole process
        while the scan runs, so scans in several Python threads take turns.
    part: which shards to do, for runs side by side. client: a `distributed.Client` whose workers share the shards; they
        must see the images under the same path.
    study: what to keep for an atlas as well, see `vizcnn.scanning.study`: all activations in bins, the network's
        answers, each channel's mean and maximum for a sample of images.

    Images that cannot be read are skipped and listed in `Index.unreadable`. The index is complete unless only a part of
    n was done.
    Raises ParameterError where the folder holds another scan, OutputError where it cannot be written, LayerNotFound.

        >>> import vizcnn
        >>> photos = [vizcnn.open_photo("sample:grace_hopper").pixels[i:] for i in (0, 40, 80)]  # cut at the top
        >>> index = vizcnn.scan(vizcnn.load("tiny"), photos, "index", layers=["layer2"], loaders=0)
        >>> index.layers, index.tally("layer2").mean.shape
        ({'layer2': (80, 16, 16)}, torch.Size([80]))
    """
    found = dataset(images, labels)
    _check_sizes(
        top, {"batch": (batch, 1), "shard_size": (shard_size, 1), "loaders": (loaders, 0), "threads": (threads, 1)}
    )
    with borrow(model, "Scan"):
        refuse_black_box(model.network, model.name)
        begun = _read_identity(Path(folder))
        threads = threads or begun.get("threads") or _count_threads()
        settings = _choose_settings(model, found, layers, top, rank, batch or begun.get("batch"), threads, study)
        index = open_or_create(Path(folder), model, found, settings, shard_size, progress)
        todo = index.lacking(range(part.i - 1, len(index.shards), part.n))
        _warn_of_damage(index, [number for number in todo if index.shard(number).exists])
        index = index.reopen() if todo and index.finished else index
        job = Job(model, found, settings, index)
        files = job.run_on_cluster(client, todo, progress) if client else job.run(todo, loaders, progress)
        with closing(files):
            for number, stored in files:
                index.keep(number, stored)
    return index if index.finished or index.pending() else index.finish()


def _warn_of_damage(index: Index, shards: Sequence[int]) -> None:
    if shards:
        message = (
            f"{len(shards)} of {len(index.shards)} shards of {index.folder} were damaged and are done again, the first "
            f"is {shards[0]}"
        )
        warnings.warn(message, VizcnnWarning, stacklevel=3)


def _check_sizes(top: int, others: Mapping[str, tuple[int | None, int]]) -> None:
    """Raise ParameterError for a number out of range. others: by name, the value (or None) and the least allowed."""
    if not 1 <= top <= MAX_TOP:
        raise ParameterError(f"top must be 1 to {MAX_TOP}, got {top}")
    for name, (value, least) in others.items():
        if value is not None and value < least:
            raise ParameterError(f"{name} must be at least {least}, got {value}")


def _read_identity(folder: Path) -> dict[str, Any]:
    """How the index in a folder was begun, see `Index.identity`; empty where there is none."""
    before = read_manifest(folder)
    return dict(before["identity"]) if before else {}


def _count_threads() -> int:
    with _THREADS_LOCK:  # while another scan runs, torch uses the number of that one
        return torch.get_num_threads()


def _choose_settings(
    model: Model,
    images: Images,
    layers: Sequence[str] | None,
    top: int,
    rank: Rank,
    batch: int | None,
    threads: int,
    study: Study | None = None,
) -> ScanSettings:
    size = find_input_size(images, model)
    at_once = choose_scan_batch(model, size)
    at_once = at_once if model.one_at_a_time else batch or at_once
    settled = settle_study(model, study, size, len(images)) if study else None
    return ScanSettings(select_layers(model, size, layers), size, top, rank, at_once, threads, settled)


def choose_scan_batch(model: Model, size: tuple[int, int]) -> int:
    """How many images of height and width `size` a scan runs at once: twice as many as a bare run, as each batch costs
    it something for each layer."""
    at_once = choose_batch(model, size)
    return 1 if model.one_at_a_time else 2 * at_once


def scan_in_memory(
    model: Model, images: Images, layers: Sequence[str], top: int, rank: Rank, progress: bool
) -> Finding:
    """What a scan of all images finds, in memory instead of in a folder. The network must be borrowed already."""
    settings = _choose_settings(model, images, layers, top, rank, None, torch.get_num_threads())
    finding, batches = settings.make_finding(), split(range(len(images)), settings.batch)
    with (
        closing(load_batches(images, model.input, settings.size, batches, None)) as each,
        observe(model, settings) as observe_batch,
        bar(len(images), "scan", "image", shown=progress) as shown,
    ):
        for numbers, batch in zip(batches, each, strict=True):
            observe_batch(batch, finding)
            finding.labels += _list_labels(numbers, batch)
            shown.update(len(numbers))
    return finding


def open_or_create(
    folder: Path,
    model: Model,
    images: Images,
    settings: ScanSettings,
    shard_size: int | None,
    progress: bool,
) -> Index:
    """The index of this scan in a folder: the one that is there, or a new one.

    Raises ParameterError if the folder holds another scan or files that would be overwritten, and OutputError."""
    identity = _describe_scan(model, images, settings, shard_size)
    before = read_manifest(folder)
    if before is None:
        return _create_index(folder, model, images, settings, identity, progress)
    if different := list(list_differences(before["identity"], identity)):
        raise ParameterError(
            f"{folder} holds another scan ({'; '.join(different)}). Choose another folder, delete this one, or call it "
            "as before"
        )
    index = Index(folder, before["identity"], before["facts"], images)
    if not index.knows_names():
        index.keep_names(images.names)
    return index


def _describe_scan(model: Model, images: Images, settings: ScanSettings, shard_size: int | None) -> dict[str, Any]:
    """The identity of a scan: everything that its findings depend on, as JSON can hold it."""
    size = shard_size or max(_SMALLEST_SHARD, -(-len(images) // _MOST_SHARDS))
    shards = [(part.start, part.stop) for part in split(range(len(images)), size)]
    data = {"fingerprint": images.fingerprint, "images": len(images)}
    about = model.provenance()
    del about["network_sha256"]  # machines that share a scan may have other versions, which print layers otherwise
    identity = {
        "model": about,
        "device": model.device.type,
        "dataset": data,
        "shards": shards,
        **asdict(settings),
    }
    if settings.study is None:  # as it was before there were studies, so that the digests of scans stay
        del identity["study"]
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _create_index(
    folder: Path, model: Model, images: Images, settings: ScanSettings, identity: dict[str, Any], progress: bool
) -> Index:
    """A new index in a folder, without any shards yet. Raises OutputError, and ParameterError for foreign files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another") from error
    names = encode_names(images.names)
    facts = {
        "complete": False,
        "digest": "",
        "seals": None,
        "names": digest_bytes(names),
        "where": images.where,
        "place": images.place,
        "pictures": images.unlabelled.fingerprint,
        "version": __version__,
        "torch": torch.__version__,
        "device": str(model.device),
        "classes": model.labels,
        "fields": _compute_fields(model, settings, progress),
    }
    index = Index(folder, identity, facts, images)
    _refuse_foreign_files(index)
    index.keep_names(images.names)
    return index.write()


def _refuse_foreign_files(index: Index) -> None:
    """Raise ParameterError for files that a new index would overwrite and that are not of the same scan.

    Files of the same scan may be there without a manifest: when the scan was stopped before it wrote one, or the person
    has deleted a damaged one. They are recognized by their digests."""
    names = index.folder / NAMES
    foreign = [names] if names.exists() and not index.knows_names() else []
    foreign += [index.shard_file(number) for number in index.lacking() if index.shard(number).exists]
    if foreign:
        raise ParameterError(
            f"{foreign[0]} is not of this scan and would be overwritten. Delete it or choose another folder"
        )


def _compute_fields(model: Model, settings: ScanSettings, progress: bool) -> dict[str, Any]:
    """The receptive fields of layers that give maps, as JSON can hold them."""
    maps = {split_reading(name)[1] for name, shape in settings.layers.items() if len(shape) > 1}
    fields = receptive_fields(model, settings.size, layers=maps, progress=progress) if maps else {}
    return {
        name: {k: v.tolist() if isinstance(v, np.ndarray) else list(v) for k, v in vars(fields[layer]).items()}
        for name, (_, layer) in ((name, split_reading(name)) for name in settings.layers)
        if layer in fields
    }


@dataclass(frozen=True)
class Job:
    """Everything that is needed to do shards of a scan, in this process or another."""

    model: Model
    images: Images
    settings: ScanSettings
    index: Index

    def run(self, shards: Sequence[int], loaders: int | None, progress: bool) -> Generator[tuple[int, bytes]]:
        """The number and file of each of these shards, done one after the other in this process."""
        plan = [(shard, split(range(*self.index.shards[shard]), self.settings.batch)) for shard in shards]
        cuts = [numbers for _, parts in plan for numbers in parts]
        with (
            _THREADS_LOCK,
            set_threads(self.settings.threads),
            closing(load_batches(self.images, self.model.input, self.settings.size, cuts, loaders)) as batches,
            observe(self.model, self.settings) as observe_batch,
            bar(sum(map(len, cuts)), "scan", "image", shown=progress) as shown,
        ):
            for shard, parts in plan:
                finding = self.settings.make_finding()
                for numbers in parts:
                    batch = next(batches)
                    observe_batch(batch, finding)
                    finding.labels += _list_labels(numbers, batch)
                    shown.update(len(numbers))
                yield shard, pack_shard(finding, self.index.fingerprint, shard)

    def run_alone(self, shard: int) -> bytes:
        """The file of one shard, done without loader processes: what a worker of a cluster runs."""
        with _THREADS_LOCK, borrow(self.model, "Scan"):
            ((_, stored),) = self.run([shard], 0, progress=False)
        return stored

    def run_on_cluster(self, client: Any, shards: Sequence[int], progress: bool) -> Generator[tuple[int, bytes]]:
        """The number and file of each of these shards, in the order in which the workers of a cluster finish them."""
        total = sum(stop - start for start, stop in (self.index.shards[shard] for shard in shards))
        with bar(total, "scan", "image", shown=progress) as shown:
            for shard, fetch in distribute(client, send(client, self, self.model.network), Job.run_alone, shards):
                yield shard, fetch()
                start, stop = self.index.shards[shard]
                shown.update(stop - start)


def _list_labels(numbers: range, batch: Batch) -> list[str | None]:
    """The class of each image of a batch's numbers; None if it is unknown or the image could not be read."""
    known = dict(zip(batch.numbers.tolist(), batch.labels, strict=True))
    return [known.get(number) for number in numbers]

"""scan(): one forward pass over a data set, kept in an index, continued where it was stopped."""

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

from vizcnn.dataset import Images, dataset
from vizcnn.errors import OutputError, ParameterError, VizcnnWarning
from vizcnn.model import Model
from vizcnn.progress import bar
from vizcnn.receptive import ReceptiveField, receptive_fields
from vizcnn.scanning.cluster import spread
from vizcnn.scanning.decode import Batch, cut
from vizcnn.scanning.glance import Rank
from vizcnn.scanning.index import NAMES, Index, differences, names_file, read_manifest
from vizcnn.scanning.readers import decoded
from vizcnn.scanning.shard import digest_of, packed
from vizcnn.scanning.survey import Finding, Terms, looking, size_of, surveyed, threads
from vizcnn.subject import lent
from vizcnn.sweep import default_batch

MOST = 100
"""Images that can be kept for each channel."""

_SHARDS, _SMALLEST = 256, 512  # so many parts at most, of so many images at least

_IN_TURN = threading.RLock()  # for scans in several threads: the number of torch's own threads is the process's


@dataclass(frozen=True)
class Part:
    """The i-th of n parts of a scan, counted from 1: every n-th shard. For runs side by side on several machines."""

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
    progress: bool = True,
) -> Index:
    """Look at every image once, and keep for each channel of each layer what excites it most, and its statistics.

    images: a folder, an archive, a torch Dataset or a list, see `vizcnn.dataset.dataset`; labels likewise.
    folder: where the index goes. A scan that was stopped, by whatever, continues there when it is called again in the
        same way, and finds the same. What is missing or damaged in an index is done again, and nothing else.
    layers: names or patterns (`layer?.*`); by default convolutions, linear layers and the network's `output`.
    top: images kept for each channel, 1 to 100, ranked by the maximum over positions, or their mean or sum. Of equal
        ones the first comes first. Images that give NaN or infinity in a layer are left out there, and counted.
    batch: images per run of the network; by default what suits their size. shard_size: images after which what was
        found is written down; by default at most 256 times, after at least 512 images.
    loaders: processes that read images; by default half as many as there are processors, 0 for none beside this one.
    threads: of torch on the processor, by default what it uses now, or what an index that is there was made with:
        another number can change the last digits of what a network computes, and so the digest. It is the process's
        while the scan runs: scans in several Python threads take turns, and what else computes then has it too.
    part: which of the shards to do, for runs side by side. client: a `distributed.Client` whose workers share the
        shards; they need to see the images under the same path.

    Images that cannot be read are skipped and listed in `Index.unreadable`. Returns the index, complete unless it is a
    part of n.
    Raises ParameterError where the folder holds another scan, OutputError where it cannot be written, LayerNotFound.
    """
    found = dataset(images, labels)
    _refuse_sizes(
        top, {"batch": (batch, 1), "shard_size": (shard_size, 1), "loaders": (loaders, 0), "threads": (threads, 1)}
    )
    with lent(model, "Scan"):
        terms = _terms(model, found, layers, top, rank, batch, threads or _threads_of(Path(folder)))
        index = started(Path(folder), model, found, terms, shard_size, progress=progress)
        todo = index.lacking(range(part.i - 1, len(index.shards), part.n))
        _warn_of_damaged(index, [number for number in todo if index.shard(number).exists])
        index = index.reopen() if todo and index.finished else index
        job = Job(model, found, terms, index)
        with closing(job.shared(client, todo, progress) if client else job.done(todo, loaders, progress)) as made:
            for number, stored in made:
                index.keep(number, stored)
    return index if index.finished or index.pending() else index.finish()


def _warn_of_damaged(index: Index, shards: Sequence[int]) -> None:
    if shards:
        message = (
            f"{len(shards)} of {len(index.shards)} shards of {index.folder} were damaged and are done again, the first "
            f"is {shards[0]}"
        )
        warnings.warn(message, VizcnnWarning, stacklevel=3)


def _refuse_sizes(top: int, others: Mapping[str, tuple[int | None, int]]) -> None:
    """others: what was given by name, if anything was, and the least that it may be."""
    if not 1 <= top <= MOST:
        raise ParameterError(f"top must be 1 to {MOST}, got {top}")
    for name, (value, least) in others.items():
        if value is not None and value < least:
            raise ParameterError(f"{name} must be at least {least}, got {value}")


def _threads_of(folder: Path) -> int:
    """Those that an index was made with, or torch's."""
    if before := read_manifest(folder):
        return int(before["identity"]["threads"])
    with _IN_TURN:  # while another scan runs, torch uses the number of that one
        return torch.get_num_threads()


def _terms(
    model: Model,
    images: Images,
    layers: Sequence[str] | None,
    top: int,
    rank: Rank,
    batch: int | None,
    threads: int,
) -> Terms:
    size = size_of(images, model)
    return Terms(surveyed(model, size, layers), size, top, rank, batch or default_batch(size), threads)


def found_in(model: Model, images: Images, layers: Sequence[str], top: int, rank: Rank, progress: bool) -> Finding:
    """What a scan of all images would find, in memory. The network must be lent already."""
    terms = _terms(model, images, layers, top, rank, None, torch.get_num_threads())
    finding, batches = Finding(terms.tallies()), cut(range(len(images)), terms.batch)
    with (
        closing(decoded(images, model.input, terms.size, batches, None)) as each,
        looking(model, terms) as look,
        bar(len(images), "scan", "image", shown=progress) as shown,
    ):
        for numbers, batch in zip(batches, each, strict=True):
            look(batch, finding)
            finding.labels += _labels(numbers, batch)
            shown.update(len(numbers))
    return finding


def started(
    folder: Path, model: Model, images: Images, terms: Terms, shard_size: int | None, *, progress: bool = False
) -> Index:
    """The index of this scan in a folder: a new one, or the one that is there. Raises ParameterError for another's."""
    identity = _identity(model, images, terms, shard_size)
    before = read_manifest(folder)
    if before is None:
        return _new(folder, model, images, terms, identity, progress)
    if different := list(differences(before["identity"], identity)):
        raise ParameterError(
            f"{folder} holds another scan ({'; '.join(different)}). Choose another folder, or call it as before"
        )
    index = Index(folder, before["identity"], before["facts"], images)
    if not index.knows_names():
        index.keep_names(images.names)
    return index


def _identity(model: Model, images: Images, terms: Terms, shard_size: int | None) -> dict[str, Any]:
    size = shard_size or max(_SMALLEST, -(-len(images) // _SHARDS))
    shards = [(part.start, part.stop) for part in cut(range(len(images)), size)]
    data = {"fingerprint": images.fingerprint, "images": len(images)}
    identity = {
        "model": model.provenance(),
        "device": model.device.type,
        "dataset": data,
        "shards": shards,
        **asdict(terms),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _new(folder: Path, model: Model, images: Images, terms: Terms, identity: dict[str, Any], progress: bool) -> Index:
    from vizcnn import __version__

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another") from error
    names = names_file(images.names)
    facts = {
        "complete": False,
        "digest": "",
        "seals": None,
        "names": digest_of(names),
        "where": images.where,
        "place": images.place,
        "pictures": images.unlabelled.fingerprint,
        "version": __version__,
        "torch": torch.__version__,
        "device": str(model.device),
        "classes": model.labels,
        "fields": _fields(model, terms, progress),
    }
    index = Index(folder, identity, facts, images)
    _refuse_foreign(index)
    index.keep_names(images.names)
    return index.write()


def _refuse_foreign(index: Index) -> None:
    """Raise ParameterError for files that stand where those of a new index go.

    Without a manifest nothing says whose they are. A scan that was stopped before its manifest stood, or whose manifest
    was deleted since it was damaged, has left the same names and whole shards."""
    names = index.folder / NAMES
    foreign = [names] if names.exists() and not index.knows_names() else []
    foreign += [index.shard_file(number) for number in index.lacking() if index.shard(number).exists]
    if foreign:
        raise ParameterError(
            f"{foreign[0]} is not of this scan and would be overwritten. Delete it or choose another folder"
        )


def _fields(model: Model, terms: Terms, progress: bool) -> dict[str, Any]:
    maps = [name for name, shape in terms.layers.items() if len(shape) > 1]
    fields = receptive_fields(model, terms.size, layers=maps, progress=progress) if maps else {}
    return {name: _plain(fields[name]) for name in terms.layers if name in fields}


def _plain(field: ReceptiveField) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else list(v) for k, v in vars(field).items()}


@dataclass(frozen=True)
class Job:
    """What it takes to do shards of a scan, here or elsewhere."""

    model: Model
    images: Images
    terms: Terms
    index: Index

    def done(self, shards: Sequence[int], loaders: int | None, progress: bool) -> Generator[tuple[int, bytes]]:
        """The files of these shards, one after the other."""
        plan = [(shard, cut(range(*self.index.shards[shard]), self.terms.batch)) for shard in shards]
        cuts = [numbers for _, parts in plan for numbers in parts]
        with (
            _IN_TURN,
            threads(self.terms.threads),
            closing(decoded(self.images, self.model.input, self.terms.size, cuts, loaders)) as batches,
            looking(self.model, self.terms) as look,
            bar(sum(map(len, cuts)), "scan", "image", shown=progress) as shown,
        ):
            for shard, parts in plan:
                finding = Finding(self.terms.tallies())
                for numbers in parts:
                    batch = next(batches)
                    look(batch, finding)
                    finding.labels += _labels(numbers, batch)
                    shown.update(len(numbers))
                yield shard, packed(finding, self.index.fingerprint, shard)

    def alone(self, shard: int) -> bytes:
        """The file of one shard, made in this process alone: what a worker of a cluster does."""
        with _IN_TURN, lent(self.model, "Scan"):
            ((_, stored),) = self.done([shard], 0, progress=False)
        return stored

    def shared(self, client: Any, shards: Sequence[int], progress: bool) -> Generator[tuple[int, bytes]]:
        """The files of these shards as the workers of a cluster finish them, in whatever order."""
        total = sum(stop - start for start, stop in (self.index.shards[shard] for shard in shards))
        with bar(total, "scan", "image", shown=progress) as shown:
            for shard, stored in spread(client, self, self.model.network, Job.alone, shards):
                yield shard, stored
                start, stop = self.index.shards[shard]
                shown.update(stop - start)


def _labels(numbers: range, batch: Batch) -> list[str | None]:
    """The class of each image, None for those that could not be read."""
    known = dict(zip(batch.numbers.tolist(), batch.labels, strict=True))
    return [known.get(number) for number in numbers]

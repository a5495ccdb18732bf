"""Index: the folder in which a scan keeps what it has found, and the questions that it answers without the network.

manifest.json           what was scanned and how, whether the scan is complete, and a digest of all this
images.json             the names of the images
shard-00000.safetensors ...   what was found in each part of the images; a shard is there as a whole or not at all

Whatever is read is compared with its digest first.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vizcnn.errors import ImageError, LayerNotFound, OutputError, ParameterError, did_you_mean
from vizcnn.inputs.datasets import Images, dataset
from vizcnn.models.contract import InputContract
from vizcnn.models.targets import Target
from vizcnn.output import write_whole
from vizcnn.receptive import ReceptiveField
from vizcnn.results import Provenance
from vizcnn.scanning.layer_selection import Shape
from vizcnn.scanning.manifest import list_differences, read_manifest, write_manifest
from vizcnn.scanning.shard import REPAIR, DamagedShardError, Shard, digest_bytes, digest_json
from vizcnn.scanning.statistics import Rank
from vizcnn.scanning.study import Answers, LayerStudy, merge_answers, merge_studies, number_classes, restore_study
from vizcnn.scanning.tally import Tally, merge_tallies, restore_tally
from vizcnn.version import __version__

NAMES = "images.json"
Integers = npt.NDArray[np.int64]
_MESSAGE = 300  # letters for the names of layers in a message


@dataclass(frozen=True)
class Index:
    """What a scan has found, kept in a folder.

    identity: what was scanned and how: model, dataset, layers, size, top, rank, batch, shards.
    facts: what else the manifest says: the data set's place, receptive fields, versions, whether the scan is complete.
    given: the images, if the person gave them instead of leaving them to be read from the data set's place.
    """

    folder: Path
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    given: Images | None = None
    _tallies: dict[str, Tally] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path, images: Any = None) -> Index:
        """The index in a folder. images: what was scanned, if it is somewhere else now or was not on disk.

        Raises OutputError where there is no index."""
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise OutputError(
                f"{folder} holds no index. Make one: vizcnn scan IMAGES -m MODEL -o {shlex.quote(str(folder))}"
            )
        return cls(folder, manifest["identity"], manifest["facts"], None if images is None else dataset(images))

    @property
    def complete(self) -> bool:
        """Whether everything was scanned and nothing is missing or damaged. Reads every byte."""
        return bool(self.digest)

    @property
    def digest(self) -> str:
        """The SHA-256 of everything found: equal for scans that found the same, in however many runs and on whatever
        machines. Empty until all is done, and while something is missing or damaged. Reads every byte."""
        if not self.finished:
            return ""
        try:
            return str(self.facts["digest"]) if self.knows_names() and not self.lacking() else ""
        except ParameterError:  # a shard of another scan
            return ""

    @property
    def finished(self) -> bool:
        """Whether the scan has once been completed, whatever has become of its files since."""
        return bool(self.facts["complete"])

    @property
    def layers(self) -> dict[str, Shape]:
        """The shape of each layer's output for one image, (C, h, w) or (C,)."""
        return {name: tuple(shape) for name, shape in self.identity["layers"].items()}

    @property
    def shards(self) -> list[tuple[int, int]]:
        """For each shard, the number of its first image and the one after its last."""
        return [(start, stop) for start, stop in self.identity["shards"]]

    @property
    def contract(self) -> InputContract:
        """The model's input contract: how photographs became inputs."""
        stored = self.identity["model"]["input"]
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return InputContract(**settings)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs in px."""
        height, width = self.identity["size"]
        return height, width

    @cached_property
    def names(self) -> list[str]:
        """The names of the images. Raises OutputError."""
        self.refuse_lost_names()
        names: list[str] = json.loads((self.folder / NAMES).read_bytes())
        return names

    def knows_names(self) -> bool:
        """Whether the file of the images' names is there and undamaged. Raises OutputError if it cannot be read."""
        file = self.folder / NAMES
        try:
            return file.is_file() and digest_bytes(file.read_bytes()) == self.facts["names"]
        except OSError as error:
            raise OutputError(f"{file} cannot be read: {error.strerror or error}") from error

    def refuse_lost_names(self) -> None:
        """Raise OutputError where the names of the images are missing or damaged."""
        if not self.knows_names():
            raise OutputError(f"{self.folder / NAMES} is missing or damaged. {REPAIR}")

    @cached_property
    def images(self) -> Images:
        """The images that were scanned. Raises ImageError if they are gone, or others are in their place."""
        if self.given is None and self.facts["place"] is None:
            raise ImageError(
                f"the scanned images ({self.facts['where']}) were no files. Index.open(folder, images=...)"
            )
        found = self.given or dataset(self.facts["place"])
        if found.unlabelled.fingerprint != self.facts["pictures"]:
            raise ImageError(
                f"{found.where} holds other images than when {self.folder} was made. Scan it again, or name the folder "
                "that was scanned: Index.open(folder, images=...)"
            )
        return found

    def provenance(self, probe: str, options: Mapping[str, Any], paper: str, wanted: Sequence[Target]) -> Provenance:
        """The provenance of what a probe finds in this index. wanted: the targets that were asked for."""
        about = {"dataset": self.facts["where"], "pictures": len(self.names), "index": self.facts["digest"][:16]}
        about |= {"drawn": self.contract.drawn} if self.contract.drawn else {}
        return Provenance(
            version=__version__,
            torch=self.facts["torch"],
            probe=probe,
            options=options,
            details=about,
            **self.identity["model"],
            device=self.facts["device"],
            images=(),
            targets=(tuple(map(str, wanted)),),
            target_specs=(tuple(one.spec for one in wanted),),
            seed=0,
            paper=paper,
        )

    def tally(self, layer: str) -> Tally:
        """A layer's best images and statistics over all shards that are done. The first call reads them from disk.

        Raises LayerNotFound and OutputError."""
        if layer not in self.layers:
            raise LayerNotFound(
                f"the index {self.folder} holds no layer {layer!r}.{did_you_mean(layer, self.layers)} It holds "
                f"{shorten(', '.join(self.layers), _MESSAGE, placeholder=' ...')}. Others need another scan: "
                f"--layers {layer}"
            )
        if layer not in self._tallies:
            self._tallies[layer] = self._read_tally(layer)
        return self._tallies[layer]

    def _read_tally(self, layer: str) -> Tally:
        done = self._list_done()
        if not done:
            raise OutputError(f"no part of the index {self.folder} is done yet. Run its scan again")
        shape = self.layers[layer]
        places, top = shape[1] * shape[2] if len(shape) > 1 else 1, int(self.identity["top"])
        return merge_tallies(restore_tally(top, places, *shard.read_arrays(layer)) for shard in done)

    @property
    def has_study(self) -> bool:
        """Whether the scan kept what an atlas needs beside its tallies, see `vizcnn.scanning.study`."""
        return "study" in self.identity

    def study(self, layer: str) -> LayerStudy:
        """What the scan's study has found in a layer, over all shards that are done.

        Raises ParameterError for an index without a study, and what `tally` raises."""
        self._refuse_without_study()
        self.tally(layer)  # which knows what to say of a layer that is not there
        return merge_studies([restore_study(shard.read_arrays(layer)[0]) for shard in self._list_done()])

    @cached_property
    def answers(self) -> Answers:
        """What the network answers to the images that could be read, over all shards that are done.

        Raises ParameterError for an index without a study, and OutputError."""
        self._refuse_without_study()
        return merge_answers((shard.read_answers() for shard in self._list_done()), int(self.identity["study"]["best"]))

    def _refuse_without_study(self) -> None:
        if not self.has_study:
            raise ParameterError(
                f"{self.folder} is the index of a scan without a study. Scan again into another folder, with "
                "vizcnn.scan(..., study=vizcnn.scanning.Study())"
            )

    def field(self, layer: str) -> ReceptiveField | None:
        """The receptive field of a layer's units; None where it has no places (y, x), or the field is not known."""
        stored = self.facts["fields"].get(layer)
        if stored is None:
            return None
        pairs = ("size", "stride", "offset")
        values: dict[str, Any] = {k: tuple(v) if k in pairs else np.array(v, np.int64) for k, v in stored.items()}
        return ReceptiveField(**values)

    @property
    def rank(self) -> Rank:
        """What images are ranked by: the maximum, mean or sum of a channel's activations over positions."""
        rank: Rank = self.identity["rank"]
        return rank

    @property
    def classes(self) -> list[str] | None:
        """The names of the network's classes, if it has any."""
        classes: list[str] | None = self.facts["classes"]
        return classes

    @cached_property
    def labels(self) -> list[str | None]:
        """The class of each image; None if it is unknown, unreadable or not scanned yet. Raises OutputError."""
        found = {shard.number: shard.read_header()["labels"] for shard in self._list_done()}
        unknown = ([None] * (stop - start) for start, stop in self.shards)
        return [label for number, none in enumerate(unknown) for label in found.get(number, none)]

    @cached_property
    def class_numbers(self) -> Integers:
        """The class of each image as its position in the network's output, int64 (N,); -1 where it is not known, or
        its label names several. Raises OutputError."""
        return np.asarray(number_classes(self.labels, self.classes).numpy())

    @cached_property
    def unreadable(self) -> list[tuple[int, str]]:
        """The numbers of the images that could not be read, each with the reason. Raises OutputError."""
        return [(number, reason) for shard in self._list_done() for number, reason in shard.read_header()["unreadable"]]

    def pending(self) -> list[int]:
        """The numbers of the shards that are not there."""
        return [number for number in range(len(self.shards)) if not self.shard(number).exists]

    def lacking(self, numbers: Iterable[int] | None = None) -> list[int]:
        """The numbers of the shards that are missing or damaged, among all or among these. Reads every byte.

        Raises ParameterError for one of another scan, OutputError for one that cannot be read."""
        return [
            number for number in (range(len(self.shards)) if numbers is None else numbers) if not self._is_whole(number)
        ]

    def _is_whole(self, number: int) -> bool:
        shard = self.shard(number)
        if not shard.exists:
            return False
        try:
            shard.check()
        except DamagedShardError:
            return False
        return True

    def _list_done(self) -> list[Shard]:
        """The shards that are there. Raises OutputError if some of a finished index are missing."""
        missing = self.pending()
        if self.finished:
            self.refuse(missing)
        return [self.shard(number) for number in range(len(self.shards)) if number not in {*missing}]

    def shard(self, number: int) -> Shard:
        """The shard of this number, whether its file is there or not."""
        seals = self.facts["seals"]
        return Shard(self.shard_file(number), self.fingerprint, number, seals[number] if seals else None)

    @cached_property
    def fingerprint(self) -> str:
        """The digest of the scan's identity, by which a shard is known to belong to this scan."""
        return digest_json(self.identity)

    def shard_file(self, number: int) -> Path:
        """The path of a shard."""
        return self.folder / f"shard-{number:05d}.safetensors"

    def keep(self, number: int, stored: bytes) -> None:
        """Write the bytes of a shard's file, atomically. Raises OutputError."""
        replace_file(self.shard_file(number), stored)

    def keep_names(self, names: Sequence[str]) -> None:
        """Write the names of the images. Raises OutputError."""
        replace_file(self.folder / NAMES, encode_names(names))

    def reopen(self) -> Index:
        """This index marked as not complete, in its manifest too."""
        return self.write(complete=False, digest="", seals=None)

    def finish(self) -> Index:
        """This index marked as complete, with its digest, in its manifest too.

        Raises OutputError while shards are missing or damaged."""
        self.refuse_lost_names()
        self.refuse(self.pending())
        seals = [self.shard(number).read_seal() for number in range(len(self.shards))]
        now = Index(self.folder, self.identity, self.facts)  # this one may have been asked while shards were missing
        return self.write(complete=True, digest=now._compute_digest(), seals=seals)

    def refuse(self, lacking: Sequence[int]) -> None:
        """Raise OutputError if any shards are lacking."""
        if lacking:
            raise OutputError(
                f"{len(lacking)} of {len(self.shards)} shards of {self.folder} are missing or damaged, the first is "
                f"{lacking[0]}. {REPAIR}. Or merge the folder that holds them: vizcnn scan-merge"
            )

    def write(self, **facts: Any) -> Index:
        """This index with some facts changed, in its manifest too. Raises OutputError."""
        after = Index(self.folder, self.identity, {**self.facts, **facts}, self.given)
        write_manifest(self.folder, after.identity, after.facts)
        return after

    def _compute_digest(self) -> str:
        digest = hashlib.sha256(json.dumps([self.identity, self.labels, self.unreadable], sort_keys=True).encode())
        for tally in map(self.tally, self.layers):
            for name, array in sorted(tally.arrays().items()):
                digest.update(f"{name} {tuple(array.shape)}".encode())
                digest.update(array.contiguous().numpy().tobytes())
            digest.update(json.dumps(sorted(tally.classes)).encode())
        for name, array in self._list_studied():
            digest.update(f"{name} {tuple(array.shape)}".encode())
            digest.update(array.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _list_studied(self) -> Iterator[tuple[str, Tensor]]:
        """All arrays of the study, by name; none where there is no study."""
        if self.has_study:
            yield from sorted(vars(self.answers).items())
            for layer in self.layers:
                yield from sorted(self.study(layer).arrays().items())


def merge_indexes(folder: Path, others: Sequence[Path]) -> Index:
    """The index in a folder, completed with the shards that it lacks from indexes of the same scan in other folders.

    Raises OutputError while shards are missing, and ParameterError for an index of another scan."""
    index = Index.open(folder)
    lacking = index.lacking()
    for other in map(Index.open, others):
        if different := list(list_differences(index.identity, other.identity)):
            raise ParameterError(f"{other.folder} holds another scan than {folder} ({'; '.join(different)})")
        found = {*lacking} - {*other.lacking(lacking)}
        index = index.reopen() if found and index.finished else index
        for number in found:
            index.keep(number, other.shard_file(number).read_bytes())
        lacking = [number for number in lacking if number not in found]
    index.refuse(lacking)
    index.refuse_lost_names()
    return index if index.finished else index.finish()


def encode_names(names: Sequence[str]) -> bytes:
    """The bytes of the file with the images' names."""
    return (json.dumps(list(names)) + "\n").encode()


def replace_file(file: Path, content: bytes) -> None:
    """Write a file of an index atomically, also over a damaged one, which no longer looks like a file of its kind."""
    if file.is_file():
        file.unlink()
    with write_whole(file) as fresh:
        fresh.write_bytes(content)

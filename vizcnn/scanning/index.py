"""Index: the folder in which a scan keeps what it has found, and the questions it answers without the network.

manifest.json           what was scanned, how, and whether all of it
images.json             the names of the images
shard-00000.safetensors ...   what was found in each part of the images, complete or not there
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vizcnn.dataset import Images, dataset
from vizcnn.errors import ImageError, LayerNotFound, OutputError, ParameterError, did_you_mean
from vizcnn.model import InputContract
from vizcnn.output import atomic
from vizcnn.probe import Probe
from vizcnn.receptive import ReceptiveField
from vizcnn.results import Provenance
from vizcnn.scanning.glance import Rank
from vizcnn.scanning.survey import Finding, Shape
from vizcnn.scanning.tally import Tally, merged, restored
from vizcnn.targets import Target

MANIFEST, NAMES = "manifest.json", "images.json"
_FORMAT = 1


@dataclass(frozen=True)
class Index:
    """A folder with the findings of a scan.

    identity: what was scanned and how: model, dataset, layers, size, top, rank, batch, shards.
    facts: what else its manifest says: the data set's place, receptive fields, versions, whether it is complete.
    given: the images, where they cannot be read from the data set's place again.
    """

    folder: Path
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    given: Images | None = None

    @classmethod
    def open(cls, folder: str | Path, images: Any = None) -> Index:
        """The index in a folder. images: what was scanned, if it lay elsewhere then or was not on disk.

        Raises OutputError where there is no index."""
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise OutputError(f"{folder} holds no index. Make one: vizcnn scan IMAGES -m MODEL -o {folder}")
        return cls(folder, manifest["identity"], manifest["facts"], None if images is None else dataset(images))

    @property
    def complete(self) -> bool:
        return bool(self.facts["complete"])

    @property
    def digest(self) -> str:
        """Of everything found: equal for equal findings, however they were come by. Empty until all is done."""
        return str(self.facts["digest"])

    @property
    def layers(self) -> dict[str, Shape]:
        """The shape of each layer's output for one image, (C, h, w) or (C,)."""
        return {name: tuple(shape) for name, shape in self.identity["layers"].items()}

    @property
    def shards(self) -> list[tuple[int, int]]:
        """The images of each shard, from the first to before the last."""
        return [(start, stop) for start, stop in self.identity["shards"]]

    @property
    def contract(self) -> InputContract:
        """How photographs became inputs."""
        stored = self.identity["model"]["input"]
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return InputContract(**settings)

    @cached_property
    def names(self) -> list[str]:
        names: list[str] = json.loads((self.folder / NAMES).read_text(encoding="utf-8"))
        return names

    @cached_property
    def images(self) -> Images:
        """The images that were scanned. Raises ImageError where they are no longer there, or others are."""
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

    def provenance(self, probe: Probe[Any], wanted: Sequence[Target]) -> Provenance:
        """The record kept with what a probe answers from this index."""
        from vizcnn import __version__

        about = {"dataset": self.facts["where"], "pictures": len(self.names), "index": self.digest[:16]}
        return Provenance(
            version=__version__,
            torch=self.facts["torch"],
            probe=type(probe).name(),
            options=asdict(probe),  # type: ignore[call-overload]
            details=about,
            **self.identity["model"],
            device=self.facts["device"],
            images=(),
            targets=(tuple(map(str, wanted)),),
            target_specs=(tuple(one.spec for one in wanted),),
            seed=0,
            paper=probe.paper,
        )

    def tally(self, layer: str) -> Tally:
        """What is known of a layer, over all shards that are done. Raises LayerNotFound and OutputError."""
        if layer not in self.layers:
            raise LayerNotFound(
                f"the index {self.folder} holds no layer {layer!r}.{did_you_mean(layer, self.layers)} It holds "
                f"{', '.join(self.layers)}. Others need another scan: --layers {layer}"
            )
        done = [number for number in range(len(self.shards)) if self.shard_file(number).exists()]
        if not done:
            raise OutputError(f"no part of the index {self.folder} is done yet. Run its scan again")
        return merged(self._part(number, layer) for number in done)

    def field(self, layer: str) -> ReceptiveField | None:
        """What the layer's units see; None where it has no places, or no field is known."""
        stored = self.facts["fields"].get(layer)
        if stored is None:
            return None
        pairs = ("size", "stride", "offset")
        values: dict[str, Any] = {k: tuple(v) if k in pairs else np.array(v, np.int64) for k, v in stored.items()}
        return ReceptiveField(**values)

    @property
    def rank(self) -> Rank:
        """What images are ranked by: a channel's maximum over positions, its mean or its sum."""
        rank: Rank = self.identity["rank"]
        return rank

    @property
    def classes(self) -> list[str] | None:
        """The names of the network's classes, where it has them."""
        classes: list[str] | None = self.facts["classes"]
        return classes

    @cached_property
    def labels(self) -> list[str | None]:
        """The class of each image; None where unknown, unreadable or not scanned yet."""
        labels: list[str | None] = []
        for number, (start, stop) in enumerate(self.shards):
            found = self._about(number)["labels"] if self.shard_file(number).exists() else [None] * (stop - start)
            labels += found
        return labels

    @cached_property
    def unreadable(self) -> list[tuple[int, str]]:
        """The images that could not be read, by number, each with the reason."""
        done = (n for n in range(len(self.shards)) if self.shard_file(n).exists())
        return [(number, reason) for n in done for number, reason in self._about(n)["unreadable"]]

    def pending(self) -> list[int]:
        """The shards that are not done yet."""
        return [number for number in range(len(self.shards)) if not self._is_done(number)]

    def shard_file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def _is_done(self, number: int) -> bool:
        """Whether a shard is there. Raises ParameterError for one of another scan."""
        if not self.shard_file(number).exists():
            return False
        if self._about(number)["scan"] != fingerprint_of(self.identity):
            raise ParameterError(
                f"{self.shard_file(number)} belongs to another scan. Delete it or choose another folder"
            )
        return True

    def _about(self, number: int) -> dict[str, Any]:
        from safetensors import safe_open

        with _reading_shard(self.shard_file(number)), safe_open(self.shard_file(number), "pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["about"])
        return about

    def _part(self, number: int, layer: str) -> Tally:
        from safetensors import safe_open

        with _reading_shard(self.shard_file(number)), safe_open(self.shard_file(number), "pt") as file:
            about, prefix = json.loads(file.metadata()["about"]), f"{layer}/"
            arrays = {k.removeprefix(prefix): file.get_tensor(k) for k in _keys(file) if k.startswith(prefix)}
        shape = self.layers[layer]
        places = shape[1] * shape[2] if len(shape) > 1 else 1
        return restored(int(self.identity["top"]), places, arrays, about["classes"][layer])

    def keep(self, number: int, stored: bytes) -> None:
        """Write a shard: all of it or nothing. Raises OutputError."""
        with atomic(self.shard_file(number)) as fresh:
            fresh.write_bytes(stored)

    def finished(self) -> Index:
        """The index marked as complete, with its digest. Raises OutputError while shards are missing."""
        if missing := self.pending():
            raise OutputError(
                f"{len(missing)} of {len(self.shards)} shards of {self.folder} are missing, the first is {missing[0]}. "
                "Run the scan again, or merge the folder that holds them"
            )
        return self.written(complete=True, digest=self._digested())

    def written(self, **facts: Any) -> Index:
        """Write the manifest, with these facts changed."""
        after = Index(self.folder, self.identity, {**self.facts, **facts}, self.given)
        write_json(self.folder / MANIFEST, {"format": _FORMAT, "identity": after.identity, "facts": after.facts})
        return after

    def _digested(self) -> str:
        digest = hashlib.sha256(json.dumps([self.identity, self.labels, self.unreadable], sort_keys=True).encode())
        for layer in self.layers:
            for piece in _bytes_of(self.tally(layer)):
                digest.update(piece)
        return digest.hexdigest()


def _keys(file: Any) -> list[str]:
    return list(file.keys())


def gathered(folder: Path, others: Sequence[Path]) -> Index:
    """The index of a folder, completed with the shards that other folders hold. Raises OutputError, ParameterError."""
    index = Index.open(folder)
    for other in map(Index.open, others):
        if different := list(differences(index.identity, other.identity)):
            raise ParameterError(f"{other.folder} holds another scan than {folder} ({'; '.join(different)})")
        for number in set(index.pending()) - set(other.pending()):
            index.keep(number, other.shard_file(number).read_bytes())
    return index if index.complete else index.finished()


class _reading_shard:  # noqa: N801 - reads as a function in a with statement
    """Turn what safetensors raises on a damaged file into one clear error."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        from safetensors import SafetensorError

        if isinstance(error, SafetensorError | KeyError | ValueError | OSError):
            raise OutputError(f"{self.file} cannot be read: {error}. Delete it and run the scan again") from error


def _bytes_of(tally: Tally) -> Iterator[bytes]:
    for name, array in sorted(tally.arrays().items()):
        yield f"{name} {tuple(array.shape)}".encode()
        yield array.contiguous().numpy().tobytes()
    yield json.dumps(sorted(tally.classes)).encode()


def packed(finding: Finding, identity: Mapping[str, Any]) -> bytes:
    """A shard's file."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        f"{layer}/{name}": array.contiguous()
        for layer, tally in finding.tallies.items()
        for name, array in tally.arrays().items()
    }
    about = {
        "scan": fingerprint_of(identity),
        "labels": finding.labels,
        "unreadable": finding.unreadable,
        "classes": {layer: sorted(tally.classes) for layer, tally in finding.tallies.items()},
    }
    return save(tensors, {"about": json.dumps(about)})


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the index in a folder; None where there is none. Raises OutputError for one that is damaged."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        form, kept = manifest["format"], {key: manifest[key] for key in ("identity", "facts")}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise OutputError(f"{file} is no manifest of a scan ({error}). Choose another folder") from error
    if form != _FORMAT:
        raise OutputError(f"{file} is of format {form}, this version reads {_FORMAT}. Choose another folder")
    return kept


def write_json(file: Path, value: Any) -> None:
    with atomic(file) as fresh:
        fresh.write_text(json.dumps(value, indent=1 if file.name == MANIFEST else None) + "\n", encoding="utf-8")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two identities, a phrase each."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{key} ")
        elif old != new:
            yield f"{prefix}{key}: {_brief(old)} there, {_brief(new)} here"


def _brief(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:30]}…"

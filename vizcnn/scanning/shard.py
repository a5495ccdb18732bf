"""Shards: the files of an index, each with the tallies of one part of the images, checked whenever they are read.

A shard is a .safetensors file of the arrays LAYER/NAME of its tallies, and of its study where there is one, whose
answers have no layer: /NAME. Its header has two entries. `about` is a JSON
object: the fingerprint of the scan, the shard's number, the images' labels, and a digest of each layer's arrays. `seal`
is the digest of `about`. A finished index knows the seals of all shards, so to check one layer only its own arrays need
be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor

from vizcnn.errors import OutputError, ParameterError, VizcnnError
from vizcnn.scanning.observe import Finding
from vizcnn.scanning.study import Answers

ANSWERS = ""
"""Where the name of a layer stands: the network's answers, in a scan with a study."""

REPAIR = "Run the same scan again, as a whole: it does only what is missing or damaged"
"""How to repair an index, in a sentence for messages."""

_REASON = 200  # letters of another library's message


class DamagedShardError(OutputError):
    """A shard is not, or no longer, what the scan wrote."""


@dataclass(frozen=True)
class Shard:
    """The file of one shard, and what it must be: shard `number` of the scan with the fingerprint `scan`.

    seal: as the finished index has it; None while the scan is not finished.

    Every method that reads the file raises DamagedShardError, ParameterError for a file of another scan, and
    OutputError for one that cannot be read at all, such as without permission."""

    file: Path
    scan: str
    number: int
    seal: str | None = None

    @property
    def exists(self) -> bool:
        return self.file.is_file()

    def read_header(self) -> dict[str, Any]:
        """The entry `about` of the header: labels, unreadable, classes, digests, ..."""
        with self._open() as (_, about):
            return about

    def read_seal(self) -> str:
        """The entry `seal` of the header."""
        with self._open() as (file, _):
            return str(file.metadata()["seal"])

    def read_arrays(self, layer: str) -> tuple[dict[str, Tensor], list[str]]:
        """The arrays of a layer's tally by name, and the names of the classes that it has sums of."""
        with self._open() as (file, about):
            return self._read_layer(file, about, layer), about["classes"][layer]

    def read_answers(self) -> Answers:
        """What the network answers to the shard's images, in a scan with a study."""
        with self._open() as (file, about):
            return Answers(**self._read_layer(file, about, ANSWERS))

    def check(self) -> None:
        """Read every byte and compare it with the digests."""
        with self._open() as (file, about):
            for layer in about["digests"]:
                self._read_layer(file, about, layer)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        from safetensors import safe_open

        try:
            with self.file.open("rb"), safe_open(self.file, "pt") as file:  # Python's own error names the true reason
                yield file, self._check_header(file.metadata() or {})
        except (VizcnnError, MemoryError):
            raise
        except OSError as error:
            raise OutputError(
                f"{self.file} cannot be read: {error.strerror or error}. Check its permissions"
            ) from error
        except Exception as error:  # whatever the reader makes of bytes that can be anything
            raise self._make_error(shorten(str(error), _REASON)) from error

    def _check_header(self, header: Mapping[str, str]) -> dict[str, Any]:
        if not header.keys() >= {"about", "seal"}:
            raise ParameterError(f"{self.file} is no shard of a scan. Delete it or choose another folder")
        if digest_bytes(header["about"].encode()) != header["seal"]:
            raise self._make_error("its header was changed")
        about: dict[str, Any] = json.loads(header["about"])
        if about["scan"] != self.scan:
            raise ParameterError(f"{self.file} belongs to another scan. Delete it or choose another folder")
        if about["number"] != self.number:
            raise self._make_error(f"it is shard {about['number']} of this scan")
        if self.seal not in (None, header["seal"]):
            raise self._make_error("it is not the one that the scan wrote")
        return about

    def _read_layer(self, file: Any, about: Mapping[str, Any], layer: str) -> dict[str, Tensor]:
        named = [(key, *key.rpartition("/")) for key in list(file.keys())]
        arrays = {name: file.get_tensor(key) for key, owner, _, name in named if owner == layer}
        if _digest_arrays(arrays) != about["digests"][layer]:
            raise self._make_error(f"what it holds of layer {layer!r} was changed")
        return arrays

    def _make_error(self, reason: str) -> DamagedShardError:
        return DamagedShardError(f"{self.file} is damaged ({reason}). {REPAIR}")


def pack_shard(finding: Finding, scan: str, number: int) -> bytes:
    """The bytes of the file of shard `number`, with what was found. scan: the scan's fingerprint."""
    from safetensors.torch import save

    tallies = finding.tallies.split()
    found = {
        layer: {name: array.contiguous() for name, array in tally.arrays().items()} for layer, tally in tallies.items()
    }
    for layer, study in finding.studies.items():
        found[layer] |= study.arrays()
    if finding.answers is not None:
        found[ANSWERS] = dict(vars(finding.answers))
    about = json.dumps(
        {
            "scan": scan,
            "number": number,
            "labels": finding.labels,
            "unreadable": finding.unreadable,
            "classes": {layer: sorted(tally.classes) for layer, tally in tallies.items()},
            "digests": {layer: _digest_arrays(arrays) for layer, arrays in found.items()},
        }
    )
    tensors = {f"{layer}/{name}": array for layer, arrays in found.items() for name, array in arrays.items()}
    return save(tensors, {"about": about, "seal": digest_bytes(about.encode())})


def digest_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """The SHA-256 of a value that JSON can hold: equal for equal values, whatever the order of their keys."""
    return digest_bytes(json.dumps(value, sort_keys=True).encode())


def _digest_arrays(arrays: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {tuple(array.shape)};".encode())
        digest.update(array.numpy().reshape(-1).data)
    return digest.hexdigest()

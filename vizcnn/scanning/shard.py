"""Shards: the files of an index that hold what was found in a part of the images. Each can be told to be what it was.

A shard is a .safetensors file of the arrays LAYER/NAME of its tallies. Its header holds `about`, a JSON object: the
fingerprint of the scan, the shard's number, the images' labels, and a digest of each layer's arrays; and `seal`, the
digest of `about`. A finished index knows all seals. So a question about one layer need only digest what it reads.
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
from vizcnn.scanning.survey import Finding

AGAIN = "Run the same scan again, as a whole: it does only what is missing or damaged"
"""How an index is repaired."""

_REASON = 200  # letters of another library's message


class Damaged(OutputError):  # noqa: N818 - as those of vizcnn.errors that say what is the case
    """A shard is not, or no longer, what the scan wrote there."""


@dataclass(frozen=True)
class Shard:
    """Shard `number` of the scan with a fingerprint, in a file.

    seal: what a finished index knows it by; None while a scan is not finished.

    What reads it raises Damaged, ParameterError for a file that belongs to another scan, and OutputError for one that
    cannot be read at all, such as without permission."""

    file: Path
    scan: str
    number: int
    seal: str | None = None

    @property
    def exists(self) -> bool:
        return self.file.is_file()

    def about(self) -> dict[str, Any]:
        """What its header says: labels, unreadable, classes, digests, ..."""
        with self._opened() as (_, about):
            return about

    def sealed(self) -> str:
        """Its seal."""
        with self._opened() as (file, _):
            return str(file.metadata()["seal"])

    def arrays(self, layer: str) -> tuple[dict[str, Tensor], list[str]]:
        """A layer's arrays by name, and the classes that it has sums of."""
        with self._opened() as (file, about):
            return self._checked(file, about, layer), about["classes"][layer]

    def check(self) -> None:
        """Look at every byte."""
        with self._opened() as (file, about):
            for layer in about["digests"]:
                self._checked(file, about, layer)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        from safetensors import safe_open

        try:
            with self.file.open("rb"), safe_open(self.file, "pt") as file:  # Python's own error names the true reason
                yield file, self._about(file.metadata() or {})
        except (VizcnnError, MemoryError):
            raise
        except OSError as error:
            raise OutputError(
                f"{self.file} cannot be read: {error.strerror or error}. Check its permissions"
            ) from error
        except Exception as error:  # whatever the reader makes of bytes that can be anything
            raise self._damaged(shorten(str(error), _REASON)) from error

    def _about(self, header: Mapping[str, str]) -> dict[str, Any]:
        if not header.keys() >= {"about", "seal"}:
            raise ParameterError(f"{self.file} is no shard of a scan. Delete it or choose another folder")
        if digest_of(header["about"].encode()) != header["seal"]:
            raise self._damaged("its header was changed")
        about: dict[str, Any] = json.loads(header["about"])
        if about["scan"] != self.scan:
            raise ParameterError(f"{self.file} belongs to another scan. Delete it or choose another folder")
        if about["number"] != self.number:
            raise self._damaged(f"it is shard {about['number']} of this scan")
        if self.seal not in (None, header["seal"]):
            raise self._damaged("it is not the one that the scan wrote")
        return about

    def _checked(self, file: Any, about: Mapping[str, Any], layer: str) -> dict[str, Tensor]:
        named = [(key, *key.rpartition("/")) for key in list(file.keys())]
        arrays = {name: file.get_tensor(key) for key, owner, _, name in named if owner == layer}
        if _digested(arrays) != about["digests"][layer]:
            raise self._damaged(f"what it holds of layer {layer!r} was changed")
        return arrays

    def _damaged(self, reason: str) -> Damaged:
        return Damaged(f"{self.file} is damaged ({reason}). {AGAIN}")


def packed(finding: Finding, scan: str, number: int) -> bytes:
    """The file of shard `number` of the scan with a fingerprint."""
    from safetensors.torch import save

    found = {layer: _contiguous(tally.arrays()) for layer, tally in finding.tallies.items()}
    about = json.dumps(
        {
            "scan": scan,
            "number": number,
            "labels": finding.labels,
            "unreadable": finding.unreadable,
            "classes": {layer: sorted(tally.classes) for layer, tally in finding.tallies.items()},
            "digests": {layer: _digested(arrays) for layer, arrays in found.items()},
        }
    )
    tensors = {f"{layer}/{name}": array for layer, arrays in found.items() for name, array in arrays.items()}
    return save(tensors, {"about": about, "seal": digest_of(about.encode())})


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_json(value: Any) -> str:
    """Of anything that JSON can say, however it is laid out there."""
    return digest_of(json.dumps(value, sort_keys=True).encode())


def _contiguous(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: array.contiguous() for name, array in arrays.items()}


def _digested(arrays: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {tuple(array.shape)};".encode())
        digest.update(array.numpy().reshape(-1).data)
    return digest.hexdigest()

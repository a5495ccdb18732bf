"""Results as JSON and arrays, and back: the notation in which saved files hold a result, so that it opens again.

| in Python                     | in JSON                                                                    |
|-------------------------------|----------------------------------------------------------------------------|
| None, bool, int, float, str   | itself; a float that JSON lacks, such as NaN, is `{"float": "nan"}`        |
| tuple, list                   | `[...]`, `{"list": [...]}`                                                 |
| mapping                       | `{"dict": [[KEY, VALUE], ...]}`                                            |
| array                         | `{"array": NAME}`, or `{"array": {"dtype": ..., "values": [...]}}`         |
| pixels marked with AS_BYTES   | `{"bytes": NAME}`, an array of uint8                                       |
| Photo                         | `{"photo": {...}}`: whole up to 256 px, else a thumbnail and a digest      |
| part of a result              | `{CLASS: {FIELD: ...}}`                                                    |

Reading makes nothing but these, and of classes those alone that the result's kind names: no file can run code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcnn.inputs.photo import Photo, to_floats
from vizcnn.inputs.pixels import LARGEST
from vizcnn.results.photos import SIDE, ReducedPhoto, StoredPhoto, as_bytes, shrink

FORMAT = 1
"""Of the notation and of what stands beside it. Older files stay readable: whoever changes it keeps their reader."""

RECORD = "vizcnn"
"""Where a file holds the record that `load_result` opens; further arrays are called `vizcnn.0` and so on."""

AS_BYTES = {"vizcnn": "bytes"}
"""Metadata of a field of pixels in [0, 1] that are a picture of a photograph: files keep them in steps of 1/255."""

Array = npt.NDArray[Any]


class NotStorableError(TypeError):
    """A result holds something that has no place in the notation."""


@dataclass
class Writer:
    """Turns values into the notation.

    named: arrays that the file holds anyway, by name. parts: classes that a result may be made of. inline: whether
    arrays are written into the JSON. extra: the arrays that the file has to hold besides, filled while writing.
    """

    named: Mapping[str, Array]
    parts: Sequence[type]
    inline: bool = False
    extra: dict[str, Array] = field(default_factory=dict)

    def write(self, value: Any) -> Any:
        """Return a value in the notation. Raises NotStorableError."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple):
            return [self.write(each) for each in value]
        if isinstance(value, list):
            return {"list": [self.write(each) for each in value]}
        if isinstance(value, Mapping):
            return {"dict": [[self.write(key), self.write(each)] for key, each in value.items()]}
        if isinstance(value, np.ndarray):
            return {"array": self._array(value)}
        if isinstance(value, Photo):
            return {"photo": self._photo(value)}
        if is_dataclass(value) and type(value) in self.parts:
            return {type(value).__name__: self.fields(value)}
        raise NotStorableError(f"a {type(value).__name__}")

    def fields(self, value: Any, *, but: str = "") -> dict[str, Any]:
        """Return the fields of a dataclass by name, in the notation, without the one called `but`."""
        return {
            each.name: {"bytes": self._place(as_bytes(getattr(value, each.name)))}
            if each.metadata.get(RECORD) == "bytes"
            else self.write(getattr(value, each.name))
            for each in fields(value)
            if each.name != but
        }

    def _array(self, array: Array) -> Any:
        if array.dtype.kind not in "biuf":
            raise NotStorableError(f"an array of {array.dtype}")
        return (
            {"dtype": str(array.dtype), "values": self._listed(array.tolist())} if self.inline else self._place(array)
        )

    def _listed(self, values: Any) -> Any:
        return [self._listed(each) for each in values] if isinstance(values, list) else self.write(values)

    def _place(self, array: Array) -> str:
        """Return the name under which the file holds an array; one that it does not hold yet goes to `extra`."""
        if self.inline:
            raise NotStorableError("a picture")
        for name, other in (*self.named.items(), *self.extra.items()):
            if other is array:
                return name
        name = f"{RECORD}.{len(self.extra)}"
        self.extra[name] = array
        return name

    def _photo(self, photo: Photo) -> dict[str, Any]:
        about = {"name": photo.name, "size": [*photo.size], "channels": photo.channels}
        about["sha256"] = photo.sha256()
        if isinstance(photo, StoredPhoto):
            small = photo.thumbnail
        elif max(photo.size) <= SIDE and not isinstance(photo, ReducedPhoto):
            return about | {"whole": self._whole(photo)}
        else:
            small = as_bytes(shrink(photo.held)) if photo.held.size <= LARGEST * photo.channels else None
        return about | {"thumbnail": None if small is None else self._place(small)}

    def _whole(self, photo: Photo) -> dict[str, str]:
        """All pixels, so that they are read as they are held now: bytes, floats that are 255ths, or other floats."""
        small = as_bytes(photo.held)
        is_exact = photo.held.dtype != np.uint8 and np.array_equal(to_floats(small), photo.held)
        return {"bytes": self._place(small)} if is_exact else {"array": self._place(photo.held)}


@dataclass(frozen=True)
class Reader:
    """Turns the notation into values. What does not fit the notation raises KeyError, TypeError or ValueError.

    arrays: those of the file. parts: the classes that may be made, by name.
    """

    arrays: Mapping[str, Array]
    parts: Mapping[str, type]

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(self.read, value))
        if not isinstance(value, dict):
            return value
        ((tag, inside),) = value.items()
        match tag:
            case "float":
                return float(inside)
            case "list":
                return [self.read(each) for each in inside]
            case "dict":
                return {self.read(key): self.read(each) for key, each in inside}
            case "array":
                if isinstance(inside, str):
                    return self.arrays[inside]
                return np.array(self._numbers(inside["values"]), inside["dtype"])
            case "bytes":
                return to_floats(self.arrays[inside])
            case "photo":
                return self._photo(inside)
        return self.parts[tag](**self.fields(inside))

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.read(each) for name, each in values.items()}

    def _numbers(self, values: Any) -> Any:
        return [self._numbers(each) for each in values] if isinstance(values, list) else self.read(values)

    def _photo(self, about: Mapping[str, Any]) -> Photo:
        name, height, width = str(about["name"]), *map(int, about["size"])
        if "whole" in about:
            return Photo(self.read(about["whole"]), name)
        small = about["thumbnail"] and self.arrays[about["thumbnail"]]
        return StoredPhoto.of(small, (height, width), name, str(about["sha256"]), int(about["channels"]))


def digest_of(manifest: Mapping[str, Any], record: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """SHA-256 of all that a file says. It finds damage in every format, also in one that has no checksums."""
    said = {"manifest": manifest, "record": {name: value for name, value in record.items() if name != "sha256"}}
    digest = sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""load_result(): saved results open again."""

from __future__ import annotations

import io
import json
import operator
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ResultError
from vizcnn.inputs.images import describe_problem, to_printable
from vizcnn.results.base import Provenance, Result
from vizcnn.results.record import Record, list_kinds
from vizcnn.results.storing import FORMAT, RECORD, Reader, digest_of

Arrays = dict[str, npt.NDArray[Any]]
Contents = tuple[dict[str, Any], dict[str, Any], Arrays]
"""Manifest, record and arrays of a file."""

_DEFLATED = 1032  # bytes that one byte of a .npz file can unfold to, at most


def load_result(path: str | Path) -> Result:
    """Open a result that `save` wrote as .npz or .safetensors, or as .json where that holds all of it.

    The result is of the same class and equal to the one that was saved: same values, findings and provenance, same
    picture. Photographs of more than 256 px are an exception: of them the file has a thumbnail and the digest, and the
    result a `vizcnn.results.StoredPhoto` in place of each, whose `stored` says "thumbnail", or "digest" where the
    photograph was so large that nothing else was kept; small ones come back whole. Pictures cut from photographs are
    exact to 1/255.

    A .json has no large arrays and no pictures. A Table and a Curve open from it whole; of other kinds it gives a
    `vizcnn.results.Record` with provenance, summary and description. So does a file of a kind of result that a plugin
    defines, until that is imported.

    Opening runs no code from the file, and checks all of it against a digest. Raises ResultError for a file that is
    missing, damaged, changed by hand, saved by a newer vizcnn, or no saved result.

        >>> import vizcnn
        >>> vizcnn.Cam()(vizcnn.load("tiny"), "sample:grace_hopper").save("map.npz").name
        'map.npz'
        >>> vizcnn.load_result("map.npz").save("map.png").name
        'map.png'
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ResultError(
            f"results open from {', '.join(_READERS)}, got {to_printable(path.name)}: other formats hold a picture of "
            "them. Save the result in one of these too"
        )
    if path.exists() and not path.is_file():
        raise ResultError(f"{to_printable(path)} is no regular file. Name a file that save() wrote")
    try:
        manifest, record, arrays = read(path)
        return _build(to_printable(path), manifest, record, arrays)
    except ResultError:
        raise
    except OSError as error:
        raise ResultError(f"{to_printable(path)} {describe_problem(error)}") from error
    except Exception as error:  # a damaged file can raise anything
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ResultError(f"{to_printable(path)} is damaged, or no {path.suffix.lower()} file ({said})") from error


def _build(name: str, manifest: dict[str, Any], record: dict[str, Any], arrays: Arrays) -> Result:
    written = operator.index(record["format"])
    if written > FORMAT:
        by = manifest.get("provenance", {}).get("version", "?")
        raise ResultError(
            f"{name} was saved by vizcnn {by} in format {written}, and this one reads up to {FORMAT}. Update vizcnn"
        )
    if record["sha256"] != digest_of(manifest, record, arrays):
        raise ResultError(f"{name} is damaged, or was changed after it was saved. Save the result again")
    plain = Reader({}, {})
    provenance = Provenance(**plain.fields(record["provenance"]))
    kind = list_kinds().get(record["kind"])
    if kind is None or record["fields"] is None:
        found = {key: value for key, value in manifest.items() if key != "provenance"}
        numbers = {key: array for key, array in arrays.items() if not key.startswith(f"{RECORD}.")}
        return Record(provenance, record["kind"], found, record["words"], numbers)
    reader = Reader(arrays, {part.__name__: part for part in kind.parts})
    return kind(provenance=provenance, **reader.fields(record["fields"]))


def _read_json(path: Path) -> Contents:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    record = _find_record(path, manifest)
    return {key: value for key, value in manifest.items() if key != RECORD}, record, {}


def _find_record(path: Path, texts: Any) -> Any:
    if not isinstance(texts, dict) or RECORD not in texts:
        raise ResultError(f"{to_printable(path)} is no result that vizcnn has saved")
    return texts[RECORD]


def _read_npz(path: Path) -> Contents:
    with zipfile.ZipFile(path) as archive:
        arrays = {info.filename.removesuffix(".npy"): _read_member(archive, info) for info in archive.infolist()}
    record = json.loads(str(_find_record(path, arrays)))
    manifest = json.loads(str(arrays["manifest"]))
    return manifest, record, {name: a for name, a in arrays.items() if name not in ("manifest", RECORD)}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Read one array of a .npz file. Sizes are checked before memory is taken, since a header may say anything."""
    packed = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not packed or info.file_size > _DEFLATED * (info.compress_size + 1):
        raise ValueError(f"{info.filename} cannot be as large as it says")
    file = io.BytesIO(archive.read(info))
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = header(file)
    if dtype.hasobject or np.prod(shape, dtype=object) * dtype.itemsize != len(file.getbuffer()) - file.tell():
        raise ValueError(f"{info.filename} is not the array that it says")
    file.seek(0)
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _read_safetensors(path: Path) -> Contents:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        texts = file.metadata() or {}
        record = json.loads(_find_record(path, texts))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    return json.loads(texts["manifest"]), record, arrays


_READERS: dict[str, Callable[[Path], Contents]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".json": _read_json,
}

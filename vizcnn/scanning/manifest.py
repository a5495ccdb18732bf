"""Manifest: the file of an index that says what was scanned and how, with a digest of all this."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vizcnn.errors import OutputError
from vizcnn.output import write_whole
from vizcnn.scanning.shard import digest_json

MANIFEST = "manifest.json"
FORMAT, STUDY_FORMAT = 2, 3
"""Of an index, and of one with a study, which versions that know no study cannot read."""


def write_manifest(folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write the manifest of the index in a folder. Raises OutputError."""
    kept = {"identity": identity, "facts": facts}
    form = STUDY_FORMAT if "study" in identity else FORMAT
    text = json.dumps({"format": form, "sha256": digest_json(kept), **kept}, indent=1) + "\n"
    with write_whole(folder / MANIFEST) as fresh:
        fresh.write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the index in a folder; None if there is none. Raises OutputError for one that is damaged.

    It has passed its digest and so is what `Index.write` wrote: its types need not be checked again."""
    file = folder / MANIFEST
    again = "delete it and run the same scan again: what is done is kept"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        form, kept = operator.index(manifest["format"]), {key: manifest[key] for key in ("identity", "facts")}
        sound = manifest.get("sha256") == digest_json(kept)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(
            f"{file} is no manifest of a scan ({error}). Choose another folder; if it was one, {again}"
        ) from error
    if form not in (FORMAT, STUDY_FORMAT):
        raise OutputError(
            f"{file} is of format {form}, this version reads {FORMAT} and {STUDY_FORMAT}: scan again into another "
            "folder"
        )
    if not sound:
        raise OutputError(f"{file} is damaged: it does not fit its own digest. To repair it, {again}")
    return kept


def list_differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The differences between two identities of scans, a phrase for each."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from list_differences(old, new, f"{prefix}{key} ")
        elif old != new:
            yield f"{prefix}{key}: {_abbreviate(old)} there, {_abbreviate(new)} here"


def _abbreviate(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:30]}…"

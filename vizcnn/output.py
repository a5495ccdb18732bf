"""Write files so that they are either complete or untouched, and never over a file of another kind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vizcnn.errors import OutputError

_STARTS = {  # how a file of each kind begins, after leading white space for the text formats
    ".gif": (b"GIF8",),
    ".html": (b"<!DOCTYPE html", b"<!doctype html", b"<html"),
    ".jpeg": (b"\xff\xd8\xff",),
    ".jpg": (b"\xff\xd8\xff",),
    ".json": (b"{", b"["),
    ".npz": (b"PK\x03\x04",),
    ".pth": (b"PK\x03\x04",),
    ".pdf": (b"%PDF",),
    ".png": (b"\x89PNG",),
    ".svg": (b"<?xml", b"<svg"),
}
_HEADER_LENGTH = 8  # a .safetensors file begins with the length of its JSON header in 8 bytes


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A fresh file beside `path` to write into; it takes the place of `path` only when the block succeeds.

    Raises OutputError: as refuse_unwritable() does, and for a read-only folder or a full disk.
    """
    refuse_unwritable(path)
    try:
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Choose another place with save() or -o"
        ) from error
    os.close(handle)
    fresh = Path(name)
    try:
        yield fresh
        os.chmod(fresh, 0o666 & ~_umask())
        os.replace(fresh, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}. Nothing was changed") from error
    finally:
        fresh.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_unwritable(path: Path) -> None:
    """Raise OutputError where nothing can or may be written: a missing folder, a folder, a file of another kind."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist. Make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {path.parent} is read-only. Choose another place")
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a regular file. Choose another name")
    if path.exists() and path.stat().st_size and not _is_kind(path):
        raise OutputError(
            f"{path} exists and is no {path.suffix} file by its content; it was left alone. Choose another name"
        )


def _is_kind(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(64)
    if path.suffix.lower() == ".safetensors":
        return start[_HEADER_LENGTH : _HEADER_LENGTH + 1] == b"{"
    return start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_STARTS.get(path.suffix.lower(), ()))

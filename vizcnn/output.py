"""Write files so that they are either complete or untouched, and never over a file of another kind."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from stat import S_ISDIR, S_ISREG, S_IWGRP, S_IWOTH, S_IWUSR

from vizcnn.errors import OutputError, ParameterError

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


def refuse_inside(folder: str | Path, images: object) -> None:
    """Raise ParameterError where a folder of output would lie in a folder of images, or be one.

    images: what a person calls a data set, see `vizcnn.inputs.dataset`."""
    for each in images if isinstance(images, list | tuple) else (images,):
        if not (isinstance(each, str | Path) and os.path.isdir(each)):
            continue
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(each)):
            raise ParameterError(
                f"the folder {folder} would lie in the data set {each}, and be read as images the next time. Choose "
                "one outside with -o"
            )


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """A fresh file beside `path` to write into; it takes the place of `path` only when the block succeeds.

    As with `open(path, "w")` a symbolic link is followed and stays, and an existing file keeps its permissions. What an
    earlier process that was killed has left unfinished in the folder is removed.
    Raises OutputError: as refuse_unwritable() does, and for a read-only folder or a full disk.
    """
    refuse_unwritable(path)
    place = Path(os.path.realpath(path))
    _remove_leftovers(place.parent)
    fresh = place.parent / f"{_prefix()}{os.getpid()}-{token_hex(4)}{path.suffix}"
    try:
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL, 0o600 if place.exists() else 0o666))
    except OSError as error:
        raise OutputError(f"{_say_why(path, error)}. Choose another place with save() or -o") from error
    try:
        yield fresh
        if place.exists():
            _take_over(place, fresh)
        os.replace(fresh, place)
    except OSError as error:
        raise OutputError(f"{_say_why(path, error)}. Nothing was changed") from error
    finally:
        fresh.unlink(missing_ok=True)


def _take_over(old: Path, fresh: Path) -> None:
    """Give a file the owner, permissions and access list of the one that it replaces."""
    shutil.copystat(old, fresh)
    os.utime(fresh)
    if sys.platform != "win32":
        found = old.stat()
        for owner, group in ((found.st_uid, -1), (-1, found.st_gid)):
            with suppress(OSError):  # only root may give a file away
                os.chown(fresh, owner, group)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of processes of this machine that are no more, and nothing else.

    Once in each folder: many files may be written beside many others."""
    if sys.platform == "win32":  # there os.kill would end the process that it is to ask for
        return
    ours = re.compile(rf"{re.escape(_prefix())}(\d+)-[0-9a-f]{{8}}(\.[^.]*)?")
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = ours.fullmatch(entry.name)
            if found and entry.is_file(follow_symlinks=False) and not _is_alive(int(found[1])):
                with suppress(OSError):
                    os.unlink(entry)


@cache
def _prefix() -> str:
    """How the names of unfinished files begin: with a digest of the machine and of what its process numbers count in.

    A container counts on its own; in a folder that several share, a number says nothing of another one's processes."""
    place = socket.gethostname()
    with suppress(OSError):
        place += f" {os.stat('/proc/self/ns/pid').st_ino} {Path('/proc/sys/kernel/random/boot_id').read_text()}"
    return f".vizcnn-{sha256(place.encode()).hexdigest()[:8]}-"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another person's, or no process has such a number: hands off
        return True
    return True


def refuse_unwritable(path: Path) -> None:
    """Raise OutputError where nothing can or may be written: a missing folder, a folder, a read-only file, a file of
    another kind, a name that no file can have."""
    try:
        _refuse_unwritable(path)
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # such as a name that is too long, or has a NUL in it
        raise OutputError(f"{_say_why(path, error)}. Choose another name or place") from error


def _refuse_unwritable(path: Path) -> None:
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    folder = place.parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: the folder {folder} does not exist. Make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {folder} is read-only. Choose another place")
    try:
        found = place.stat()
    except FileNotFoundError:
        return
    if S_ISDIR(found.st_mode):
        raise OutputError(f"{path} is a folder. Name a file in it")
    if not S_ISREG(found.st_mode):
        raise OutputError(f"{path} is not a regular file. Choose another name")
    # Root has access to any file: there the bits of what was named count. Through a link root writes as open() would.
    writable = path.lstat().st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)
    if not (writable and os.access(place, os.W_OK)):
        raise OutputError(f"{path} is read-only; it was left alone. Make it writable, or choose another name")
    if found.st_size and not _is_kind(place, path.suffix):
        raise OutputError(
            f"{path} exists and is no {path.suffix} file by its content; it was left alone. Choose another name"
        )


def _say_why(path: Path, error: OSError | ValueError) -> str:
    return f"cannot write {path}: {getattr(error, 'strerror', None) or error}"


def _is_kind(path: Path, ending: str) -> bool:
    with path.open("rb") as file:
        start = file.read(64)
    if ending.lower() == ".safetensors":
        return start[_HEADER_LENGTH : _HEADER_LENGTH + 1] == b"{"
    return start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_STARTS.get(ending.lower(), ()))

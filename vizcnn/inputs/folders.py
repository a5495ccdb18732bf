"""Folders on disk or inside an archive: every file below one, once for each path that leads to it, links included."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vizcnn.errors import ImageError
from vizcnn.inputs.images import describe_problem, is_hidden

_MOST_WAYS = 1000  # to one folder, by links; links to folders that hold links can multiply without bound


class FileEntry(NamedTuple):
    """A file below a folder.

    size: in bytes. at: where an archive has it, in the archive's own terms. problem: why it cannot be read, or ""."""

    size: int
    at: Any = None
    problem: str = ""


class Folder(NamedTuple):
    """A folder.

    identity: the same whatever path leads to it. place: what has to be asked to list it."""

    identity: Hashable
    place: Any


def walk_files(
    top: Folder, look: Callable[[Any], Iterable[tuple[str, FileEntry | Folder]]]
) -> Iterator[tuple[str, FileEntry]]:
    """Path and file of every file below a folder. look: lists what lies directly in a folder, by name.

    A folder inside it that cannot be read comes as a file `name/` with a problem; links that lead back up are left
    out. Raises OSError where the top folder cannot be read, ImageError where links multiply the ways to a folder."""
    todo = [(top, "", frozenset[Hashable]())]
    ways: Counter[Hashable] = Counter()
    while todo:  # no recursion: folders may lie deeper than Python's stack
        folder, prefix, above = todo.pop()
        ways[folder.identity] += 1
        if ways[folder.identity] > _MOST_WAYS:
            raise ImageError(f"links lead to the folder {prefix} in more than {_MOST_WAYS} ways. Remove some")
        try:
            inside = list(look(folder.place))
        except OSError as error:
            if not prefix:
                raise
            yield prefix, FileEntry(0, problem=describe_problem(error))
            continue
        above |= {folder.identity}
        for name, found in inside:
            if isinstance(found, FileEntry):
                yield prefix + name, found
            elif found.identity not in above:  # else a link leads back up
                todo.append((found, f"{prefix}{name}/", above))


def list_files(folder: Path) -> Iterator[tuple[str, FileEntry]]:
    """Path and file of every file below a folder on disk that is not hidden. Raises OSError."""
    return walk_files(Folder(_identify_folder(folder), str(folder)), _list_folder)


def _list_folder(folder: str) -> Iterator[tuple[str, FileEntry | Folder]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            try:
                about = entry.stat()
                if stat.S_ISDIR(about.st_mode):
                    yield entry.name, Folder(_identify_folder(entry.path), entry.path)
                elif stat.S_ISREG(about.st_mode):
                    yield entry.name, FileEntry(about.st_size)
            except OSError as error:
                leads_nowhere = isinstance(error, FileNotFoundError) and entry.is_symlink()
                yield (
                    entry.name,
                    FileEntry(0, problem="is a link that leads nowhere" if leads_nowhere else describe_problem(error)),
                )


def _identify_folder(folder: str | Path) -> Hashable:
    about = os.stat(folder)  # an entry's own stat() leaves these numbers out on Windows
    return about.st_dev, about.st_ino

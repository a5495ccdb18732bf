"""Walks through folders, on disk or inside an archive: every file once for each way to it, and never in a circle."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vizcnn.errors import ImageError
from vizcnn.inputs.images import is_hidden, problem

_MOST_WAYS = 1000  # to one folder, by links; links to folders that hold links can multiply without bound


class Found(NamedTuple):
    """A file: its size in bytes, where it lies if its path does not tell, and what is wrong with it, if anything is."""

    size: int
    at: Any = None
    problem: str = ""


class Folder(NamedTuple):
    """A folder: what is the same of it whatever way leads there, and where to look into it."""

    identity: Hashable
    place: Any


def walk(top: Folder, look: Callable[[Any], Iterable[tuple[str, Found | Folder]]]) -> Iterator[tuple[str, Found]]:
    """Path and file, for all files below a folder. look: what lies in a folder, by name.

    A folder that cannot be read is given as a file `name/` with a problem. Raises OSError where it is the top one."""
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
            yield prefix, Found(0, problem=problem(error))
            continue
        above |= {folder.identity}
        for name, found in inside:
            if isinstance(found, Found):
                yield prefix + name, found
            elif found.identity not in above:  # else a link leads back up
                todo.append((found, f"{prefix}{name}/", above))


def files_below(folder: Path) -> Iterator[tuple[str, Found]]:
    """Path and size of all files below a folder on disk that are not hidden. Raises OSError."""
    return walk(Folder(_identity(folder), str(folder)), _look)


def _look(folder: str) -> Iterator[tuple[str, Found | Folder]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            try:
                about = entry.stat()
                if stat.S_ISDIR(about.st_mode):
                    yield entry.name, Folder(_identity(entry.path), entry.path)
                elif stat.S_ISREG(about.st_mode):
                    yield entry.name, Found(about.st_size)
            except OSError as error:
                leads_nowhere = isinstance(error, FileNotFoundError) and entry.is_symlink()
                yield entry.name, Found(0, problem="is a link that leads nowhere" if leads_nowhere else problem(error))


def _identity(folder: str | Path) -> Hashable:
    about = os.stat(folder)  # an entry's own stat() leaves these numbers out on Windows
    return about.st_dev, about.st_ino

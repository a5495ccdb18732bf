"""Reads the tiles of docs/gallery.md: a heading, a command, what it shows, what it does not."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_TILE = re.compile(
    r"^### (?P<title>.+)\n\n {4}(?P<command>vizcnn .+)\n\n"
    r"(?P<shows>Shows\b(?:.+\n)+)\n(?P<hides>Does not show\b(?:.+\n?)+)",
    re.M,
)


@dataclass(frozen=True)
class Tile:
    """A tile of the gallery. text: the whole of it, as it stands on the page."""

    title: str
    command: str
    shows: str
    hides: str
    text: str

    @property
    def name(self) -> str:
        """The title as the name of a file: what stands before a colon, or all of it."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.partition(":")[0].lower()).strip("-")

    @property
    def arguments(self) -> list[str]:
        """The command as a shell would split it, without `vizcnn`."""
        return shlex.split(self.command)[1:]


def read_tiles(page: str) -> list[Tile]:
    """The tiles of the page in their order."""
    return [
        Tile(found["title"], found["command"], found["shows"].strip(), found["hides"].strip(), found[0])
        for found in _TILE.finditer(page)
    ]

"""Store: the folder in which an audit keeps what it has done until it is finished, so that it goes on after a stop.

identity.json       which audit it is: of what network, on which images, with which options
TASK.task           what came of one task; the first line says of which audit and task, and has a digest of the rest
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vizcnn.errors import OutputError, ParameterError
from vizcnn.output import write_whole
from vizcnn.scanning.manifest import list_differences
from vizcnn.scanning.shard import digest_bytes, digest_json

_IDENTITY, _ENDING, _MARK = "identity.json", ".task", "vizcnn audit"


@dataclass(frozen=True)
class Store:
    """What one audit has done, in a folder that is made with the first task and removed at the end.

    identity: everything that the findings depend on, as JSON can hold it."""

    folder: Path
    identity: Mapping[str, Any]

    def check(self) -> None:
        """Raise ParameterError where the folder holds another audit, or files that are no audit's; OutputError."""
        try:
            files = sorted(file.name for file in self.folder.iterdir()) if self.folder.exists() else []
            text = (self.folder / _IDENTITY).read_text(encoding="utf-8") if _IDENTITY in files else ""
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be read: {error.strerror or error}. Choose another") from error
        before = _parse(text)
        if files and before is None:
            raise ParameterError(f"{self.folder} holds files that are not of an audit. Choose another folder")
        if before is not None and (different := list(list_differences(before, self.identity))):
            raise ParameterError(
                f"{self.folder} holds what another audit did until it was stopped ({'; '.join(different)}). Call it as "
                "before to go on, delete that folder to begin anew, or choose another"
            )

    def read(self, name: str) -> bytes | None:
        """What came of a task; None where it is not there, or is damaged."""
        try:
            line, _, data = (self.folder / f"{name}{_ENDING}").read_bytes().partition(b"\n")
        except OSError:
            return None
        return data if line.decode(errors="replace") == self._describe(name, data) else None

    def keep(self, name: str, data: bytes) -> None:
        """Keep what came of a task. Raises OutputError."""
        self._make_folder()
        file = self.folder / f"{name}{_ENDING}"
        with suppress(OSError):
            file.unlink()  # damaged, or it would not be done again
        with write_whole(file) as fresh:
            fresh.write_bytes(f"{self._describe(name, data)}\n".encode() + data)

    def remove(self) -> None:
        """Remove the files of this audit, and the folder where nothing else is in it."""
        with suppress(OSError):
            for file in (*self.folder.glob(f"*{_ENDING}"), self.folder / _IDENTITY):
                file.unlink()
            self.folder.rmdir()

    def _describe(self, name: str, data: bytes) -> str:
        return f"{_MARK} {digest_json(self.identity)} {name} {digest_bytes(data)}"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder}: {error.strerror}. Choose another") from error
        if not (self.folder / _IDENTITY).exists():
            with write_whole(self.folder / _IDENTITY) as fresh:
                fresh.write_text(json.dumps(self.identity, indent=2), encoding="utf-8")


def _parse(text: str) -> dict[str, Any] | None:
    """The identity of an audit; None for anything else."""
    with suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) and found.get("what") == _MARK else None
    return None


def describe_identity(**facts: Any) -> dict[str, Any]:
    """An identity as it is after it was written and read."""
    plain: dict[str, Any] = json.loads(json.dumps({"what": _MARK, **facts}))
    return plain

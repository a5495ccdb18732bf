"""Keeping: what took long is kept in a folder, so that what was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from vizcnn.output import write_whole

_KEY = "key"  # the name under which a file holds its own key

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Keeper:
    """Keeps arrays in a folder by what they depend on; without a folder it keeps nothing."""

    folder: Path | None = None

    def recall(self, key: Mapping[str, Any], make: Callable[[], Arrays]) -> dict[str, npt.NDArray[Any]]:
        """The arrays that were kept under a key, or those that `make` gives, which are then kept.

        key: everything that they depend on, as JSON can hold it. A damaged file is made anew. Raises OutputError."""
        if self.folder is None:
            return dict(make())
        text = json.dumps(key, sort_keys=True)
        file = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
        kept = _read(file, text)
        if kept is not None:
            return kept
        made = dict(make())
        self.folder.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # a damaged one, which no longer looks like a file of its kind
        with write_whole(file) as fresh, fresh.open("wb") as stream:
            np.savez(stream, **{_KEY: np.array(text)}, **made)  # type: ignore[arg-type]
        return made

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether something is kept under a key."""
        text = json.dumps(key, sort_keys=True)
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
        return self.folder is not None and _read(self.folder / name, text) is not None


NOWHERE = Keeper()
"""Keeps nothing."""


def _read(file: Path, text: str) -> dict[str, npt.NDArray[Any]] | None:
    """What a file holds; None where it is not there, damaged, or of another key."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, BadZipFile, EOFError):
        return None
    return found if str(found.pop(_KEY, "")) == text else None

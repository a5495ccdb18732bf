"""The folder of an atlas: made, recognised, and cleared of an earlier one; never of anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vizcnn.errors import OutputError, ParameterError
from vizcnn.output import write_whole

RECORD = "atlas.json"
"""Says that a folder is an atlas's, and what it was made from."""

PAGE = "index.html"

_KIND = "vizcnn atlas"
_OURS = {  # what an atlas before can have left, by its folder; all of their names are of ours
    "data": re.compile(r"[A-Za-z]+[\d-]*\.js"),
    "photo": re.compile(r"\d+\.webp"),
    "unit": re.compile(r"(\d+|class|other-\d+)-\d+\.webp"),
    "script": re.compile(r"[a-z-]+\.js"),
}


def prepare_folder(folder: Path) -> None:
    """Make the folder, or take over that of an earlier atlas: its files are removed, all others are left alone.

    The first to go is its page, so that an atlas that is not finished cannot be opened.
    Raises OutputError where nothing can be written, ParameterError where the folder holds something else."""
    refuse_foreign(folder)
    try:
        (folder / PAGE).unlink(missing_ok=True)
        for name, pattern in _OURS.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file in (folder / name).iterdir():
                if pattern.fullmatch(file.name):
                    file.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}. Choose another folder with -o") from error
    _write_record(folder, {"finished": False})


def refuse_foreign(folder: Path) -> None:
    """Raise ParameterError for a folder with anything in it that is no atlas, OutputError for a file of that name."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file. Name a folder with -o")
    if any(folder.iterdir()) and not _is_atlas(folder / RECORD):
        raise ParameterError(
            f"{folder} holds files that are not of an atlas, and was left alone. Choose an empty or new folder with -o"
        )


def finish_folder(folder: Path, origin: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Say in the folder what the atlas was made from, and that it is whole."""
    _write_record(folder, {"finished": True, "origin": origin, **counts})


def _write_record(folder: Path, said: Mapping[str, Any]) -> None:
    with write_whole(folder / RECORD) as file:
        file.write_text(json.dumps({"kind": _KIND, **said}, indent=1) + "\n", encoding="utf-8")


def _is_atlas(file: Path) -> bool:
    with suppress(OSError, ValueError):
        said = json.loads(file.read_text(encoding="utf-8"))
        return isinstance(said, dict) and said.get("kind") == _KIND
    return False

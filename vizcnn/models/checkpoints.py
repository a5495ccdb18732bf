"""Checkpoints: the state_dicts of a file, safely read."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from os.path import isfile
from pathlib import Path
from pickle import UnpicklingError
from types import NoneType
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch
from torch import Tensor, nn

from vizcnn.errors import WeightsError
from vizcnn.models.numpy_numbers import allow_numpy_numbers
from vizcnn.process import ignore_warnings, import_from

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""How the names of files with weights end."""

NO_LAYERS = (
    "hooks on a TorchScript or exported network raise or silently never fire. Save the Python network's state_dict and "
    "load it as ARCHITECTURE@FILE"
)
"""Why TorchScript is refused, and the remedy."""

_DEEPEST = 5  # mappings and lists inside each other in which state_dicts are looked for
_SHOWN = 4  # names of a list
_SMALL, _PACKED = 2**28, 8  # weights may take _SMALL bytes, and _PACKED more for each byte of their file


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as one part of a checkpoint holds them.

    place: the keys under which they stand in the file, such as `state_dict` or `ema.module`; "" for the file itself.
    versions: of each module, by its dotted name: which version of its names torch has noted in the state_dict.
    """

    place: str
    tensors: Mapping[str, Tensor]
    versions: Mapping[str, int | None]


def read_weights(file: str | Path, *, trust_pickle: bool = False) -> tuple[StateDict, ...]:
    """All state_dicts of a checkpoint, the outermost first: tensors by name, wherever they stand in the file.

    Numbers, strings, lists and dicts beside them are allowed.
    trust_pickle: read pickled objects of any class too, which runs the code that the file names; of a whole pickled
        network, its weights are taken.
    Raises WeightsError.
    """
    path = Path(file)
    if not isfile(path):
        raise WeightsError(f"no weights file {path}")
    try:
        content = _read(path, trust_pickle)
    except WeightsError:
        raise
    except Exception as error:
        if other := _explain_start(path):
            raise WeightsError(f"{path} is no checkpoint: {other}") from error
        if isinstance(error, UnpicklingError):
            raise WeightsError(_explain_unread(path, error)) from error
        reason = f"{type(error).__name__}: {take_first_line(error)}"
        here = (
            f". Its code must be found from {Path.cwd()}, or save the state_dict where the network was trained"
            if trust_pickle and isinstance(error, (ImportError, AttributeError))
            else ""
        )
        raise WeightsError(f"{path} cannot be read as weights: {reason}{here}") from error
    found = tuple(_find_state_dicts(content))
    if not found:
        keys = f" of {list_some(map(str, content))}" if isinstance(content, Mapping) and content else ""
        raise WeightsError(f"{path} holds no state_dict (tensors by name) but {type(content).__name__}{keys}")
    for state in found:
        _refuse_blown_up(path, sum(prod(each.shape) * each.element_size() for each in state.tensors.values()))
    return found


def split_part(name: str) -> tuple[str, str]:
    """A checkpoint's path, and which of its sets of weights is meant, as in `runs.pth#model_ema`, or ""."""
    path, mark, part = name.rpartition("#")
    return (path, part) if mark and not isfile(name) else (name, "")


def _read(path: Path, trust_pickle: bool) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    members = _list_members(path)
    if _is_torchscript(members):
        raise WeightsError(f"{path} cannot be probed: {NO_LAYERS}")
    _refuse_blown_up(path, sum(member.file_size for member in members))
    if trust_pickle:
        with import_from(Path.cwd()):
            return torch.load(path, map_location="cpu", weights_only=False)
    with allow_numpy_numbers(), ignore_warnings("Detected pickle protocol"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _explain_start(path: Path) -> str:
    """Why a file that could not be read is none of its kind, by how it begins; "" where it begins as it should.

    Many are a web page or a pointer that was downloaded in place of the weights, or have the ending of another kind."""
    with open(path, "rb") as file:
        start = file.read(24)
    if not start:
        return "it is empty. Copy it again"
    is_safe, by_torch = start[8:9] == b"{", start.startswith((b"PK", b"\x80"))
    if path.suffix == ".safetensors":
        if is_safe:
            return ""
        if by_torch:
            return "torch.save has written it, and its name ends in .safetensors. Rename it to .pth"
    elif by_torch:
        return ""
    elif is_safe:
        return "it is a safetensors file, and its name ends otherwise. Rename it to .safetensors"
    shown = start.decode("ascii", "backslashreplace")
    return f"it begins with {shown!r}, perhaps a page or a pointer instead of the weights. Download it again"


def _explain_unread(path: Path, error: UnpicklingError) -> str:
    """Why a pickle was not read: for the code that it names, or because it is none."""
    if not (named := _list_named_code(path, error)):
        reason = re.search(r"WeightsUnpickler error:\s*(.*)", str(error))  # torch puts advice around it
        unread = reason[1].strip() if reason else take_first_line(error)
        if "operand" in unread:
            unread = "its pickle is of a protocol that cannot be read safely. Save it with torch.save's own protocol"
        return f"{path} cannot be read as weights: {unread}"
    whole = any(name.startswith("torch.nn.modules.") for name in named)
    what = "a whole pickled network" if whole else "no plain weights file"
    return (
        f"{path} is {what}: reading it would run code that it names ({list_some(named)}). Save only the state_dict, "
        "best as .safetensors; or, if you trust whoever made it, give --trust-pickle (in Python trust_pickle=True)"
    )


def _list_named_code(path: Path, error: UnpicklingError) -> list[str]:
    """The classes and functions that a pickle names and that are no weights, the one that stopped the reading first."""
    stopped = re.search(r"GLOBAL (\S+)", str(error))
    if stopped is None:
        return []
    try:
        others = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an old format, or a damaged file
        others = []
    return list(dict.fromkeys(name.removeprefix("builtins.") for name in [stopped[1], *others]))


def _find_state_dicts(content: Any) -> Iterator[StateDict]:
    """Each mapping with tensors among what a file holds, the outermost first; of a network, its state_dict."""
    seen: dict[int, Any] = {}  # holds what it has seen, so that no other object gets its number
    waiting = deque([("", 0, content)])
    while waiting:
        place, depth, part = waiting.popleft()
        part = part.state_dict() if isinstance(part, nn.Module) else part
        if not isinstance(part, (Mapping, list, tuple)) or id(part) in seen:
            continue
        seen[id(part)] = part
        items = part.items() if isinstance(part, Mapping) else enumerate(part)
        tensors = {}
        for key, value in items:
            if isinstance(value, Tensor) and isinstance(key, str):
                tensors[key] = value
            elif depth < _DEEPEST:
                waiting.append((f"{place}.{key}" if place else str(key), depth + 1, value))
        if tensors:
            yield StateDict(place, tensors, _read_versions(part))


def _read_versions(state: Any) -> dict[str, int | None]:
    """The versions in a state_dict's `_metadata`, where that is what torch makes."""
    noted = getattr(state, "_metadata", None)
    facts = noted.items() if isinstance(noted, Mapping) else ()
    found = ((name, fact.get("version")) for name, fact in facts if isinstance(fact, Mapping))
    return {name: version for name, version in found if isinstance(name, str) and isinstance(version, (int, NoneType))}


def _list_members(path: Path) -> list[ZipInfo]:
    """The members of a zip archive, such as torch writes; none for another file or a damaged archive."""
    try:
        with ZipFile(path) as archive:
            return archive.infolist()
    except Exception:  # there are many ways to be no archive, and torch will name this one
        return []


def is_torchscript(name: str | Path) -> bool:
    """Whether this is a file that torch.jit has saved."""
    return isfile(name) and _is_torchscript(_list_members(Path(name)))


def _is_torchscript(members: list[ZipInfo]) -> bool:
    return any(member.filename.endswith("/constants.pkl") for member in members)


def _refuse_blown_up(path: Path, stated: int) -> None:
    """Raise WeightsError for a small file whose weights would take far more memory than its size makes likely.

    stated: bytes that the weights would take."""
    size = path.stat().st_size
    if stated > _SMALL + _PACKED * size:
        raise WeightsError(
            f"{path} cannot be read as weights: they would take {stated / 1e9:,.1f} GB, out of a file of "
            f"{size / 1e6:,.1f} MB. It is damaged, or made to fill your memory"
        )


def take_first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def list_some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more

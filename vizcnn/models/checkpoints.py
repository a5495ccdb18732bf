"""Checkpoints: the tensors of a file, safely read, and put into a network that they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from os.path import isfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch
from torch import Tensor, nn

from vizcnn.errors import WeightsError

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""How the names of files with weights end."""

NO_LAYERS = (
    "hooks on a TorchScript or exported network raise or silently never fire. Save the Python network's state_dict and "
    "load it as ARCHITECTURE@FILE"
)
"""Why TorchScript is refused, and the remedy."""

_SMALL, _PACKED = 2**28, 8  # weights may take _SMALL bytes, and _PACKED more for each byte of their file


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name. Raises WeightsError.

    Wrappers (`state_dict`, `model`) and the prefix `module.` of parallel training are removed.
    """
    path = Path(file)
    if not isfile(path):
        raise WeightsError(f"no weights file {path}")
    try:
        state = _read(path)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path} is no plain weights file: reading it would run code that it names ({_find_named_code(error)}). "
            "Save only the state_dict, best as .safetensors"
        ) from error
    except WeightsError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {take_first_line(error)}"
        raise WeightsError(f"{path} cannot be read as weights: {reason}") from error
    tensors = _unwrap(state, path)
    _refuse_blown_up(path, sum(prod(each.shape) * each.element_size() for each in tensors.values()))
    return tensors


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    members = _list_members(path)
    if _is_torchscript(members):
        raise WeightsError(f"{path} cannot be probed: {NO_LAYERS}")
    _refuse_blown_up(path, sum(member.file_size for member in members))
    return torch.load(path, map_location="cpu", weights_only=True)


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


def _unwrap(state: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state_dict (tensors by name) but {type(state).__name__}")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def load_state(state: Mapping[str, Tensor], network: nn.Module, spec: str, *, assign: bool = False) -> None:
    """Load weights into a network; assign: replace its tensors instead of filling them. Raises WeightsError."""
    own = network.state_dict()
    for name, value in state.items():
        if value.is_complex() and name in own and not own[name].is_complex():
            raise WeightsError(f"{spec}: {name!r} holds complex numbers, and the network takes real ones there")
    try:
        network.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        lines = lines[1:] or lines  # the first says of which class the network is
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise WeightsError(f"{spec}: the weights do not fit the architecture. {lines[0][:200]}{more}") from error


def _find_named_code(error: BaseException) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else "not even a known format"


def take_first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

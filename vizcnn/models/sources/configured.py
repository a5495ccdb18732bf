"""Names of a person's own networks, from `vizcnn.toml` or `pyproject.toml` of this folder or those above it.

In `pyproject.toml` the table is `[tool.vizcnn.models.NAME]`; in `vizcnn.toml` that, or `[models.NAME]`:

    [models.birds]
    network = "./net.py:make"      # whatever `vizcnn.load` reads
    weights = "best.ckpt"          # what follows the @ there
    input-size = 224
    class-names = "birds.txt"
    layer = "features.7"           # which cam, feature-maps and embed look at
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from vizcnn.errors import ParameterError, did_you_mean
from vizcnn.models.contract import parse_display
from vizcnn.models.given import Given, read_count, read_names, read_numbers, read_size
from vizcnn.models.sources.tags import ends_as_checkpoint, is_file

FILES = ("vizcnn.toml", "pyproject.toml")
"""The files in which names are looked for, of each folder in this order."""


@dataclass(frozen=True)
class Configured:
    """A network that a file names. table: what the file says of it, as it stands there."""

    name: str
    file: Path
    table: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """What its paths are relative to."""
        return self.file.parent

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return f"models.{self.name} of {self.file}"

    def write_spec(self, tag: str = "") -> str:
        """What `vizcnn.load` reads for it, with absolute paths. tag: weights in place of those that the file names.

        Raises ParameterError."""
        network, own = self._split_network()
        given = self.table.get("weights", "")
        if not isinstance(given, str):
            raise ParameterError(f"{self.where}, weights: a text is needed, got {given!r}")
        if own and given:
            raise ParameterError(
                f"{self.where} names weights twice, {given!r} and behind the @ of {self.table['network']!r}. Leave one "
                "out"
            )
        weights = tag or self._find_weights(own or given)
        return f"{network}@{weights}" if weights else network

    def _split_network(self) -> tuple[str, str]:
        """The network, with an absolute path, and what stands behind its @, if anything."""
        spec = self.table.get("network")
        if not isinstance(spec, str) or not spec:
            raise ParameterError(f'{self.where} names no network. Give it one, such as network = "resnet18"')
        if spec.startswith("hf:") and isdir(self.folder / spec[3:]):
            return f"hf:{self.folder / spec[3:]}", ""
        if ends_as_checkpoint(spec) and isfile(self.folder / spec):  # a file that says itself of which network it is
            return str(self.folder / spec), ""
        file, ending, rest = spec.rpartition(".py:")  # a path may hold an @ of its own
        name, _, tag = rest.partition("@")
        if name.startswith("hf:") and isdir(self.folder / name[3:]):
            name = f"hf:{self.folder / name[3:]}"
        return (f"{self.folder / file}{ending}{name}" if ending else name), tag

    def _find_weights(self, tag: str) -> str:
        """A file of weights with its absolute path; a tag as it is."""
        return str(self.folder / tag) if is_file(tag) else tag

    def read_given(self) -> Given:
        """What the file says of the network besides. Raises ParameterError."""
        known = ["network", "weights", *_KEYS]
        for key in self.table:
            if key not in known:
                near = did_you_mean(key, known)
                raise ParameterError(f"{self.where} has an unknown key {key!r}.{near} Known: {', '.join(known)}")
        values: dict[str, Any] = {}
        for key, read in _KEYS.items():
            if key not in self.table:
                continue
            value = self.table[key]
            try:
                values[key.replace("-", "_")] = read(
                    self.folder / value if key == "class-names" and isinstance(value, str) else value
                )
            except ParameterError as error:
                error.add_context(f"{self.where}, {key}")
                raise
        return Given(**values)


def _expect(kind: type, what: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ParameterError(f"{what} is needed, got {value!r}")
        return value

    return read


def _read_output(value: Any) -> str | int:
    if type(value) not in (str, int):
        raise ParameterError(f"a key or an index of what the network returns is needed, got {value!r}")
    return value  # type: ignore[no-any-return]


def _read_white(value: Any) -> float:
    if type(value) not in (int, float):
        raise ParameterError(f"the value of white is needed, such as 4095, got {value!r}")
    return float(value)


_TEXT = _expect(str, "a text")
_KEYS: dict[str, Callable[[Any], Any]] = {
    "input-size": read_size,
    "mean": lambda value: read_numbers("mean", value),
    "std": lambda value: read_numbers("std", value),
    "class-names": read_names,
    "input-channels": lambda value: read_count("input channels", value),
    "classes": lambda value: read_count("classes", value),
    "white": _read_white,
    "display": parse_display,
    "fit": _TEXT,
    "resize": lambda value: read_count("resize", value),
    "interpolation": _TEXT,
    "antialias": _expect(bool, "true or false"),
    "head": _TEXT,
    "output": _read_output,
    "layer": _TEXT,
}


def list_configured(folder: Path | None = None) -> tuple[tuple[Configured, ...], tuple[str, ...]]:
    """The networks that files of a folder and of those above it name, nearest first, and a line for each file that
    cannot be read. Of two with the same name, the nearer is meant.

    folder: by default the current one."""
    found: dict[str, Configured] = {}
    problems: list[str] = []
    start = (folder or Path.cwd()).absolute()
    for place in (start, *start.parents):
        for file in (place / name for name in FILES):
            try:
                whole = _read(file)
            except (OSError, ValueError) as error:
                problems.append(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}")
                continue
            problems += _list_unknown(file, whole)
            for name, table in _find_tables(file, whole).items():
                found.setdefault(name, Configured(name, file, table if isinstance(table, dict) else {}))
    return tuple(found.values()), tuple(problems)


def _read(file: Path) -> Mapping[str, Any]:
    """All that a file holds; nothing where there is no such file."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}


def _find_tables(file: Path, whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tables of a file by the names of their networks."""
    inner = _look_up(whole, "tool", "vizcnn", "models")
    return inner if file.name == "pyproject.toml" else {**_look_up(whole, "models"), **inner}


def _list_unknown(file: Path, whole: Mapping[str, Any]) -> Iterator[str]:
    """A line for each table that is meant for vizcnn and that it does not know, such as `[model.birds]`."""
    own = [] if file.name == "pyproject.toml" else [key for key in whole if key not in ("models", "tool")]
    for name in [*own, *(f"tool.vizcnn.{key}" for key in _look_up(whole, "tool", "vizcnn") if key != "models")]:
        right = f"{name.rpartition('.')[0]}.models.NAME".removeprefix(".")
        yield f"{file} has an unknown table [{name}]. Networks stand under [{right}]"


def _look_up(table: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}

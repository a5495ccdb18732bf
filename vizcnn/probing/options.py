"""Values of options: which ones a type allows, and how a result's provenance and its manifest write them down.

| in Python                        | in provenance; a manifest, as JSON, has lists for tuples                      |
|----------------------------------|-------------------------------------------------------------------------------|
| None, bool, int, float, str      | itself                                                                        |
| tuple, mapping of texts          | itself, with its values written like this                                     |
| list                             | `{"list": [...]}`                                                             |
| dataclass, such as a `Recipe`    | `{"class": "MODULE:NAME", FIELD: VALUE, ...}`                                 |
| member of an Enum                | `{"class": "MODULE:NAME", "member": NAME}`                                    |
| pathlib.Path                     | `{"class": "pathlib:Path", "path": TEXT}`                                     |
| anything else, such as functions | `{"not kept": "what it was"}`, which says so and cannot be read               |

Reading runs no code that a manifest names: a class has to be loaded already, and to be what the option's type asks for.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vizcnn.errors import ParameterError, VizcnnError, did_you_mean

_CLASS, _LIST, _NOT_KEPT = "class", "list", "not kept"
_TAGS = {_CLASS, _LIST, _NOT_KEPT}


def fits(wanted: Any, value: Any) -> bool:
    """Whether a type allows a value. An int is a float too, and a bool is neither."""
    origin, args = get_origin(wanted), get_args(wanted)
    if wanted is Any or _is_protocol(origin or wanted):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(arg, value) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(args, value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or wanted)


def _is_protocol(wanted: Any) -> bool:
    """Whether a type is a protocol of which Python cannot tell whether an object follows it."""
    return getattr(wanted, "_is_protocol", False) and not getattr(wanted, "_is_runtime_protocol", False)


def _fits_tuple(args: Sequence[Any], value: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(fits(args[0], v) for v in value)
    return len(args) == len(value) and all(fits(arg, v) for arg, v in zip(args, value, strict=True))


def name_type(wanted: Any) -> str:
    """A type in words, for messages and documentation."""
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(repr, get_args(wanted)))
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(name_type(arg) for arg in get_args(wanted))
    return "None" if wanted is type(None) else str(wanted) if get_args(wanted) else wanted.__name__


def write(value: Any) -> Any:
    """An option's value as the table above has it."""
    if isinstance(value, Enum):
        return {_CLASS: _name_class(type(value)), "member": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return {_CLASS: "pathlib:Path", "path": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {field.name: write(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return {_CLASS: _name_class(type(value)), **named}
    if isinstance(value, tuple):
        return tuple(map(write, value))
    if isinstance(value, list):
        return {_LIST: [*map(write, value)]}
    if isinstance(value, Mapping) and not _TAGS & value.keys() and all(isinstance(k, str) for k in value):
        return {key: write(each) for key, each in value.items()}
    return {_NOT_KEPT: _describe(value)}


def is_same_default(written: Any, default: Any) -> bool:
    """Whether a value that was not kept, such as a function, is known after all: it was the option's default."""
    was = written.get(_NOT_KEPT) if isinstance(written, Mapping) else None
    return was is not None and "<" not in was and written == write(default)  # <: a lambda, or inside of a function


def _name_class(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _describe(value: Any) -> str:
    """What a value is, in words that are the same in every process: its address is left out."""
    kind, module, name = type(value), getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    home = f"{module}." if module else ""  # which some functions written in C do not know
    return f"the {kind.__name__} {home}{name}" if name else f"a {kind.__module__}.{kind.__qualname__}"


class Reader:
    """Reads options' values. missing: what was not written and has a default, which was taken; filled while reading."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def read(self, written: Any, wanted: Any, owner: type, where: str) -> Any:
        """The value that `write` wrote, also after a way through JSON.

        wanted: its type. owner: the class that declares it. where: what to call it in messages. Raises ParameterError
        for what was not kept, and for a class that is not loaded or that the type does not allow."""
        if isinstance(written, list | tuple):
            return tuple(self.read(each, wanted, owner, f"{where}.{i}") for i, each in enumerate(written))
        if not isinstance(written, Mapping):
            return written
        if _NOT_KEPT in written:
            raise ParameterError(f"{where} was {written[_NOT_KEPT]}, and a manifest holds plain values alone")
        if _LIST in written:
            return [*self.read(tuple(written[_LIST]), wanted, owner, where)]
        if _CLASS in written:
            kind = _find_class(written[_CLASS], wanted, owner, where)
            return self._make(kind, {key: each for key, each in written.items() if key != _CLASS}, where)
        return {key: self.read(each, wanted, owner, f"{where}.{key}") for key, each in written.items()}

    def _make(self, kind: type, written: Mapping[str, Any], where: str) -> Any:
        """A value of a class that was found to be allowed."""
        try:
            if issubclass(kind, Path):
                return Path(written["path"])
            if issubclass(kind, Enum):
                return kind[written["member"]]
            return kind(**self._read_fields(kind, written, where))
        except VizcnnError:
            raise
        except Exception as error:  # such as a member that there is no more, or a class's own checks
            raise ParameterError(f"{where} cannot be made again: {type(error).__name__}: {error}") from error

    def _read_fields(self, kind: Any, written: Mapping[str, Any], where: str) -> dict[str, Any]:
        known = {field.name: field for field in dataclasses.fields(kind) if field.init}
        for name in written:
            if name not in known:
                raise ParameterError(f"{where} has no {name!r} any more.{did_you_mean(name, known)}")
        self.missing += [f"{where}.{name}" for name in known if name not in written]
        hints = _find_hints(kind)
        return {name: self.read(each, hints.get(name, Any), kind, f"{where}.{name}") for name, each in written.items()}


def _list_types(wanted: Any) -> Iterator[Any]:
    """The types that a value and those inside of it may have: tuple, Recipe and int of `tuple[Recipe, ...] | int`."""
    origin = get_origin(wanted)
    if origin not in (Union, types.UnionType):
        yield origin or wanted
    for inside in () if origin is Literal else get_args(wanted):
        yield from _list_types(inside)


def _find_hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except Exception:  # names that its module imports for type checkers alone
        return {}


def _find_class(name: Any, wanted: Any, owner: type, where: str) -> type:
    """The loaded class of this name, if it is one that holds values and that the wanted type allows."""
    module, _, path = str(name).partition(":")
    found: Any = Path if name == "pathlib:Path" else sys.modules.get(module)
    for part in path.split(".") if found is not Path else ():
        found = getattr(found, "__dict__", {}).get(part)  # getattr(found, part) may import more, in lazy packages
    if found is None:
        raise ParameterError(f"{where} is of the class {name}, which no loaded module has. Import its module first")
    is_value = isinstance(found, type) and (dataclasses.is_dataclass(found) or issubclass(found, Enum | Path))
    if not is_value or not any(_allows(each, found, owner) for each in _list_types(wanted)):
        raise ParameterError(f"{where} must be {name_type(wanted)}, got the class {name}")
    kind: type = found
    return kind


def _allows(wanted: Any, kind: type, owner: type) -> bool:
    """Whether a type allows the objects of a class. What allows any object allows those of the owner's own package."""
    if wanted in (Any, object):
        return kind.__module__.partition(".")[0] == owner.__module__.partition(".")[0]
    if _is_protocol(wanted):
        return all(hasattr(kind, name) for name in vars(wanted) if not name.startswith("_"))
    return isinstance(wanted, type) and issubclass(kind, wanted)

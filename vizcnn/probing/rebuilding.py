"""probe_from(): the probe that made a result, from what the result keeps of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from vizcnn.errors import ParameterError, ProbeNotFound, VizcnnWarning, did_you_mean
from vizcnn.inputs.records import provenance_in
from vizcnn.probing.entries import find_entries
from vizcnn.probing.options import Reader, is_same_default
from vizcnn.probing.probe import Probe, list_options, name_probe
from vizcnn.probing.registry import get, list_names
from vizcnn.results import Provenance, Result, load_result

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".pdf")


def probe_from(source: Result | Provenance | Mapping[str, Any] | str | PathLike[str]) -> Probe[Any]:
    """The probe that made a result, equal to the one that was called.

    source: a result, its provenance, its manifest (also read from JSON), or a file that it was saved in: .npz,
        .safetensors, .json, .png, .jpg, .gif or .pdf.

    A probe of somebody else's is found where it is installed or its module has been imported. An option that the
    manifest's version of vizcnn did not have yet gets its default, with a warning.
    Raises ProbeNotFound; ParameterError for an option that there is no more, or that a manifest cannot hold, such as a
    function; ResultError for a file that is none.

        >>> import vizcnn
        >>> vizcnn.Cam(method="layer-cam")(vizcnn.load("tiny"), "sample:grace_hopper").save("map.png").name
        'map.png'
        >>> vizcnn.probe_from("map.png")
        Cam(method='layer-cam')
    """
    found = _find_provenance(source)
    name, options = found.get("probe"), found.get("options")
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise ParameterError(
            "a manifest says of which `probe` it is, with which `options`, at its top or under `provenance`, got "
            f"{', '.join(map(repr, found)) or 'an empty one'}. Take result.manifest()"
        )
    version = f", of vizcnn {found['version']}," if "version" in found else ""
    return _make_probe(_find_kind(name, str(found.get("plugin", ""))), options, f"the manifest{version}")


def _find_provenance(source: Any) -> Mapping[str, Any]:
    if isinstance(source, str | PathLike):
        return _read_provenance(Path(source))
    if isinstance(source, Result):
        source = source.provenance
    if isinstance(source, Provenance):
        return asdict(source)
    if not isinstance(source, Mapping):
        raise ParameterError(
            f"a probe is made again from a result, its manifest or a file of it, got {type(source).__name__}"
        )
    inner = source.get("provenance", source)
    return inner if isinstance(inner, Mapping) else {}


def _read_provenance(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() not in _PICTURES:
        return asdict(load_result(path).provenance)
    found = provenance_in(path)
    if found is None:
        raise ParameterError(f"{path} is no picture that vizcnn has saved, or there is none")
    return found


def _find_kind(name: str, plugin: str) -> type[Probe[Any]]:
    """The probe of this name: an installed one, or one that is defined in a module or notebook."""
    if name in list_names() and (kind := get(name)).name() == name:
        return kind
    defined = {kind.name(): kind for kind in _list_defined(Probe)}
    if name in defined:
        return defined[name]
    for entry_name, entry in find_entries().items():  # a package may install a class under another name than its own
        if name_probe(entry.attr.rpartition(".")[2]) == name:
            return get(entry_name)
    known = sorted({*list_names(), *defined})
    where = f"It is from {plugin}: install that" if plugin else "Install its package, or import the module with it"
    raise ProbeNotFound(f"no probe named {name!r} is here.{did_you_mean(name, known)} {where}")


def _list_defined(kind: type[Any]) -> Iterator[type[Probe[Any]]]:
    """All classes below this one, later ones last, so that a cell of a notebook that runs again replaces its probe."""
    for below in kind.__subclasses__():
        yield below
        yield from _list_defined(below)


def _make_probe(kind: type[Probe[Any]], written: Mapping[str, Any], manifest: str) -> Probe[Any]:
    """The probe of these options. manifest: what to call it in messages."""
    known, reader = {option.name: option for option in list_options(kind)}, Reader()
    for name, value in written.items():
        if name not in known:
            raise ParameterError(
                f"{manifest} gives {kind.name()} an option that there is not here: {name!r}, {value!r}."
                f"{did_you_mean(name, known)} Take it out of the options, or install that version"
            )
    try:
        values = {
            name: reader.read(value, known[name].type, kind, name)
            for name, value in written.items()
            if not is_same_default(value, known[name].default)
        }
    except ParameterError as error:
        end = "" if str(error).endswith("?") else "."
        raise ParameterError(f"{kind.__name__}: option {error}{end} Make it anew: {kind.__name__}(...)") from error
    if lacking := [*(name for name in known if name not in written), *reader.missing]:
        warnings.warn(
            f"{manifest} does not say {', '.join(lacking)} of {kind.name()}: the defaults of this version are taken",
            VizcnnWarning,
            stacklevel=3,
        )
    probe = kind(**values)
    for name, value in values.items():
        read = getattr(probe, name)
        if isinstance(read, str) and read != value:
            raise ParameterError(f"{kind.__name__}: option {name} reads its own {value!r} as {read!r}. Mend its parse")
    return probe

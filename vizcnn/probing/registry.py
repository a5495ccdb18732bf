"""Which probes are installed: the entry points of the group `vizcnn.probes`, ours and those of plugins.

Names and summaries are read without running any probe's code, so that a listing needs no torch and a broken plugin
cannot stop it.
"""

from __future__ import annotations

import ast
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from vizcnn.errors import ProbeNotFound, did_you_mean
from vizcnn.probing.entries import find_entries
from vizcnn.probing.probe import Probe


def list_names() -> list[str]:
    """The names of all installed probes, sorted."""
    return sorted(find_entries())


def get(name: str) -> type[Probe[Any]]:
    """The probe class of this name. Raises ProbeNotFound, also when a plugin cannot be imported."""
    if name not in find_entries():
        raise ProbeNotFound(f"no probe named {name!r}.{did_you_mean(name, list_names())} See: vizcnn --help")
    entry = find_entries()[name]
    try:
        probe = entry.load()
    except Exception as error:
        raise ProbeNotFound(
            f"probe {name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}. "
            "Update or uninstall the package that provides it"
        ) from error
    if not (isinstance(probe, type) and issubclass(probe, Probe)):
        raise ProbeNotFound(f"probe {name!r} ({entry.value}) is not a subclass of vizcnn.Probe, got {probe!r}")
    return probe


def read_summary(name: str) -> str:
    """The first line of a probe's docstring, read from its source without importing it."""
    entry = find_entries()[name]
    try:
        doc = _read_class_doc(entry.module, entry.attr)
    except Exception as error:
        return f"(broken: {type(error).__name__}: {error})"
    return (doc.strip().splitlines() or ["(no summary)"])[0]


def _read_class_doc(module: str, name: str) -> str:
    """The docstring of a class, also where the module only imports the class; empty where the source shows none."""
    spec = _find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.ImportFrom) and name in (original := {a.asname or a.name: a.name for a in node.names}):
            home = resolve_name("." * node.level + (node.module or ""), spec.parent)
            return _read_class_doc(home, original[name])
    return ""


def _find_spec(module: str) -> ModuleSpec | None:
    """Find a module's file without importing its parent packages; importlib.util.find_spec would import them."""
    if module in sys.modules:
        return sys.modules[module].__spec__
    top, *rest = module.split(".")
    spec = find_spec(top)
    for i, _ in enumerate(rest):
        if spec is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[: i + 1]]), spec.submodule_search_locations)
    return spec

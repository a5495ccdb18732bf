"""Entries: the entry points by which probes are installed, ours and those of plugins."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "vizcnn.probes"


@cache
def find_entries() -> dict[str, EntryPoint]:
    """The entry points of all installed probes, by name. Of two with the same name ours is kept, not the plugin's."""
    ours_last = sorted(entry_points(group=GROUP), key=lambda e: e.module.startswith("vizcnn."))
    return {entry.name: entry for entry in ours_last}


def find_plugin(module: str) -> str:
    """The distribution from which the probes of a module come, with its version; "" for ours, and for those that none
    installs."""
    package = module.partition(".")[0]
    if package == "vizcnn":
        return ""
    known = (entry.dist for entry in find_entries().values() if entry.module.partition(".")[0] == package)
    return next((f"{dist.name} {dist.version}" for dist in known if dist), "")

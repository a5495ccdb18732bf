"""The promises about the package as a whole: its public names, which way its imports point, how it is written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import vizcnn
from vizcnn.probing import registry

PACKAGE = Path(vizcnn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LEVELS = [  # each module may import, at its top, only from lower levels
    {"errors", "expanded"},
    {"failing", "head", "probe", "process", "progress", "output", "quiet", "threads", "_torchvision"},
    {"borrowing", "registry"},
    {"pixels"},
    {"images"},
    {"folders"},
    {"archives", "model"},
    {"targets"},
    {"zoo", "checkpoints", "dataset", "dryrun", "kernels", "windows"},
    {"coordinates"},
    {"axes"},
    {"capture"},
    {"clean", "incremental", "loading", "receptive", "results"},
    {"subject"},
    {"attribution", "embedding", "rules", "sweep"},
    {"ascent", "scanning"},
    {"probes"},
    {"session"},
    {"commands"},
    {"cli", "testing", "bench"},
]
LIGHT = {"errors", "probe", "process", "registry", "cli", "commands", "__init__", "__main__"}
HEAVY = {"torch", "torchvision", "captum", "matplotlib", "numpy", "PIL", "safetensors"}


def top_imports(path: Path) -> set[str]:
    """Modules imported when this one is; imports inside functions and for type checkers do not count."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def level(room: str) -> int:
    return next(i for i, rooms in enumerate(LEVELS) if room in rooms)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    ours = {name.split(".")[1] for name in top_imports(path) if name.startswith("vizcnn.")} - {"__version__", room}
    if room not in ("__init__", "__main__"):
        above = {name for name in ours if name in set().union(*LEVELS) and level(name) >= level(room)}
        assert not above, f"{room} imports {above}, which stand beside or above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_only_where_used(path: Path) -> None:
    libraries = {name.split(".")[0] for name in top_imports(path)} & HEAVY
    assert not libraries & {"matplotlib", "torchvision", "captum"}
    if room_of(path) in LIGHT:
        assert not libraries


def test_matplotlib_is_used_in_results_alone() -> None:
    users = [path for path in MODULES if re.search(r"^\s*(from|import) matplotlib", path.read_text(), re.M)]
    assert {room_of(path) for path in users} == {"results"}


def test_public_names_are_sorted_and_exist() -> None:
    assert vizcnn.__all__ == sorted(vizcnn.__all__)
    assert set(vizcnn.__all__) == set(vizcnn._HOMES)
    for name in vizcnn.__all__:
        assert getattr(vizcnn, name) is not None
        assert name in dir(vizcnn)


def test_a_mistyped_public_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Oclusion'. Did you mean 'Occlusion'?"):
        vizcnn.Oclusion  # noqa: B018


def test_every_probe_of_ours_is_a_public_name() -> None:
    ours = [registry.get(name) for name in registry.names() if registry.get(name).__module__.startswith("vizcnn.")]
    assert ours
    for probe in ours:
        assert getattr(vizcnn, probe.__name__) is probe


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400

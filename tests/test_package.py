"""The promises about the package as a whole: its public names, which way its imports point, how it is written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import vizcnn
from vizcnn.probing import registry

PACKAGE = Path(vizcnn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = [  # each may import only from those before it
    "version", "tracebacks", "errors", "geometry", "process", "progress", "output", "inputs", "results", "models",
    "zoo", "graph", "receptive", "occlusion", "ascent", "scanning", "anatomy", "evaluation", "auditing", "probing",
    "probes", "explaining", "site", "exploring", "cli", "testing",
]  # fmt: skip
LIGHT = {"version", "tracebacks", "errors", "geometry", "process", "progress", "output", "cli", "__init__", "__main__"}
LIGHT |= {"probing/call", "probing/options", "probing/parsing", "probing/probe", "probing/registry"}
HEAVY = {"torch", "torchvision", "captum", "matplotlib", "numpy", "PIL", "safetensors"}
COLUMN = Path("results/column.py")  # a kind of matplotlib's own texts


def top_imports(path: Path) -> set[str]:
    """Modules imported when this one is; imports inside functions and for type checkers do not count."""
    return _named_in(ast.parse(path.read_text()).body)


def all_imports(path: Path) -> set[str]:
    """Our modules that this one imports anywhere, also inside functions and for type checkers."""
    named = _named_in(ast.walk(ast.parse(path.read_text())))
    return {_module(name) for name in named if name.split(".")[0] == "vizcnn"} - {_name(path)}


def _named_in(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _name(path: Path) -> str:
    return ".".join(("vizcnn", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {_name(path) for path in MODULES}


def _module(name: str) -> str:
    """The module that a dotted name of ours lies in."""
    while name not in NAMES:
        name = name.rpartition(".")[0]
    return name


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_one_way(path: Path) -> None:
    room = room_of(path)
    if room not in ("__init__", "__main__"):
        assert "vizcnn" not in all_imports(path), "the package itself imports all rooms"
        others = {name.split(".")[1] for name in all_imports(path)} - {room}
        above = {other for other in others if ROOMS.index(other) > ROOMS.index(room)}
        assert not above, f"{_name(path)} imports from {above}, which stand above {room}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also not inside a room, or by way of others."""
    imports = {_name(path): all_imports(path) for path in MODULES}
    while free := [name for name, others in imports.items() if not others & imports.keys()]:
        for name in free:
            del imports[name]
    assert not imports, f"in circles, or importing what is in one: {sorted(imports)}"


def test_no_test_module_imports_another() -> None:
    """What tests share stands in modules that hold no tests."""
    files = [*Path(__file__).parent.rglob("*.py")]
    tests = {path.stem for path in files if path.stem.startswith("test_")}
    for path in files:
        parts = {part for name in _named_in(ast.walk(ast.parse(path.read_text()))) for part in name.split(".")}
        assert not parts & tests, path


def test_probes_do_not_import_each_other() -> None:
    probes = {_name(path): all_imports(path) for path in MODULES if room_of(path) == "probes"}
    assert not {name: others & probes.keys() for name, others in probes.items() if others & probes.keys()}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_only_where_used(path: Path) -> None:
    if path.relative_to(PACKAGE) == COLUMN:
        return
    libraries = {name.split(".")[0] for name in top_imports(path)} & HEAVY
    assert not libraries & {"matplotlib", "torchvision", "captum"}
    if {room_of(path), str(path.relative_to(PACKAGE).with_suffix(""))} & LIGHT:
        assert not libraries


def test_the_class_made_of_matplotlibs_is_imported_where_it_is_drawn() -> None:
    assert (PACKAGE / COLUMN).is_file()
    assert not [path for path in MODULES if _name(PACKAGE / COLUMN) in top_imports(path)]


def test_matplotlib_is_used_in_results_alone() -> None:
    users = [path for path in MODULES if re.search(r"^\s*(from|import) matplotlib", path.read_text(), re.M)]
    assert {room_of(path) for path in users} == {"results"}


def test_results_need_no_torch() -> None:
    """Whoever only opens, draws or writes results does not wait for it; nor for matplotlib until a picture is drawn."""
    code = (
        "import sys, numpy, vizcnn.results\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
        "from vizcnn.results import Table, Provenance\n"
        "origin = Provenance('0', '2', 'layers', {}, {}, 'net', '0' * 64, {}, 'cpu', (), (), (), 0, '')\n"
        "Table(origin, ('layer', 'units'), (('conv', 3),), ('found',)).figure()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
    ours = [registry.get(name) for name in registry.list_names() if registry.get(name).__module__.startswith("vizcnn.")]
    assert ours
    for probe in ours:
        assert getattr(vizcnn, probe.__name__) is probe


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_whoever_cites_the_package_cites_its_version() -> None:
    citation = (PACKAGE.parent / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.M) == [vizcnn.__version__]


def test_the_page_of_the_architecture_lists_the_rooms_in_their_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == ROOMS

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vizcnn import Occlusion
from vizcnn.errors import ProbeNotFound
from vizcnn.probing import registry

PLUGIN = """[vizcnn.probes]
broken = brokenplugin:Broken
gone = nowhere.at.all:Gone
sums = os.path:join
occlusion = brokenplugin:Broken
silent = silentplugin:Silent
elsewhere = exporting:Renamed
"""


def test_our_own_probes_are_plugins_too() -> None:
    assert "occlusion" in registry.list_names()
    assert registry.get("occlusion") is Occlusion
    assert registry.read_summary("occlusion") == "What happens to the answer when a part of the image is covered?"


def test_a_mistyped_probe_is_answered_with_the_nearest() -> None:
    with pytest.raises(ProbeNotFound, match="no probe named 'oclusion'. Did you mean 'occlusion'?"):
        registry.get("oclusion")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder with an installed package of broken plugins."""
    info = tmp_path / "brokenplugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brokenplugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(PLUGIN)
    (tmp_path / "brokenplugin.py").write_text('class Broken:\n    """Never works."""\nraise ImportError("no CUDA")\n')
    (tmp_path / "silentplugin.py").write_text("class Silent:\n    pass\n")
    (tmp_path / "exporting").mkdir()
    (tmp_path / "exporting" / "__init__.py").write_text("from ._inside import Original as Renamed\n")
    (tmp_path / "exporting" / "_inside.py").write_text('class Original:\n    """Lives elsewhere."""\n')
    return tmp_path


def run(folder: Path, *code: str) -> str:
    answer = subprocess.run([sys.executable, *code], capture_output=True, text=True, env={"PYTHONPATH": str(folder)})
    return answer.stdout + answer.stderr


def test_a_broken_plugin_is_one_line_in_the_list_and_stops_nothing_else(plugins: Path) -> None:
    listing = run(plugins, "-m", "vizcnn", "--help")
    text = " ".join(listing.split())
    for line in (
        "broken Never works.",
        "gone (broken: ModuleNotFoundError: no module named 'nowhere.at.all')",
        "silent (no summary)",
        "elsewhere Lives elsewhere.",
        "occlusion What happens to the answer",
    ):
        assert line in text
    assert "Traceback" not in listing


def test_using_a_broken_plugin_says_what_is_wrong_with_it(plugins: Path) -> None:
    answer = run(plugins, "-m", "vizcnn", "broken", "x.png")
    assert "probe 'broken' (brokenplugin:Broken) cannot be loaded: ImportError: no CUDA" in answer
    assert "Traceback" not in answer
    assert "is not a subclass of vizcnn.Probe" in run(plugins, "-m", "vizcnn", "sums", "x.png")


def test_a_plugin_cannot_take_the_name_of_one_of_ours(plugins: Path) -> None:
    code = "import vizcnn, vizcnn.probing.registry as r; assert r.get('occlusion') is vizcnn.Occlusion"
    assert run(plugins, "-c", code) == ""

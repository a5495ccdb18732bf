"""What completion offers a person: public names, and the options of probes. Asked of a real IPython."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import vizcnn
from vizcnn.probing import registry
from vizcnn.probing.probe import list_options

PACKAGES = ["ascent", "inputs", "occlusion", "probing", "receptive", "results", "scanning"]

SHELL = """
import json, sys
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(history_load_length=0)
shell.Completer.use_jedi = json.loads(sys.argv[1])
shell.run_cell("import vizcnn, vizcnn.results")
with provisionalcompleter():
    texts = json.loads(sys.argv[2])
    offered = {text: [one.text for one in shell.Completer.completions(text, len(text))] for text in texts}
print(json.dumps(offered))
"""


def complete(texts: list[str], *, jedi: bool, folder: Path) -> dict[str, list[str]]:
    """What IPython offers after each text, by itself or with the help of jedi, as Jupyter has it by default."""
    pytest.importorskip("IPython")
    if jedi:
        pytest.importorskip("jedi")
    call = [sys.executable, "-c", SHELL, json.dumps(jedi), json.dumps(texts)]
    environment = {"IPYTHONDIR": str(folder), "HOME": str(folder), "PYTHONPATH": str(Path(vizcnn.__file__).parents[1])}
    answer = subprocess.run(call, capture_output=True, text=True, env=environment, check=True)
    found: dict[str, list[str]] = json.loads(answer.stdout.splitlines()[-1])
    return {text: [one.lstrip(".") for one in offered] for text, offered in found.items()}


@pytest.mark.parametrize("jedi", [False, True])
def test_public_names_and_options_of_probes_are_offered(jedi: bool, tmp_path: Path) -> None:
    probes = {name: registry.get(name) for name in registry.list_names()}
    calls = {f"vizcnn.{probe.__name__}(": probe for probe in probes.values() if probe.__module__.startswith("vizcnn.")}
    typed = ["vizcnn.", "vizcnn.results.", "vizcnn.inputs.", "vizcnn.Occlusion(window=3, ", "vizcnn.Occlusion(wi"]
    offered = complete([*typed, *calls], jedi=jedi, folder=tmp_path)
    assert sorted(offered["vizcnn."]) == sorted([*vizcnn.__all__, *vizcnn._ROOMS])
    assert sorted(offered["vizcnn.results."]) == sorted(vizcnn.results.__all__)
    assert sorted(offered["vizcnn.inputs."]) == sorted(vizcnn.inputs.__all__)
    assert "window=" in offered["vizcnn.Occlusion(wi"]
    for text, probe in calls.items():
        assert [one for one in offered[text] if one.endswith("=")] == sorted(f"{o.name}=" for o in list_options(probe))
    more = [one for one in offered["vizcnn.Occlusion(window=3, "] if one.endswith("=")]
    assert more == ["batch=", "engine=", "fill=", "stride="]


def test_a_cell_that_imports_and_completes_offers_no_helpers() -> None:
    """Before a cell has run, jedi reads the source instead of asking `__dir__`."""
    jedi: Any = pytest.importorskip("jedi")
    for package in ("vizcnn", "vizcnn.inputs", "vizcnn.probing"):
        offered = {one.name for one in jedi.Script(f"import {package}\n{package}.").complete()}
        files = {path.stem for path in Path(import_module(package).__file__ or "").parent.iterdir()}
        public = {*import_module(package).__all__}
        assert public <= offered
        assert not {one for one in offered - files - public if not one.startswith("_")}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_list_their_public_names_alone(package: str) -> None:
    module = import_module(f"vizcnn.{package}")
    assert sorted(dir(module)) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_the_parts_of_vizcnn_need_no_import_of_their_own() -> None:
    code = "import vizcnn; vizcnn.inputs.provenance_in; vizcnn.testing.check_probe; vizcnn.errors.ImageError"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_mistyped_part_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match="no attribute 'inputz'. Did you mean 'inputs'?"):
        vizcnn.inputz  # noqa: B018

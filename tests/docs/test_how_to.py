"""The how-tos' programs run as they stand on the page, and do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, small_cnn

import vizcnn
from vizcnn import testing
from vizcnn.probing import entries

FOLDER = ROOT / "docs" / "how-to"
PAGES = sorted(set(FOLDER.glob("*.md")) - {FOLDER / "README.md"})


def program(page: Path) -> tuple[str, str]:
    """The file's name and text of the program on a page."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
    name = re.match(r'"""(\w+\.py)"""\n', code)
    assert name, "the program begins with the name of its file"
    return name[1], code


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The program of the page that the test names, imported."""
    name, code = program(FOLDER / request.param)
    (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield import_module(Path(name).stem)
    del sys.modules[Path(name).stem]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Callable[[Any], str]]:
    """Installs a page's probe, as pip would: with an entry point beside its module. Returns its name."""

    def install(probe: Any) -> str:
        info = tmp_path / "page-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: page\nVersion: 1\n")
        entry = f"{probe.name()} = {probe.__module__}:{probe.__name__}"
        (info / "entry_points.txt").write_text(f"[{entries.GROUP}]\n{entry}\n")
        entries.find_entries.cache_clear()
        return str(probe.name())

    yield install
    entries.find_entries.cache_clear()


def test_every_page_is_listed() -> None:
    linked = re.findall(r"\]\((new-[\w-]+\.md)\)", (FOLDER / "README.md").read_text())
    assert sorted(linked) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_program_runs_without_a_warning_and_saves_what_it_says(page: Path, tmp_path: Path) -> None:
    name, code = program(page)
    (tmp_path / name).write_text(code)
    answer = subprocess.run(
        [sys.executable, "-W", "error", name], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    saved = re.findall(r'\.save\("([\w.]+)"\)', code)
    saved += [f"{recipe}.png" for recipe in re.findall(r'Recipe\(\s*"(\w+)"', code)]
    assert saved
    assert {each.name for each in tmp_path.glob("*.*")} - {name} == set(saved)


@pytest.mark.parametrize(
    ("module", "probe"),
    [("new-probe.md", "Flip"), ("new-result.md", "Weights"), ("new-backward-rule.md", "Strongest")],
    indirect=["module"],
)
def test_the_probe_keeps_the_contract(module: Any, probe: str, tmp_path: Path, installed: Callable[[Any], str]) -> None:
    folder = tmp_path / "contract"
    folder.mkdir()
    testing.check_probe(installed(getattr(module, probe)), folder)


@pytest.mark.parametrize("module", ["new-probe.md"], indirect=True)
def test_a_tile_that_is_turned_over_costs_what_a_run_says(module: Any) -> None:
    model = vizcnn.Model(small_cnn(), size=12)
    image = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = module.Flip(tiles=3)(model, image, 2, progress=False).values[0, 0]  # (12, 12)
    turned = image.clone()
    turned[..., 4:8, 8:] = image[..., 4:8, 8:].flip(2)
    with torch.no_grad():
        lost = float(model(image)[0, 2] - model(turned)[0, 2])
    np.testing.assert_allclose(found[4:8, 8:], lost, atol=1e-5)
    assert len(np.unique(found)) == 9


@pytest.mark.parametrize("module", ["new-backward-rule.md"], indirect=True)
def test_a_rule_that_lets_everything_pass_is_the_gradient(module: Any) -> None:
    model = vizcnn.Model(small_cnn(), size=12)
    image = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    plain = vizcnn.Saliency()(model, image, 2, progress=False).values
    np.testing.assert_allclose(module.Strongest(share=1)(model, image, 2, progress=False).values, plain, rtol=1e-5)
    assert (module.Strongest(share=0.02)(model, image, 2, progress=False).values != plain).mean() > 0.5


@pytest.mark.parametrize("module", ["new-objective.md"], indirect=True)
def test_the_objectives_are_what_their_formulas_say(module: Any) -> None:
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 5, 4, 6, generator=random)  # (N, C, H, W)
    wanted = [np.corrcoef(m[1].flatten(), m[3].flatten())[0, 1] for m in maps.numpy()]
    np.testing.assert_allclose(module.Together("a", 1, 3)({"a": maps}), wanted, rtol=1e-3)
    halves = maps[..., :3].mean((2, 3)) - maps[..., 3:].mean((2, 3))  # (N, C)
    torch.testing.assert_close(module.contrast({"layer2": maps}), halves.norm(dim=1) ** 2)


@pytest.mark.parametrize("module", ["new-recipe.md"], indirect=True)
def test_the_penalty_is_zero_for_a_symmetric_picture_alone(module: Any) -> None:
    picture = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    even = torch.cat([picture, picture.flip(3)], 3)
    penalty, mean = module.Mirrored(mirror=2.0), torch.zeros(1, 3, 1, 1)
    assert float(penalty(even, mean)) == 0
    odd = even.clone()
    odd[0, 0, 0, 0] += 0.5
    assert float(penalty(odd, mean)) == pytest.approx(2 * 2 * 0.25)

"""The page of layouts: every kind of picture, at shapes that strain it, has only texts that can be read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from legibility import find_faults
from support import ROOT

import vizcnn
from vizcnn.results import STYLES

_NOTHING = 0.001  # inches, less than a dot of a printer
_WIDEST_TABLE = 7.0  # inches: a table may take both columns of a paper

SPEC = importlib.util.spec_from_file_location("layouts", ROOT / "docs" / "layouts.py")
assert SPEC
assert SPEC.loader
layouts: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(layouts)


@pytest.mark.parametrize("case", layouts.CASES)
def test_no_text_of_a_picture_is_cut_hidden_or_too_small(case: str) -> None:
    result = layouts.CASES[case]()
    for style in ("screen", "print", "print-wide"):
        with vizcnn.use_style(style):
            for page, figure in _draw_pages(result):
                assert find_faults(figure) == [], (style, page)
                assert figure.get_figheight() <= STYLES[style].height + _NOTHING
                widest = max(STYLES[style].width, _WIDEST_TABLE * isinstance(result, vizcnn.Table))
                assert figure.get_figwidth() <= widest + _NOTHING


def _draw_pages(result: Any) -> Iterator[tuple[int, Any]]:
    yield 1, result.figure()
    for page in range(2, result.pages + 1):
        yield page, result.figure(page=page)


def test_the_page_is_written_with_all_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: layouts.CASES[name] for name in ("layers", "curve")}
    monkeypatch.setattr(layouts, "CASES", few)
    layouts.write_page(tmp_path, "dark")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert {*tmp_path.glob("*.png")} == {tmp_path / "layers-1.png", tmp_path / "curve-1.png"}

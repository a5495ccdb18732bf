"""Texts of pictures: whatever names hold can be drawn, as it is, in any format; what no font has is said once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.dom import minidom

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from PIL import Image
from support import ORIGIN

import vizcnn
from vizcnn.errors import VizcnnWarning
from vizcnn.results import texts
from vizcnn.results.drawing import new_figure
from vizcnn.testing import delicate_model

CAT, DOG = "\U000f1234", "\U000f4321"  # for private use: no font has them

shaping = pytest.mark.skipif(matplotlib.__version_info__ < (3, 11), reason="this matplotlib knows no such scripts")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process: no font was looked for, and nothing was said."""
    monkeypatch.setattr(texts, "_FAMILIES", {})
    monkeypatch.setattr(texts, "_TOLD", set())
    before = [*fontManager.ttflist]
    yield
    fontManager.ttflist[:] = before


def font_with(character: str, folder: Path, name: str) -> Path:
    """A font that has one character, a black square."""
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 900)), (pen.lineTo, (900, 900)), (pen.lineTo, (900, 0))):
        move(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": name, "styleName": "Regular", "psName": name.replace(" ", "")})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(folder / "own.ttf")
    return folder / "own.ttf"


def saliency(*labels: str) -> vizcnn.Heatmap:
    model = delicate_model()
    model.labels = (*labels, *"abcde"[len(labels) :])
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return vizcnn.Saliency()(model, image, target=list(range(len(labels))), progress=False)


NAMES = ["a\x1b[31m b\0 c\x9d d\ud800", "$\\frac{$"]


@pytest.mark.parametrize("kind", ["svg", "png", "pdf", "html", "jpg"])
def test_names_of_any_characters_can_be_drawn_in_every_format(kind: str, tmp_path: Path) -> None:
    file = saliency(*NAMES).save(tmp_path / f"a.{kind}")
    if kind == "svg":
        minidom.parse(str(file))
    if kind == "html":
        assert "\x1b" not in file.read_text(encoding="utf-8")


def find_title(figure: Figure, name: str) -> Text:
    """The text over a map, which begins with the name of its target."""
    (found,) = (text for text in figure.findobj(Text) if text.get_text().startswith(f"{name}, score "))
    return found


def test_names_are_drawn_as_they_are_and_never_as_formulas() -> None:
    figure = saliency(*NAMES).figure()
    for start in ("a\\x1b[31", "$\\frac{$, score "):  # long names lose their middle
        (title,) = (text for text in figure.findobj(Text) if text.get_text().startswith(start))
        assert not title.get_parse_math()


@dataclass(frozen=True)
class Bars(vizcnn.Result):
    """A third party's result, drawn without a thought of what names may hold: along an axis, in a legend, in a note."""

    names: tuple[str, ...]

    def figure(self) -> Figure:
        figure = Figure()
        ax = figure.add_subplot()
        for name in self.names:
            ax.barh([name], [1.0], label=name)
        ax.set_xscale("log")
        ax.legend()
        ax.annotate(self.names[0], (0, 0))
        figure.colorbar(ax.scatter([1], [1], c=[1])).set_label(self.names[-1])
        return figure


def test_a_third_partys_picture_is_as_safe(tmp_path: Path) -> None:
    made = Bars(ORIGIN, ("a$_{$b", "c\x1b", "d\ud800", "$e$"))
    minidom.parse(str(made.save(tmp_path / "a.svg")))
    made.save(tmp_path / "a.png")
    figure = made.figure()
    figure.draw_without_rendering()
    found = {text.get_text(): text.get_parse_math() for text in figure.findobj(Text)}
    assert not any(found[name] for name in ("a$_{$b", "c\\x1b", "d\\ud800", "$e$"))
    assert any(
        parsed and "$" in text for text, parsed in found.items()
    )  # the powers of ten along the axis are formulas


def test_the_provenance_and_the_names_of_targets_are_names_too(tmp_path: Path) -> None:
    made = saliency("a")
    provenance = replace(made.provenance, model="net$_{$\x1b", targets=(("$x$\x1b",),))
    minidom.parse(str(replace(made, provenance=provenance).save(tmp_path / "a.svg")))


def test_a_map_on_a_persons_own_axes_leaves_their_other_texts_alone() -> None:
    figure = Figure()
    mine, ax = figure.subplots(1, 2)
    mine.set_title("$x^2$")
    saliency("$a$\x1b").plot(ax)
    assert ax.get_title().startswith("gradient: $a$\\x1b, score ")
    assert not ax.title.get_parse_math()
    assert mine.title.get_parse_math()


def ink(result: vizcnn.Heatmap, name: str) -> float:
    """How much of the title over the map of this target is black."""
    figure, buffer = result.figure(), BytesIO()
    figure.savefig(buffer, dpi=figure.dpi)
    pixels, box = np.asarray(Image.open(buffer).convert("L")), find_title(figure, name).get_window_extent()
    rows = slice(len(pixels) - int(box.y1), len(pixels) - int(box.y0))
    return float((pixels[rows, int(box.x0) : int(box.x1)] < 128).mean())


def test_characters_that_a_font_lacks_are_drawn_in_an_installed_one_that_has_them(tmp_path: Path) -> None:
    fontManager.addfont(str(font_with(CAT, tmp_path, "Own")))
    result = saliency(CAT * 8)
    assert find_title(result.figure(), CAT * 8).get_fontfamily() == ["sans-serif", "Own"]
    assert ink(result, CAT * 8) > 0.3  # squares, filled
    for kind in ("svg", "pdf", "png"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result.save(tmp_path / f"a.{kind}")


def test_a_font_that_was_installed_after_matplotlib_had_looked_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(font_with(DOG, tmp_path, "Late"))])
    assert "Late" in find_title(saliency(DOG).figure(), DOG).get_fontfamily()


def test_characters_that_no_font_has_are_named_once(tmp_path: Path) -> None:
    result = saliency(f"cat {CAT}", "plain")
    with pytest.warns(VizcnnWarning, match=r"no installed font has \S+ \(U\+F1234\): pictures show a box for each"):
        result.save(tmp_path / "a.png")
    result.save(tmp_path / "a.svg")
    with pytest.warns(VizcnnWarning, match=r"no installed font has \S+ \(U\+F4321\)"):
        saliency(f"{CAT}{DOG}").figure()


def test_fonts_that_are_damaged_or_gone_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = font_with(CAT, tmp_path, "Good")
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    files = [str(tmp_path / name) for name in ("gone.ttf", "bad.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [*files, str(good)])
    assert "Good" in find_title(saliency(CAT).figure(), CAT).get_fontfamily()


@pytest.mark.parametrize("name", ["tab\tbed", "naïve café", "zero\u200dwidth\ufe0f"])
def test_what_needs_no_sign_needs_no_font(name: str) -> None:
    saliency(name).figure()


@shaping
def test_numbers_stay_behind_names_that_are_read_from_right_to_left() -> None:
    """Without marks of direction the title's `-0.4` would be drawn as `0.4-`, at the left of the name."""
    name = "كلب الصيد"
    shown, right, wrong = (right_end(text) for text in (f"{name}  -0.4", "-0.4", "0.4-"))
    assert np.abs(shown - right).mean() < np.abs(shown - wrong).mean() / 2


def right_end(text: str) -> Any:
    """The pixels at the right end of a text, as wide as `-0.4`, (h, w)."""
    figure = new_figure(4, 1)
    figure.text(1, 0.3, text, ha="right", fontsize=30)
    texts.make_legible(figure)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=100)
    return np.asarray(Image.open(buffer).convert("L"), np.float32)[:, -75:]


@pytest.mark.skipif(matplotlib.__version_info__ >= (3, 11), reason="this matplotlib joins letters")
def test_letters_that_this_matplotlib_cannot_join_are_said_once() -> None:
    with pytest.warns(VizcnnWarning, match="draws Arabic, Hebrew and Indic letters apart and from left to right"):
        saliency("كلب").figure()
    saliency("كلب").figure()


def test_pictures_can_be_drawn_in_several_threads_at_once(tmp_path: Path) -> None:
    results = [saliency(f"name {i}") for i in range(3)]
    serial = [result._png() for result in results]
    parallel: dict[int, bytes] = {}

    def draw(i: int) -> None:
        results[i].save(tmp_path / f"{i}.svg")
        parallel[i] = results[i]._png()

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [parallel[i] for i in range(3)] == serial

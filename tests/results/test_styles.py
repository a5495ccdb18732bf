"""Styles: how pictures look on paper, on dark ground and on screen, while their data keep their colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from legibility import find_faults
from matplotlib.colors import to_rgb
from PIL import Image
from support import ORIGIN

import vizcnn
from vizcnn.cli.options import STYLE
from vizcnn.errors import ParameterError
from vizcnn.inputs.records import provenance_in
from vizcnn.results import STYLES, current_style
from vizcnn.results.drawing import fit_text, measure_text, new_figure, wrap_text
from vizcnn.results.scatter import list_colours

CURVE = vizcnn.Curve(
    ORIGIN, np.linspace(0, 1, 5), np.array([[0.2, 0.5, 0.6, 0.9, 1.0]]), ("cat",), "share deleted", "probability"
)


def test_a_style_holds_until_another_is_chosen_or_its_block_ends() -> None:
    usual = current_style()
    with vizcnn.use_style("dark"):
        assert current_style().name == "dark"
        vizcnn.use_style("print")
        assert current_style().name == "print"
    assert current_style() is usual is STYLES["screen"]


def test_a_block_ends_also_when_drawing_fails() -> None:
    with pytest.raises(ZeroDivisionError), vizcnn.use_style("dark"):
        raise ZeroDivisionError
    assert current_style().name == "screen"


def test_another_name_is_refused_with_a_guess() -> None:
    with pytest.raises(ParameterError, match=r"styles are screen, dark, print, print-wide, got 'drak'. Did you mean"):
        vizcnn.use_style("drak")
    with pytest.raises(ParameterError, match="styles are"):
        CURVE.save("a.png", style="papers")
    assert current_style().name == "screen"


def test_the_command_line_offers_every_style() -> None:
    assert [*STYLE.type.choices] == [*STYLES]  # type: ignore[attr-defined]


def test_a_dark_picture_is_dark_and_says_so(tmp_path: Path) -> None:
    CURVE.save(tmp_path / "dark.png", style="dark")
    CURVE.save(tmp_path / "light.png")
    dark, light = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("dark", "light"))
    assert np.median(dark) < 40 < 215 < np.median(light)
    assert (provenance_in(tmp_path / "dark.png") or {})["style"] == "dark"
    assert "style" not in (provenance_in(tmp_path / "light.png") or {})


def test_a_person_s_own_settings_of_matplotlib_are_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"text.color": "red", "pdf.fonttype": 3}):
        CURVE.save(tmp_path / "a.pdf", style="print")
        assert matplotlib.rcParams["text.color"] == "red"
        assert matplotlib.rcParams["pdf.fonttype"] == 3
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("style", "width"), [("print", 3.35), ("print-wide", 7.0)])
def test_for_a_paper_letters_are_embedded_and_nothing_is_said_of_its_making(
    style: str, width: float, tmp_path: Path
) -> None:
    with vizcnn.use_style(style):
        figure = CURVE.figure()
    assert figure.get_figwidth() <= width
    assert not any("vizcnn" in text.get_text() for text in figure.findobj(matplotlib.text.Text))
    written = CURVE.save(tmp_path / "a.pdf", style=style).read_bytes()
    assert b"/FontFile2" in written
    assert b"/Type3" not in written
    assert b"vizcnn" in written  # the file says it
    assert b"/Image" not in written.replace(b"/ImageB", b"").replace(b"/ImageC", b"").replace(b"/ImageI", b"")  # vector


@pytest.mark.parametrize("style", STYLES)
def test_every_text_of_a_style_can_be_read_on_its_ground(style: str) -> None:
    """The contrast that WCAG 2.1 asks of text, 4.5 : 1."""
    one = STYLES[style]
    for ink in (one.ink, one.muted):
        assert contrast(ink, one.paper) >= 4.5
    with vizcnn.use_style(style):
        assert find_faults(replace(CURVE, title="a title " * 20, names=("a long name " * 9,)).figure()) == []


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    linear = linearize(np.array(to_rgb(colour)))
    return float(linear @ [0.2126, 0.7152, 0.0722])


def linearize(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


# From linear RGB to what eyes without one kind of cones see: Machado, Oliveira & Fernandes 2009, severity 1.
EYES = {
    "all cones": np.eye(3),
    "red-blind": np.array([[0.152, 1.052, -0.204], [0.114, 0.786, 0.099], [-0.003, -0.048, 1.051]]),
    "green-blind": np.array([[0.367, 0.860, -0.227], [0.280, 0.672, 0.047], [-0.011, 0.042, 0.968]]),
    "blue-blind": np.array([[1.255, -0.076, -0.178], [-0.078, 0.930, 0.147], [0.004, 0.691, 0.303]]),
}  # fmt: skip


def to_lab(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIELAB (N, 3) of linear RGB (N, 3), for the white of sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear.clip(0, 1) @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("style", STYLES)
def test_the_colours_of_classes_show_on_their_ground_and_differ_to_all_eyes(style: str) -> None:
    with vizcnn.use_style(style):
        colours = list_colours()
    if style == "dark":
        assert min(contrast(colour, STYLES[style].paper) for colour in colours) > 2
    linear = linearize(np.array([to_rgb(colour) for colour in colours]))
    for eyes in EYES.values():
        seen = to_lab(linear @ eyes.T)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 100 * np.eye(len(seen))
        assert apart.min() > 11


@pytest.mark.parametrize("eyes", EYES)
def test_the_colours_of_data_are_in_order_to_all_eyes(eyes: str) -> None:
    """Magnitudes get lighter all the way; of signed values both sides get darker from a white middle, and differ."""
    levels = np.linspace(0, 1, 33)

    def seen(name: str) -> npt.NDArray[np.float64]:
        return to_lab(linearize(matplotlib.colormaps[name](levels)[:, :3]) @ EYES[eyes].T)

    for name in ("viridis", "inferno"):
        assert (np.diff(seen(name)[:, 0]) > 0).all()
    signed = seen("RdBu_r")
    assert signed[16, 0] > 95
    assert (np.diff(signed[:17, 0]) > -0.5).all()
    assert (np.diff(signed[16:, 0]) < 0.5).all()
    apart = np.linalg.norm(signed[:12] - signed[:-13:-1], axis=1)  # values of one size and different signs
    assert apart.min() > 20


def test_texts_are_measured_as_they_are_drawn() -> None:
    figure = new_figure(9, 2)
    for said in ("Grace Hopper", "iiiiii", "layer4.1.conv2:17@3,3", "0.123", "…"):
        drawn = figure.text(0, 0, said, fontsize=8)
        figure.canvas.draw()
        assert measure_text(said, 8) == pytest.approx(drawn.get_window_extent().width / figure.dpi, abs=0.06)


def test_what_does_not_fit_loses_its_middle_and_keeps_its_ends() -> None:
    name = "a photograph with a very long name indeed, taken in 1984.jpg"
    fitted = fit_text(name, 1.5, 8)
    start, end = fitted.split("…")
    assert name.startswith(start)
    assert name.endswith(end)
    assert min(len(start), len(end)) > 5
    assert measure_text(fitted, 8) <= 1.5
    assert fit_text("short", 1.5, 8) == "short"
    assert measure_text(fit_text("日本語の長い名前" * 5, 1.0, 8), 8) <= 1.0


def test_lines_hold_all_words_and_none_is_too_wide() -> None:
    text = "what the units of layer3.0.conv1 see would have to be measured " + "x" * 90
    lines = wrap_text(text, 1.5, 8)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(measure_text(line, 8) for line in lines) <= 1.5
    assert wrap_text("", 1.5, 8) == []

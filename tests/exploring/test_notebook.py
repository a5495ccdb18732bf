"""The widget in a real JupyterLab: its numbers are right, nothing leaves the machine, all can use it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support_notebook import Lab, open_notebook, require_lab
from support_site import find_chromium

import vizcnn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

CODE = """
import vizcnn
explored = vizcnn.explore(
    vizcnn.load("tiny"),
    ["sample:grace_hopper", "sample:mosaic"],
    methods=["cam", "saliency", vizcnn.Occlusion(fill="#7f7f7f", window=16, stride=16), vizcnn.Rise(masks=1_000_000)],
)
explored
"""
SIDE = 13  # px of what a click covers: a fifth of 64


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    require_lab()
    find_chromium()
    browser: Browser = request.getfixturevalue("browser")
    with open_notebook(browser, tmp_path_factory.mktemp("lab"), CODE, ".vizcnn-explore .stage-of-maps") as opened:
        yield opened


@pytest.fixture
def widget(lab: Lab) -> Iterator[Locator]:
    """As it is at first; whatever a person must not get fails the test."""
    found = lab.page.locator(".vizcnn-explore .explore")
    yield found
    if found.locator("button:has-text('Uncover')").is_enabled():
        found.locator("button:has-text('Uncover')").click()
        _settle(found)
    assert not lab.trouble


def _settle(widget: Locator) -> None:
    """Wait until the kernel has answered all wishes."""
    widget.locator(".desk[data-busy=false]").wait_for()


def _stage(widget: Locator, number: int = 0) -> Locator:
    return widget.locator(".stage-of-maps").nth(number)


def _place(stage: Locator, row: int, column: int, size: int = 64) -> dict[str, Any]:
    """The middle of a px of the map, as a place to click or to point at."""
    box = stage.bounding_box()
    assert box is not None
    return {"x": (column + 0.5) / size * box["width"], "y": (row + 0.5) / size * box["height"]}


def _read(text: str) -> float:
    return float(text.split()[0].replace("−", "-"))


def _fill(tiny: vizcnn.Model, top: int, left: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network says of the photograph, and with a grey square in it, by plain runs: (K,) each."""
    image = tiny.prepared(vizcnn.open_photo("sample:grace_hopper"))[0]
    filled = image.clone()
    filled[:, top : top + SIDE, left : left + SIDE] = 127 / 255
    with torch.no_grad():
        before, after = tiny(torch.stack([image, filled]))
    return before, after


def test_pointing_reads_the_numbers_of_the_map(widget: Locator, tiny: vizcnn.Model) -> None:
    values = vizcnn.Cam()(tiny, "sample:grace_hopper").values[0, 0]
    stage = _stage(widget)
    for row, column in [(40, 30), (5, 60), (63, 0)]:
        stage.hover(position=_place(stage, row, column))
        widget.locator(f".reading:has-text('at row {row}, column {column}')").wait_for()
        said = widget.locator(".reading").first.inner_text()
        assert _read(said) == pytest.approx(float(values[row, column]), rel=6e-3, abs=1e-6)


def test_a_click_covers_and_the_answer_is_that_of_a_real_run(widget: Locator, tiny: vizcnn.Model) -> None:
    stage = _stage(widget)
    stage.click(position=_place(stage, 50, 30))
    widget.locator(".covered").wait_for()
    _settle(widget)
    before, after = _fill(tiny, 44, 24)
    target = int(before.argmax())
    said = widget.locator(".score").inner_text().replace("−", "-")
    numbers = [float(one) for one in said.partition(": ")[2].partition(" (")[0].split(" → ")]
    assert numbers == pytest.approx([float(before[target]), float(after[target])], abs=2e-3)
    row = widget.locator(".odds .value").first.inner_text()
    shares = [float(one.rstrip("%")) / 100 for one in row.split(" → ")]
    assert shares == pytest.approx([float(one.softmax(0)[target]) for one in (before, after)], abs=1e-3)
    assert "fill: #7f7f7f" in widget.inner_text()
    widget.locator("button:has-text('Uncover')").click()
    _settle(widget)
    assert widget.locator(".covered").count() == 0
    assert "→" not in widget.locator(".score").inner_text()


def test_it_can_be_used_with_the_keyboard_and_no_key_reaches_the_notebook(widget: Locator, tiny: vizcnn.Model) -> None:
    page, stage = widget.page, _stage(widget)
    cells = page.locator(".jp-Cell").count()
    page.mouse.move(5, 5)
    stage.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "d", "d", "b", "x"):  # of a notebook's own commands
        page.keyboard.press(key)
    assert page.locator(".jp-Cell").count() == cells
    said = widget.locator(".reading").first.inner_text()
    assert said.endswith("at row 33, column 34")
    page.keyboard.press("Enter")
    widget.locator(".covered").wait_for()
    _settle(widget)
    before, after = _fill(tiny, 27, 28)
    said = widget.locator(".score").inner_text().split(" → ")[1]
    assert _read(said) == pytest.approx(float(after[int(before.argmax())]), abs=2e-3)
    assert stage.evaluate("stage => stage.getRootNode().activeElement === stage")


def test_units_and_layers_are_stepped_through(widget: Locator, tiny: vizcnn.Model) -> None:
    plain = vizcnn.explore(tiny, "sample:grace_hopper")
    layer = next(reversed(plain.list_layers()))
    widget.locator("button[aria-label='Next unit']").click()
    _settle(widget)
    unit = plain.read_unit(layer, 1)
    assert f"Highest {unit.values.max():.2f}"[:-1] in widget.inner_text()
    stage = _stage(widget, 1)
    stage.hover(position=_place(stage, 4, 3, 8))
    said = widget.locator(".reading").nth(1).inner_text()
    assert said.endswith("at row 4, column 3")
    assert _read(said) == pytest.approx(float(unit.values[4, 3]), rel=6e-3, abs=1e-6)
    widget.locator("select[aria-label=Order]").select_option(label="strongest first")
    strongest = int(unit.peaks.argsort(kind="stable")[-1])
    widget.locator("input[aria-label=Unit]").fill(str(strongest))
    widget.locator("input[aria-label=Unit]").press("Tab")
    _settle(widget)
    assert f"number 1 of {len(unit.peaks)} units" in widget.inner_text()
    widget.locator("select[aria-label=Layer]").select_option(index=0)
    _settle(widget)
    first = next(iter(plain.list_layers()))
    assert f"{first}:0" in widget.inner_text()
    widget.locator("input[aria-label=Unit]").fill("99999")
    widget.locator("input[aria-label=Unit]").press("Tab")
    widget.locator(".units [role=alert]:has-text('has units 0 to ')").wait_for()
    widget.locator("button[aria-label='Next unit']").click()  # ends an error, as any other choice does
    _settle(widget)
    assert widget.locator("[role=alert]").count() == 0
    assert f"{first}:1" in widget.inner_text()


def test_another_image_target_and_method_can_be_chosen_and_a_map_judged(widget: Locator, tiny: vizcnn.Model) -> None:
    widget.locator("button[aria-label='Next image']").click()
    _settle(widget)
    assert widget.locator(".stage-of-maps img").first.get_attribute("alt") == "sample:mosaic"
    widget.locator("select[aria-label=Image]").select_option(label="sample:grace_hopper")
    widget.locator("select[aria-label=Method]").select_option(label="saliency")
    _settle(widget)
    widget.locator(".odds button").nth(1).click()
    _settle(widget)
    name = widget.locator(".odds button[aria-pressed=true]").inner_text()
    plain = vizcnn.Saliency()(tiny, "sample:grace_hopper", name, trust=True)
    assert plain.findings[0][0] in widget.inner_text()
    box = _stage(widget).evaluate(
        "stage => [stage.querySelector('canvas').width, stage.querySelector('canvas').height]"
    )
    assert box == [64, 64]
    widget.locator("button:has-text('How far')").click()
    widget.locator(f".trust:has-text('{plain.trust[0][0].verdict}')").wait_for()  # type: ignore[union-attr]
    widget.locator("input[list]").fill("")
    widget.locator("input[list]").press("Tab")
    _settle(widget)


def test_long_work_shows_how_far_it_is_and_an_interrupt_of_the_kernel_ends_it(lab: Lab, widget: Locator) -> None:
    method = widget.locator("select[aria-label=Method]")
    method.select_option(label="Rise(masks=1000000)")
    widget.locator(".desk:has-text('To stop it, interrupt the kernel.')").wait_for()
    widget.locator("progress").wait_for()
    lab.page.click(".lm-MenuBar-item:has-text('Kernel')")
    lab.page.click(".lm-Menu-item[data-command='kernelmenu:interrupt']")
    widget.locator("[role=alert]:has-text('Interrupted')").wait_for()
    method.select_option(label="cam")
    _settle(widget)
    assert widget.locator("[role=alert]").count() == 0


def test_errors_are_texts_in_the_widget(widget: Locator) -> None:
    target = widget.locator("input[list]")
    target.fill("<img src=x onerror=alert(1)>")
    target.press("Tab")
    widget.locator("[role=alert]").first.wait_for()
    assert "<img src=x onerror=alert(1)>" in widget.locator("[role=alert]").first.inner_text()
    assert widget.locator("img[src=x]").count() == 0
    target.fill("")
    target.press("Tab")
    _settle(widget)
    assert widget.locator("[role=alert]").count() == 0


@pytest.mark.usefixtures("widget")
@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_it_is_dark_and_light_with_the_notebook_and_axe_finds_nothing(lab: Lab, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python")
    lab.choose_theme(theme)
    kind = theme.rpartition(" ")[2].lower()
    lab.page.wait_for_function("kind => document.querySelector('.vizcnn-explore').dataset.theme === kind", arg=kind)
    lab.page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = lab.page.evaluate("async () => (await axe.run('.vizcnn-explore')).violations")
    told = [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"][:3]]
    assert not told, told


@pytest.mark.usefixtures("widget")
def test_a_saved_notebook_keeps_a_still_picture_for_those_who_have_no_widgets(lab: Lab) -> None:
    saved = lab.save()
    data = saved.cells[0].outputs[-1]["data"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "military uniform" in data["text/plain"]
    if not saved.metadata.get("widgets"):  # a notebook keeps these only where its user says so
        page = lab.file.with_suffix(".html")
        command = [sys.executable, "-m", "nbconvert", "--to", "html", str(lab.file)]
        subprocess.run(command, check=True, capture_output=True, cwd=lab.file.parent)
        assert f"data:image/png;base64,{data['image/png'][:60].strip()}" in page.read_text(encoding="utf-8")

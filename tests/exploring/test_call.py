"""explore() shows itself: as a widget where anywidget is installed, else as a still picture."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import subprocess
import sys
import threading
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import torch
from support import picture, small_cnn

import vizcnn
from vizcnn.errors import ParameterError, VizcnnWarning

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def model() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, name="small")


@pytest.fixture
def without_anywidget(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def look(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "anywidget" else find(name, package)

    monkeypatch.setattr("vizcnn.exploring.call.find_spec", look)


def _is_png(text: str) -> bool:
    return base64.b64decode(text).startswith(b"\x89PNG")


@pytest.mark.usefixtures("without_anywidget")
def test_without_anywidget_it_is_a_still_picture_that_names_the_extra(model: vizcnn.Model) -> None:
    found = vizcnn.explore(model, picture((16, 16)), 1, methods=["saliency"])
    with pytest.warns(VizcnnWarning, match=r"pip install 'vizcnn\[notebook\]'"):
        bundle = found._repr_mimebundle_()
    assert _is_png(bundle["image/png"])
    assert VIEW not in bundle
    assert bundle["text/plain"].endswith("pip install 'vizcnn[notebook]'")
    assert found.make_map().finding in bundle["text/plain"]
    with pytest.raises(ParameterError, match=r"pip install 'vizcnn\[notebook\]'"):
        found.widget()


@pytest.mark.usefixtures("without_anywidget")
def test_where_no_map_can_be_made_the_still_says_why(model: vizcnn.Model) -> None:
    for parameter in model.network.parameters():
        torch.nn.init.zeros_(parameter)
    found = vizcnn.explore(model, picture((16, 16)), 1)
    with pytest.warns(VizcnnWarning, match="still picture"):
        bundle = found._repr_mimebundle_()
    assert [*bundle] == ["text/plain"]
    assert bundle["text/plain"].startswith("<Explorer of small: 1 image")
    assert "Occlusion on small" in bundle["text/plain"]


def test_the_rest_needs_no_anywidget() -> None:
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import numpy as np, vizcnn\n"
        "found = vizcnn.explore(vizcnn.load('lecture'), np.full((28, 28), 0.5, np.float32), 3)\n"
        "found.cover(2, 2, 9, 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------------------- with anywidget


@pytest.fixture
def widget(model: vizcnn.Model) -> Any:
    pytest.importorskip("anywidget")
    return vizcnn.explore(model, picture((16, 16)), methods=["saliency", "occlusion"]).widget()


def test_a_front_end_can_choose_between_the_widget_and_a_still_picture(model: vizcnn.Model) -> None:
    pytest.importorskip("anywidget")
    found = vizcnn.explore(model, picture((16, 16)), methods=["saliency"])
    bundle = found._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] == found.widget().model_id
    assert _is_png(bundle["image/png"])


def test_a_wish_of_the_page_is_answered_in_the_other_traits(widget: Any) -> None:
    assert widget.map["name"] == "saliency"
    before = widget.answers
    told = list[dict[str, Any]]()
    widget.observe(lambda change: told.append(change["new"]), names="status")
    widget.wish = {**widget.wish, "id": "one", "boxes": [[0, 0, 4, 4]], "method": "occlusion"}
    assert widget.map["name"] == "occlusion"
    assert widget.answers["before"] == before["before"]
    assert widget.answers["after"] != before["before"]
    assert told[0]["done"] == ""
    assert "occlusion" in {one["busy"] for one in told}
    assert told[-1] == {"done": "one", "busy": "", "share": None}


def test_a_wish_that_cannot_be_granted_ends_too(widget: Any) -> None:
    widget.wish = {**widget.wish, "id": "two", "target": "no such class"}
    assert widget.status["done"] == "two"
    assert "no such class" in widget.answers["error"]
    widget.wish = {"id": "three"}  # nothing that a page of ours would say
    assert widget.status["done"] == "three"


def test_what_another_thread_hears_is_answered_between_cells(model: vizcnn.Model) -> None:
    """Kernels may read what pages write in another thread; the network runs where cells do, after the one at work."""
    pytest.importorskip("anywidget")
    told = list[tuple[threading.Thread, str]]()

    async def run_cells() -> None:
        widget = vizcnn.explore(model, picture((16, 16)), methods=["saliency", "occlusion"]).widget()
        widget.observe(lambda change: told.append((threading.current_thread(), change["new"]["done"])), names="status")
        wish = {**widget.wish, "id": "one", "method": "occlusion"}
        page = threading.Thread(target=lambda: setattr(widget, "wish", wish))
        page.start()
        page.join()
        assert not told  # the cell is still at work
        await asyncio.sleep(0)
        assert widget.map["name"] == "occlusion"

    asyncio.run(run_cells())
    assert {thread for thread, _ in told} == {threading.main_thread()}
    assert told[-1][1] == "one"


def test_what_is_sent_holds_the_program_and_nothing_of_elsewhere(widget: Any) -> None:
    state = widget.get_state()
    assert state["_esm"].startswith("const ATLAS = {};")
    assert not state.get("_css")
    assert widget.photo["url"].startswith("data:image/png;base64,")

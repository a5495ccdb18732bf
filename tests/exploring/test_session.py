"""What the widget's page is told: the parts that a choice changes, errors as texts, numbers as they are."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn import progress
from vizcnn.exploring.assembly import assemble_script, assemble_style
from vizcnn.exploring.session import Session


@pytest.fixture
def model() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, name="small")


def _begin(model: vizcnn.Model, **how: Any) -> tuple[Session, dict[str, Any]]:
    images = picture((16, 16), count=2)
    session = Session(vizcnn.explore(model, images, **{"methods": ["saliency", "occlusion"], **how}))
    return session, dict(session.begin())


def _grant(session: Session, **change: Any) -> dict[str, Any]:
    return dict(session.grant({**session.granted, **change}))


def _read(part: dict[str, Any]) -> Any:
    return np.frombuffer(part["values"], "<f4").reshape(part["rows"], part["columns"])


def test_it_begins_with_everything(model: vizcnn.Model) -> None:
    session, parts = _begin(model)
    assert [*parts] == ["about", "wish", "photo", "answers", "unit", "map"]
    assert not any("error" in part or "notes" in part for part in parts.values())
    assert parts["about"]["methods"] == ["saliency", "occlusion"]
    assert parts["about"]["layers"] == [[name, *shape] for name, shape in session.explorer.list_layers().items()]
    np.testing.assert_array_equal(_read(parts["map"]), session.explorer.make_map().values)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"image": 1}, ["photo", "answers", "unit", "map"]),
        ({"target": "#2"}, ["answers", "map"]),
        ({"method": "occlusion"}, ["map"]),
        ({"trust": True}, ["map"]),
        ({"boxes": [[1, 2, 3, 4]]}, ["photo", "answers", "unit"]),
        ({"layer": "0", "unit": 2}, ["unit"]),
        ({"again": 1}, ["answers", "unit", "map"]),
        ({"id": "another"}, []),
    ],
)
def test_only_what_a_choice_changes_is_made_anew(model: vizcnn.Model, change: dict[str, Any], parts: list[str]) -> None:
    session, _ = _begin(model)
    found = _grant(session, **change)
    assert [*found] == parts
    assert not any("error" in part for part in found.values())


def test_the_numbers_are_those_of_the_explorer(model: vizcnn.Model) -> None:
    session, _ = _begin(model)
    found = _grant(session, boxes=[[4, 4, 6, 6]], layer="0", unit=1, method="occlusion")
    answers = session.explorer.answer()
    assert (found["answers"]["before"], found["answers"]["after"]) == (answers.before, answers.after)
    assert found["answers"]["classes"] == [[one.number, one.label, one.before, one.after] for one in answers.classes]
    unit = session.explorer.read_unit("0", 1)
    np.testing.assert_array_equal(_read(found["unit"]), unit.values)
    assert found["unit"]["order"][0] == int(unit.peaks.argmax())
    value, row, column = found["unit"]["peak"]
    assert value == unit.values[row, column] == unit.values.max()
    np.testing.assert_array_equal(_read(found["map"]), session.explorer.make_map().values)


def test_the_picture_shows_what_is_covered_and_the_rest_as_it_is(model: vizcnn.Model) -> None:
    session, parts = _begin(model, methods=[vizcnn.Occlusion(fill="black")])

    def read(part: dict[str, Any]) -> Any:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(part["url"].partition(",")[2])))).astype(int)

    before, after = read(parts["photo"]), read(_grant(session, boxes=[[2, 3, 5, 4]])["photo"])
    assert (after[2:7, 3:7] == 0).all()
    after[2:7, 3:7] = before[2:7, 3:7]
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("channels", [1, 5])
def test_networks_of_other_channels_have_pictures_too(channels: int) -> None:
    network = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = vizcnn.Model(network, size=16, channels=channels)
    images = "sample:grace_hopper" if channels == 1 else picture((16, 16), channels)
    session = Session(vizcnn.explore(model, images, 0, methods=["saliency"]))
    assert not any("error" in part for _, part in session.begin())
    assert not any("error" in part for part in _grant(session, boxes=[[2, 2, 4, 4]]).values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "no such"}, "no such"),
        ({"image": 7}, "numbered 0 to 1"),
        ({"method": "oclusion"}, "Did you mean 'occlusion'"),
        ({"boxes": [[0, 0, 99, 1]]}, "inside 16 x 16"),
        ({"boxes": [[0, 0, "a"]]}, "inside 16 x 16"),
        ({"layer": "nowhere"}, "no layer named 'nowhere'"),
        ({"unit": 400}, "got 400"),
        ({"unit": None}, "got None"),
        ({"boxes": 3}, "TypeError"),
    ],
)
def test_what_is_wrong_is_said_in_its_part_and_the_next_choice_works(
    model: vizcnn.Model, change: dict[str, Any], said: str
) -> None:
    session, _ = _begin(model)
    before = session.granted
    found = _grant(session, **change)
    assert found
    assert all(said in part["error"] and "Traceback" not in part["error"] for part in found.values())
    again = dict(session.grant(before))
    assert again.keys() >= found.keys()
    assert not any("error" in part for part in again.values())


def test_an_error_of_the_network_is_a_text() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.works = small_cnn(), True

        def forward(self, x: Tensor) -> Tensor:
            if not self.works:
                raise RuntimeError("out of <b>coffee</b>")
            return self.inner(x)  # type: ignore[no-any-return]

    network = Moody()
    session, _ = _begin(vizcnn.Model(network, size=16))
    network.works = False
    found = _grant(session, boxes=[[0, 0, 4, 4]])
    assert "out of <b>coffee</b>" in found["answers"]["error"]
    assert "error" not in found["photo"]
    network.works = True
    assert "error" not in _grant(session, boxes=[])["answers"]


def test_an_interrupt_ends_the_part_and_not_the_session(model: vizcnn.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = _begin(model)

    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session.explorer, "make_map", interrupt)
        assert _grant(session, method="occlusion")["map"]["error"].startswith("Interrupted")
    assert "error" not in _grant(session, again=1)["map"]


def test_it_is_said_when_the_network_has_changed_since_the_map_was_made(model: vizcnn.Model) -> None:
    session, parts = _begin(model)
    assert not parts["answers"]["changed"]
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.5)
    assert _grant(session, boxes=[[0, 0, 4, 4]])["answers"]["changed"]
    _grant(session, again=1)
    assert not _grant(session, boxes=[])["answers"]["changed"]


def test_warnings_stand_beside_what_they_are_about() -> None:
    _, parts = _begin(vizcnn.Model(nn.Sequential(small_cnn(), nn.Softmax(1)), size=16), methods=["saliency"])
    assert parts["map"]["notes"]
    assert "notes" not in parts["unit"]


def test_progress_is_told_and_no_bar_is_drawn(model: vizcnn.Model, capsys: pytest.CaptureFixture[str]) -> None:
    session, _ = _begin(model)
    heard = list[tuple[str, float | None]]()
    dict(session.grant({**session.granted, "method": "occlusion"}, lambda *said: heard.append(said)))
    assert ("occlusion", 0.0) in heard or ("reading", None) in heard
    assert all(share is None or 0 <= share <= 1 for _, share in heard)
    assert capsys.readouterr().err == ""


def test_bars_tell_whoever_listens() -> None:
    heard = list[tuple[str, float | None]]()
    with progress.tell(lambda *said: heard.append(said)), progress.bar(4, "runs", "run") as bar:
        bar.update(1)
        bar.update(3)
    with progress.tell(lambda *said: heard.append(said)), progress.Whole(10, "all", "net", shown=False) as whole:
        with whole.part(5), progress.bar(2, "inside", "run") as inner:
            inner.update(1)
        assert heard[:3] == [("runs", 0.0), ("runs", 0.25), ("runs", 1.0)]
        assert heard[-1] == ("all", 0.5)
    with progress.bar(1, "quiet", "run", shown=False) as bar:
        bar.update(1)
    assert heard[-1] == ("all", 0.5)


def test_the_script_and_the_style_hold_all_that_they_need() -> None:
    script, style = assemble_script(), assemble_style()
    assert ":root" not in style
    assert ':host([data-theme="dark"])' in style
    assert "@import" not in style
    assert "url(" not in style
    assert {line.strip() for line in script.splitlines() if "http" in line} <= {
        'fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);'
    }
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch(", "import "):
        assert word not in script.partition("export default")[0]

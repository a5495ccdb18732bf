"""IPython and Jupyter show of an error of ours the person's own lines and the message; plain Python shows all of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import vizcnn
from vizcnn import tracebacks
from vizcnn.errors import ParameterError, VizcnnError

NETWORK = """
import torch

class Narrow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(768, 5)

    def forward(self, x):
        flat = x.flatten(1)
        return self.fc(flat[:, :7])
"""

SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(colors="nocolor", history_load_length=0)
for cell in json.loads(sys.argv[1]):
    print("--- cell", flush=True)
    shell.run_cell(cell, store_history=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a person's own module."""
    pytest.importorskip("IPython")
    folder = tmp_path_factory.mktemp("person")
    (folder / "narrow.py").write_text(NETWORK)
    return folder


def show(place: Path, *cells: str) -> list[str]:
    """What a real IPython prints for each cell."""
    call = [sys.executable, "-c", SHELL, json.dumps([dedent(cell) for cell in cells])]
    environment = {"IPYTHONDIR": str(place / "ipython"), "PYTHONPATH": f"{place}:{Path(vizcnn.__file__).parents[1]}"}
    answer = subprocess.run(call, capture_output=True, text=True, cwd=place, env=environment, check=True)
    texts = re.sub(r"\x1b\[[\d;]*m", "", answer.stdout).split("--- cell\n")[1:]
    assert len(texts) == len(cells)
    return texts


def test_an_error_shows_the_persons_line_and_the_message(place: Path) -> None:
    _, wrong, *_ = show(place, "import vizcnn", "before = 1\nvizcnn.Occlusion(window=-1)\nafter = 2")
    assert "----> 2 vizcnn.Occlusion(window=-1)" in wrong
    assert wrong.rstrip().endswith(
        "ParameterError: Occlusion: window must be at least 1 px, got -1\n(%tb shows the way through vizcnn)"
    )
    assert "vizcnn/" not in wrong
    assert "__init__" not in wrong
    assert wrong.count("\n") < 12


def test_of_what_a_network_raises_the_line_in_the_network_is_shown(place: Path) -> None:
    (answer,) = show(
        place,
        """
        import narrow, torch, vizcnn

        def look(model):
            return vizcnn.Saliency()(model, torch.rand(1, 3, 16, 16))

        look(vizcnn.Model(narrow.Narrow(), size=16))
        """,
    )
    lines = re.findall(r"^-+> \d+ (.*)$", answer, re.MULTILINE)
    assert [line.strip() for line in lines] == [
        "look(vizcnn.Model(narrow.Narrow(), size=16))",
        "return vizcnn.Saliency()(model, torch.rand(1, 3, 16, 16))",
        "return self.fc(flat[:, :7])",
    ]
    assert "NetworkError: Saliency on Narrow" in answer
    assert "site-packages" not in answer
    assert "direct cause" not in answer


def test_whoever_asks_sees_the_way_through_vizcnn(place: Path) -> None:
    wrong = "vizcnn.load('tinny')"
    _, short, asked, again, _, whole = show(place, "import vizcnn", wrong, "%tb", wrong, "%xmode Verbose", wrong)
    assert "vizcnn/models/loading.py" not in short + again
    assert "vizcnn/models/loading.py" in asked
    assert "vizcnn/models/loading.py" in whole
    assert "spec='tinny'" in whole
    assert "(%tb" not in asked + whole


def test_an_error_that_no_line_of_the_person_raised_is_its_message(place: Path) -> None:
    (answer,) = show(place, "import vizcnn\nprint(*vizcnn.VizcnnError('a\\tb')._render_traceback_(), sep='\\n')")
    assert [line for line in answer.splitlines() if line] == ["VizcnnError: a b", "(%tb shows the way through vizcnn)"]


def test_what_ctrl_c_leaves_is_as_short(place: Path) -> None:
    (answer,) = show(place, "import vizcnn\nraise vizcnn.Interrupted('so far')")
    assert answer.rstrip().endswith("Interrupted: interrupted\n(%tb shows the way through vizcnn)")


def test_plain_python_shows_all_of_it() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "import vizcnn; vizcnn.load('tinny')"], capture_output=True, text=True
    )
    assert answer.stderr.startswith("Traceback (most recent call last):")
    assert "vizcnn/models/loading.py" in answer.stderr
    assert "%tb" not in answer.stderr


def test_outside_of_ipython_the_text_is_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracebacks, "_find_shell", lambda: None)
    with pytest.raises(ParameterError) as caught:
        vizcnn.Occlusion(window=-1)
    text = "".join(caught.value._render_traceback_())
    assert text.startswith("Traceback (most recent call last):")
    assert "probe.py" in text


def test_showing_an_error_does_not_change_it() -> None:
    """The copy that is shown without its causes has the same words, also for errors with more than a message."""

    class RichError(VizcnnError, OSError):
        def __init__(self, where: str, *, why: str) -> None:
            super().__init__(where)
            self.why = why

        def __str__(self) -> str:
            return f"{super().__str__()}, {self.why}"

    error = RichError("here", why="because")
    error.__cause__ = cause = ValueError("deep")
    error.add_note("a note")
    copy = tracebacks._without_causes(error)
    assert (type(copy), str(copy), copy.__cause__) == (RichError, "here, because", None)
    assert copy.__notes__ == ["a note"]
    assert error.__cause__ is cause

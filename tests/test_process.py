"""What belongs to the whole process: standard output for the answer alone, the environment and threads as they were."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from vizcnn.process import keep_environment, rest_collector, set_stdout_aside
from vizcnn.progress import bar

PRINTING = """
import ctypes, os, sys
from vizcnn.process import set_stdout_aside
early = sys.stdout
print("before")
with set_stdout_aside(shown={shown}):
    print("python")
    print("an early reference", file=early)
    os.write(1, b"descriptor\\n")
    ctypes.CDLL(None).puts(b"compiled")
    os.system("echo child")
print("after")
"""


@pytest.mark.parametrize("shown", [True, False])
def test_whatever_prints_meanwhile_does_not_reach_standard_output(shown: bool) -> None:
    code = PRINTING.format(shown=shown)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=buffered)
    assert answer.stdout == "before\nafter\n"
    aside = {"python", "an early reference", "descriptor", "compiled", "child"}
    assert set(answer.stderr.splitlines()) == (aside if shown else set())


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_problem(closed: str) -> None:
    code = "import os; from vizcnn.process import *\nwith set_stdout_aside(shown=True): print(1); os.system('echo 2')"
    answer = subprocess.run(f'{sys.executable} -c "{code}" {closed}', shell=True, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_standard_output_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with set_stdout_aside(shown=False):
            os.write(1, b"aside")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    os.write(1, b"back")
    assert capfd.readouterr().out == "back"


def test_a_variable_that_was_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "mine"):
        if before:
            monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before)
        else:
            monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        with keep_environment():
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before or "torch's"
        assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before


def test_loading_and_probing_leave_no_variable_and_no_thread() -> None:
    code = (
        "import os, threading, vizcnn\n"
        "before = dict(os.environ)\n"
        "vizcnn.load('squeezenet1_1@random')\n"
        "model = vizcnn.load('tiny')\n"
        "vizcnn.Occlusion(window=32, stride=16)(model, 'sample:grace_hopper')\n"
        "vizcnn.receptive_fields(model)\n"
        "assert os.environ == before, set(os.environ) - set(before)\n"
        "assert threading.enumerate() == [threading.main_thread()], threading.enumerate()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr


def test_a_bar_of_ours_changes_nothing_of_tqdm() -> None:
    from tqdm import tqdm

    before = tqdm.monitor, tqdm.monitor_interval
    with bar(3, "work", "step") as shown:
        shown.update(1)
    assert (tqdm.monitor, tqdm.monitor_interval) == before


def test_the_collector_rests_while_torch_is_imported_and_works_again_afterwards() -> None:
    code = (
        "import gc\n"
        "from vizcnn.process import spare_imports\n"
        "with spare_imports():\n"
        "    print(gc.isenabled())\n"
        "    import torch\n"
        "with spare_imports():\n"
        "    print(gc.isenabled())\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True", "True", "True"]


@pytest.mark.parametrize("rests", [False, True])
def test_the_collector_is_afterwards_as_it_was(rests: bool) -> None:
    before = gc.isenabled()

    def fail() -> None:
        with rest_collector():
            assert not gc.isenabled()
            raise ValueError("on purpose")

    try:
        gc.disable() if rests else gc.enable()
        with pytest.raises(ValueError, match="on purpose"):
            fail()
        assert gc.isenabled() != rests
    finally:
        gc.enable() if before else gc.disable()

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import vizcnn
from vizcnn.cli import main


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


FAST = ("--window", "32", "--stride", "16")


def test_help_is_instant_and_loads_no_torch() -> None:
    code = (
        "import sys; from vizcnn.cli import main; main(['--help'], standalone_mode=False)\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "occlusion  What happens to the answer" in answer.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_probes_help_shows_its_declared_options() -> None:
    text = call("occlusion", "--help").output
    assert "--window" in text
    assert "--fill TEXT" in text
    assert "Zeiler & Fergus 2014" in text


def test_the_main_job(photo_file: Path) -> None:
    answer = call("occlusion", photo_file, *FAST)
    assert answer.exit_code == 0
    assert "covering the" in answer.output
    assert "photo-occlusion.png" in answer.output
    with Image.open("photo-occlusion.png") as picture:
        assert picture.width > 500


def test_the_command_line_and_python_give_the_same_array(photo_file: Path) -> None:
    call(
        "occlusion", photo_file, "--window", "32x16", "--stride", "16x8", "--fill", "blur", "-t", "lemon", "-o", "a.npz"
    )
    python = vizcnn.Occlusion(window=(32, 16), stride=(16, 8), fill="blur")(vizcnn.load("tiny"), photo_file, "lemon")
    np.testing.assert_allclose(np.load("a.npz")["values"], python.values, rtol=1e-5, atol=1e-6)


def test_json_is_one_object(photo_file: Path) -> None:
    answer = call("occlusion", photo_file, *FAST, "-t", "lemon", "-t", "pizza", "--json")
    found = json.loads(answer.stdout)
    assert [m["target"] for m in found["results"][0]["images"][0]["maps"]] == ["lemon", "pizza"]
    assert found["results"][0]["file"] == "photo-occlusion.png"
    assert found["errors"] == []


def test_quiet_prints_nothing(photo_file: Path) -> None:
    assert call("occlusion", photo_file, *FAST, "-q").output == ""


def test_the_good_images_are_done_and_the_bad_ones_reported(photo_file: Path) -> None:
    Path("bad.jpg").write_text("hello")
    answer = call("occlusion", photo_file, "bad.jpg", "gone.jpg", *FAST, "--json")
    assert answer.exit_code == 3
    assert Path("photo-occlusion.png").exists()
    assert not Path("bad-occlusion.png").exists()
    found = json.loads(answer.stdout)
    assert len(found["results"]) == 1
    assert "bad.jpg is not an image" in found["errors"][0]
    assert "gone.jpg does not exist" in found["errors"][1]
    assert "bad.jpg is not an image" in answer.stderr


def test_a_folder_of_images_into_a_folder(photo_file: Path) -> None:
    Path("in").mkdir()
    for name in "ab":
        Path(f"in/{name}.png").write_bytes(photo_file.read_bytes())
    assert call("occlusion", "in", *FAST, "-o", "out").exit_code == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["a-occlusion.png", "b-occlusion.png"]
    assert "need a folder to write to, got the file name out.png" in call("occlusion", "in", "-o", "out.png").stderr


def test_two_images_of_one_name_do_not_overwrite_each_other(photo_file: Path) -> None:
    Path("other").mkdir()
    Path("other/photo.png").write_bytes(photo_file.read_bytes())
    answer = call("occlusion", photo_file, "other/photo.png")
    assert answer.exit_code == 1
    assert "several images would be written to photo-occlusion.png" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["oclusion", "x.png"], 2, "no probe named 'oclusion'. Did you mean 'occlusion'?"),
        (["occlusion"], 2, "Missing argument 'IMAGE...'"),
        (["occlusion", "x.png", "--window", "0"], 2, "window must be at least 1 px, got 0"),
        (["occlusion", "x.png", "--window", "wide"], 2, "window must be int or tuple[int, int] or None, got 'wide'"),
        (["occlusion", "x.png"], 1, "x.png does not exist"),
        (["occlusion", "PHOTO", "-m", "resnet19"], 1, "no model named 'resnet19'. Did you mean 'resnet"),
        (["occlusion", "PHOTO", "-t", "lemmon"], 1, "Did you mean 'lemon'?"),
        (["occlusion", "PHOTO", "-t", "layr1:3"], 1, "no layer named 'layr1' in tiny. Did you mean 'layer1'?"),
        (["occlusion", "PHOTO", "-t", "layer1:99"], 1, "layer 'layer1' has channels 0 to 47, got 99"),
        (["occlusion", "PHOTO", "-o", "a.doc"], 1, "cannot save as 'a.doc': the ending must be one of"),
        (["occlusion", "PHOTO", "-o", "no/a.png"], 1, "cannot write no/a.png: the folder no does not exist"),
        (["occlusion", "PHOTO", "-o", "PHOTO"], 1, "is the image itself; writing there would destroy it"),
        (["occlusion", "PHOTO", "--device", "nonsense"], 1, "device 'nonsense' cannot be used"),
    ],
)
def test_errors_are_one_line(photo_file: Path, arguments: list[str], code: int, message: str) -> None:
    answer = call(*[str(photo_file) if a == "PHOTO" else a for a in arguments])
    assert message in answer.stderr
    assert answer.exit_code == code
    assert "Traceback" not in answer.output
    if code == 1:
        assert answer.stderr.count("\n") == 1


def test_a_network_that_raises_is_one_line_and_a_traceback_with_debug(photo_file: Path) -> None:
    Path("broken.py").write_text(
        "import vizcnn\nfrom torch import nn\ndef network(): return vizcnn.Model(nn.Linear(3, 2), size=8)\n"
    )
    answer = call("occlusion", photo_file, "-m", "./broken.py:network")
    assert answer.exit_code == 1
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in answer.stderr
    assert "[vizcnn: Occlusion on Linear]" in answer.stderr
    assert answer.stderr.count("\n") == 1
    debugged = call("occlusion", photo_file, "-m", "./broken.py:network", "--debug")
    assert isinstance(debugged.exception, RuntimeError)


SLOW = """
import time, vizcnn
from torch import nn
class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.05)
        return x.flatten(1)[:, :2]
def network(): return vizcnn.Model(Slow(), size=32)
"""


def test_ctrl_c_keeps_what_was_computed_and_exits_130(photo_file: Path) -> None:
    Path("slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "vizcnn", "occlusion", str(photo_file), "-m", "./slow.py:network", "-t", "0"]
    options = ["--window", "4", "--stride", "1", "--batch", "1", "--json"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.read(1)  # the progress bar has appeared, two seconds into the sweep
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(output)["results"][0]["partial"] is True
    assert Path("photo-occlusion.png").exists()


def test_progress_appears_on_stderr_only_for_what_takes_long(photo_file: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "vizcnn", "occlusion", str(photo_file), *FAST],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "window/s" not in answer.stderr

"""The command `explain`: what it writes and says, for one image and several, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support_explaining import light_cell
from support_process import hear_ctrl_c

import vizcnn
from vizcnn.cli.main import main

LAMP = """
from support_explaining import make_lamp

def network():
    return make_lamp()
"""

SLOW = """
import time
import vizcnn
from support_explaining import Lamp

class Slow(Lamp):
    def forward(self, images):
        time.sleep(0.02 * len(images))
        return super().forward(images)

def network():
    return vizcnn.Model(Slow(), size=24, labels=["dark", "lit", "third"], name="slow")
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{Path(vizcnn.__file__).parents[1]}:{Path(__file__).parents[1]}")
    Path("lamp.py").write_text(LAMP)


@pytest.fixture
def photo_file() -> Path:
    """A photograph in which the lamp is lit."""
    pixels = (light_cell().permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    Image.fromarray(pixels).save("photo.png")
    return Path("photo.png")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *(str(a) for a in arguments), "-m", "./lamp.py:network", "--quick"])


def test_one_image_gives_one_picture_and_a_few_sentences(photo_file: Path) -> None:
    answer = call(photo_file)
    assert answer.exit_code == 0, answer.output
    assert re.search(r"photo\.png: The network says “lit” \(\d+%\); next comes “dark”", answer.output)
    assert "Occlusion: " in answer.output
    assert "RISE: not made, left out to be quick" in answer.output
    with Image.open("photo-explain.png") as picture:
        assert picture.width > 1000


def test_several_images_get_a_page_each_and_are_not_made_again(photo_file: Path) -> None:
    with Image.open(photo_file) as picture:
        picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save("turned.png")
    first = call(photo_file, "turned.png", "-o", "pages")
    assert first.exit_code == 0, first.output
    assert {path.name for path in Path("pages").iterdir()} == {"photo-explain.png", "turned-explain.png"}
    assert call(photo_file, "turned.png", "-o", "pages").output.count("is there already") == 2


def test_a_page_and_a_file_for_machines_say_the_same(photo_file: Path) -> None:
    printed = call(photo_file, "-o", "page.html", "--json", "-t", "lit")
    found = json.loads(printed.stdout)["results"][0]
    assert found["target"]["label"] == "lit"
    page = Path("page.html").read_text(encoding="utf-8")
    assert all(sentence.split("“")[0] in page for sentence in found["sentences"])
    assert call(photo_file, "-o", "found.json", "-t", "lit", "-q").stdout == ""
    kept = json.loads(Path("found.json").read_text())
    assert kept["sentences"] == found["sentences"]
    assert kept["maps"] == found["maps"]


def test_what_goes_wrong_is_one_line(photo_file: Path) -> None:
    for arguments, said in (
        (["-t", "lid"], "no class or layer target named 'lid' in lamp (3 classes). Did you mean 'lit'?"),
        (["--index", "nowhere"], "nowhere holds no index. Make one: vizcnn scan"),
        (["-t", "eye:1"], "explain is about a class of the network's output, got eye:1"),
    ):
        answer = call(photo_file, *arguments)
        assert answer.exit_code == 1
        assert said in answer.stderr
        assert answer.stderr.count("\n") == 1
    assert not Path("photo-explain.png").exists()


def test_the_price_is_said_before_it_starts_and_ctrl_c_leaves_no_half_page(photo_file: Path) -> None:
    Path("slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "vizcnn", "explain", str(photo_file), "-m", "./slow.py:network"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    ) as process:
        assert process.stderr is not None
        said = ""
        while not re.search(r"vizcnn: about [\d,]+ runs of slow, \d+ s\n", said):
            letter = process.stderr.read(1)
            assert letter, said
            said += letter
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, said + errors
    assert output == ""
    assert not Path("photo-explain.png").exists()


def test_help_lists_it() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    assert "All about one image" in text
    assert re.search(r"explain +Why does the network say that", text)

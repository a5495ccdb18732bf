"""Images of other channels and depths from the command line: `--white` and `--display`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import vizcnn
from vizcnn.cli.main import main

NETWORK = """
import torch, vizcnn
from torch import nn

def make(channels):
    "A network whose answers are the means of the image's channels."
    return vizcnn.Model(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8, channels=channels)

def five(): return make(5)
def grey(): return make(1)
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def occlude(*arguments: object) -> dict[str, object]:
    answer = call("occlusion", *arguments, "--window", "4", "--json")
    assert answer.exit_code == 0, answer.output
    found: dict[str, object] = json.loads(answer.stdout)["results"][0]
    return found


def test_twelve_bits_in_sixteen_are_scaled_by_white() -> None:
    shades = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65  # up to 4095
    Image.fromarray(shades).save("a.png")
    for white, mean in ((), shades.mean() / 65535), (("--white", "4095"), 0.5):
        occlude("a.png", "-m", "./net.py:grey", "-t", "0", "-o", "a.npz", *white)
        assert vizcnn.load_result("a.npz").arrays()["scores"][0, 0] == pytest.approx(mean, rel=1e-5)


def test_white_reaches_a_scan() -> None:
    Path("scenes").mkdir()
    for i in range(3):
        np.save(f"scenes/{i}.npy", np.full((8, 8, 5), 1000 * (i + 1), np.uint16))
    answer = call("scan", "scenes", "-m", "./net.py:five", "--white", "4000", "--layers", "output", "-o", "index", "-q")
    assert (answer.exit_code, answer.stderr) == (0, "")
    tally = vizcnn.Index.open("index").tally("output")
    np.testing.assert_allclose(tally.values[:, 0].numpy(), [0.75, 0.5, 0.25], rtol=1e-5)


def test_the_channels_that_are_drawn() -> None:
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 5)).astype(np.uint8)
    np.save("a.npy", array)
    occlude("a.npy", "-m", "./net.py:five", "-t", "4", "--display", "4,2,0", "-o", "a.npz")
    result = vizcnn.load_result("a.npz")
    np.testing.assert_array_equal(result.photos[0].held, array[:, :, [4, 2, 0]])  # type: ignore[attr-defined]
    assert result.arrays()["scores"][0, 0] == pytest.approx(array[:, :, 4].mean() / 255, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--display", "red"), 2, "channels are numbers from 0 with commas between, such as 3,2,1, got 'red'"),
        (("--display", "4,5,6"), 1, "display names channels 0 to 4, counted from 0, got (4, 5, 6)"),
        (("--white", "0"), 1, "white is the value of white, such as 4095, got 0"),
        ((), 1, "photo.png has 3 channels (RGB), and the network takes 5. Give an array (H, W, 5)"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], code: int, message: str) -> None:
    Image.new("RGB", (8, 8)).save("photo.png")
    answer = call("occlusion", "photo.png", "-m", "./net.py:five", *arguments)
    assert answer.exit_code == code
    assert message in answer.stderr


def test_a_folder_of_arrays_goes_on_where_it_was_stopped() -> None:
    """The photographs that are read ahead are read as the network's contract says, too."""
    Path("scenes").mkdir()
    for i in range(3):
        np.save(f"scenes/{i}.npy", np.random.default_rng(i).integers(0, 4001, (8, 8, 5)).astype(np.uint16))
    asked = ("scenes", "-m", "./net.py:five", "-t", "0", "--window", "4", "--white", "4000", "-o", "maps")
    assert call("occlusion", *asked).exit_code == 0
    again = call("occlusion", *asked)
    assert again.exit_code == 0
    assert again.stdout.count("is there already") == 3
    assert "is there already" not in call("occlusion", *asked[:-4], "--white", "4001", "-o", "maps").stdout

"""`vizcnn scan`, `vizcnn scan-merge` and `vizcnn top-images --index` as a person meets them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import vizcnn
from vizcnn.cli.main import main
from vizcnn.scanning import Index

NETWORK = """
import torch, vizcnn
from torch import nn

def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    return vizcnn.Model(nn.Sequential(*layers), size=16, name="small", labels=["cat", "dog", "owl"])
"""


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `photos` of twelve photographs in two sub-folders, and a network in `net.py`."""
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        place = Path("photos") / "ab"[i % 2] / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)).save(place)
    Path("net.py").write_text(NETWORK)


SMALL = ("-m", "./net.py:make", "--batch", "4", "--shard-size", "5", "--loaders", "0", "--threads", "1")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def scanned(*arguments: object, code: int = 0) -> Any:
    """The one object that `scan --json` prints."""
    answer = call("scan", "photos", *SMALL, "--json", *arguments)
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)["results"][0]


def test_a_scan_says_what_it_found_and_what_to_ask_it() -> None:
    answer = call("scan", "photos", *SMALL)
    assert answer.exit_code == 0, answer.output
    first, second = answer.stdout.splitlines()
    assert first.startswith("12 images, 12 channels of 3 layers; digest ")
    assert second == "  index, ask it: vizcnn top-images 0:0 --index index"
    asked = call(*second.split(": ")[1].split()[1:])  # as it says
    assert asked.exit_code == 0, asked.output


def test_what_to_ask_can_be_pasted_for_an_index_with_a_space_in_its_name() -> None:
    answer = call("scan", "photos", *SMALL, "-o", "my index")
    asked = call(*shlex.split(answer.stdout.splitlines()[1].split(": ")[1])[1:])
    assert asked.exit_code == 0, asked.output
    assert Path("top-images.png").exists()


def test_json_is_one_object() -> None:
    found = scanned()
    index = Index.open("index")
    assert found == {
        "index": "index",
        "complete": True,
        "digest": index.digest,
        "images": 12,
        "unreadable": [],
        "layers": {"0": [6, 14, 14], "4": [3], "output": [3]},
    }


def test_quiet_prints_nothing() -> None:
    assert call("scan", "photos", *SMALL, "-q").output == ""
    assert call("top-images", "0:1", "--index", "index", "-q").output == ""


def test_options_reach_the_scan() -> None:
    Path("labels.csv").write_text("00.png,x\n01.png,y\n")
    scanned("-o", "other", "--layers", "0, output", "--top", "4", "--rank", "mean", "--labels", "labels.csv")
    index = Index.open("other")
    assert list(index.layers) == ["0", "output"]
    assert (index.identity["top"], index.identity["rank"], index.identity["batch"]) == (4, "mean", 4)
    assert set(index.labels) == {"x", "y", None}
    assert len(index.shards) == 3


def test_parts_and_their_merging() -> None:
    whole = scanned("-o", "whole")
    for i in (1, 2):
        assert not scanned("-o", f"part{i}", "--shard", f"{i}/2")["complete"]
    assert (
        "1 of 3 shards are still to be done" in call("scan", "photos", *SMALL, "-o", "part1", "--shard", "1/2").output
    )
    missing = call("scan-merge", "part1")
    assert missing.exit_code == 1
    assert "1 of 3 shards of part1 are missing or damaged, the first is 1" in missing.stderr
    merged = call("scan-merge", "part1", "part2", "--json")
    assert merged.exit_code == 0, merged.output
    assert json.loads(merged.stdout)["results"][0]["digest"] == whole["digest"]
    for i in (1, 2):
        together = scanned("-o", "together", "--shard", f"{i}/2")
    assert together["digest"] == whole["digest"]


def test_a_damaged_index_is_one_clear_line_and_mended_by_its_scan() -> None:
    digest = scanned()["digest"]
    shard = Path("index/shard-00001.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    for arguments, message in (
        (("top-images", "0:0", "4:0", "output:0", "--index", "index"), "index/shard-00001.safetensors is damaged ("),
        (("scan-merge", "index"), "1 of 3 shards of index are missing or damaged, the first is 1"),
    ):
        answer = call(*arguments)
        assert answer.exit_code == 1, answer.output
        assert message in answer.stderr
        assert "Run the same scan again, as a whole: it does only what is missing or damaged" in answer.stderr
        assert answer.stderr.count("\n") == 1
    answer = call("scan", "photos", *SMALL, "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["results"][0]["digest"] == digest
    assert answer.stderr == (
        "vizcnn: warning: 1 of 3 shards of index were damaged and are done again, the first is 1\n"
    )


def test_unreadable_images_are_listed_and_make_the_status_3() -> None:
    for i in range(25):
        Path(f"photos/a/bad{i:02}.png").write_text("no image")
    answer = call("scan", "photos", *SMALL)
    assert answer.exit_code == 3
    assert "37 images" in answer.stdout
    said = answer.stderr.splitlines()
    assert len(said) == 21
    assert said[0].startswith("vizcnn: a/bad00.png was skipped: ")
    assert said[-1] == "vizcnn: 25 of 37 images could not be read (--json lists all)"
    assert len(scanned(code=3)["unreadable"]) == 25


def test_names_that_are_no_unicode_can_be_printed(tmp_path: Path) -> None:
    import os

    os.mkdir(os.fsencode(tmp_path / "photos") + b"/caf\xe9")
    Path(os.fsdecode(b"photos/caf\xe9/bad.png")).write_text("no image")
    Image.new("RGB", (16, 16), "red").save(Path(os.fsdecode(b"photos/caf\xe9/good.png")))
    command = [sys.executable, "-m", "vizcnn", "scan", "photos", *SMALL]
    answer = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
    assert answer.returncode == 3, answer.stderr
    assert b"bad.png was skipped" in answer.stderr
    assert b"Traceback" not in answer.stderr
    asked = call("top-images", "0:0-5", "--index", "index", "--count", "20")
    assert asked.exit_code == 0, asked.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["photos", "--layers", "ouput"], 1, "Did you mean 'output'?"),
        (["photos", "--layers", ","], 1, "no layer of small is left to look at"),
        (["nowhere"], 1, "nowhere does not exist"),
        (["photos", "--top", "0"], 1, "top must be 1 to 100, got 0"),
        (["photos", "--rank", "median"], 2, "'median' is not one of 'max', 'mean', 'sum'"),
        (["photos", "--shard", "3/2"], 2, "a part is I/N with I from 1 to N, such as 2/8, got '3/2'"),
        (["photos", "--shard", "two"], 2, "a part is I/N"),
        (["photos", "--batch", "0"], 2, "0 is not in the range"),
        (["photos", "--labels", "nowhere.csv"], 1, "the labels nowhere.csv cannot be read"),
        (["photos", "-o", "net.py/index"], 1, "cannot make the folder net.py/index"),
        (["photos", "--workers", "2", "--dask", "tcp://127.0.0.1:1"], 1, "not both"),
        (["photos", "-m", "resnet19"], 1, "Did you mean 'resnet18'?"),
        ([], 2, "Missing argument"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], code: int, message: str) -> None:
    answer = call("scan", *SMALL, *arguments)
    assert answer.exit_code == code, answer.output
    assert message in answer.stderr.replace("\n", " ")
    if code == 1:
        assert answer.stderr.count("\n") == 1
    assert not Path("index").exists()


def test_a_changed_option_is_refused_with_what_differs() -> None:
    scanned()
    answer = call("scan", "photos", *SMALL, "--top", "5")
    assert answer.exit_code == 1
    assert "index holds another scan (top: 9 there, 5 here)" in answer.stderr


def test_scan_is_suggested_when_it_is_mistyped() -> None:
    assert "Did you mean 'scan'?" in call("scann", "photos").stderr


def test_help_lists_the_commands_and_loads_no_torch() -> None:
    assert "scan-merge" in call("--help").output
    for arguments in (["--help"], ["scan", "--help"], ["scan-merge", "--help"]):
        code = (
            f"import sys; from vizcnn.cli.main import main; main({arguments}, standalone_mode=False)\n"
            "assert not {'torch', 'matplotlib', 'numpy', 'PIL', 'distributed'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    text = call("scan", "--help").output
    for option in ("--layers", "--top", "--rank", "--labels", "--shard I/N", "--workers", "--dask ADDRESS", "--json"):
        assert option in text


# top-images


def test_top_images_without_an_index_looks_at_everything() -> None:
    answer = call("top-images", "photos", "-m", "./net.py:make", "-t", "0:2", "-t", "dog", "-o", "x.json", "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)["results"]
    assert len(found) == 1  # one answer for all images
    assert [row["target"] for row in found[0]["rows"]] == ["0:2", "dog"]
    assert len(found[0]["rows"][0]["exemplars"]) == 9
    assert found[0]["rows"][0]["exemplars"][0]["label"] in ("a", "b")


def test_an_index_gives_the_same_numbers_as_the_probe() -> None:
    scanned()
    call("top-images", "photos", "-m", "./net.py:make", "-t", "0:1-3", "-t", "owl", "-o", "probe.npz")
    answer = call("top-images", "0:1-3", "owl", "--index", "index", "-o", "index.npz")
    assert answer.exit_code == 0, answer.output
    probe, index = np.load("probe.npz"), np.load("index.npz")
    assert set(probe.files) == set(index.files)
    for name in set(probe.files) - {"manifest", "vizcnn"}:
        np.testing.assert_allclose(probe[name], index[name], atol=1e-5)
    python = vizcnn.TopImages().answer(Index.open("index"), ["0:1-3", "owl"])
    np.testing.assert_array_equal(python.arrays()["values"], index["values"])


def test_with_the_network_too_an_index_shows_where_in_an_image_a_channel_responds() -> None:
    Path("net.py").write_text(NETWORK.replace("Conv2d(3, 6, 3)", "Conv2d(3, 6, 13, padding=6)"))
    scanned()
    alone = call("top-images", "0:1", "--index", "index", "-o", "alone.npz")
    assert "-m MODEL" in alone.stdout.splitlines()[1]
    both = call("top-images", "0:1", "--index", "index", "-m", "./net.py:make", "-o", "both.npz")
    assert both.exit_code == 0, both.output
    assert "-m MODEL" not in both.stdout
    probe = call("top-images", "photos", "-t", "0:1", "-m", "./net.py:make", "-o", "probe.npz")
    assert probe.exit_code == 0, probe.output
    np.testing.assert_allclose(np.load("both.npz")["regions"], np.load("probe.npz")["regions"])
    assert "regions" not in np.load("alone.npz")
    other = call("top-images", "0:1", "--index", "index", "-m", "lecture")
    assert other.exit_code == 1
    assert other.stderr.count("\n") == 1
    assert "is the index of another network, small with other weights" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1:0"], "the index index holds no layer '1'. It holds 0, 4, output. Others need another scan: --layers 1"),
        (["0:99"], "layer '0' has channels 0 to 5, got 99"),
        (["own"], "no class or layer target named 'own' in the network (3 classes). Did you mean 'owl'?"),
        (["0:1@3,3"], "images are ranked for channels (LAYER:CHANNEL) and classes, got 0:1@3,3"),
        (["energy(0)"], "images are ranked for channels"),
        (["0:1", "--rank", "mean"], "the images of index are ranked by their max, not their mean"),
    ],
)
def test_questions_that_an_index_cannot_answer(arguments: list[str], message: str) -> None:
    scanned()
    answer = call("top-images", *arguments, "--index", "index")
    assert answer.exit_code == 1, answer.output
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_folder_without_an_index() -> None:
    answer = call("top-images", "0:0", "--index", "photos")
    assert answer.exit_code == 1
    assert "photos holds no index. Make one: vizcnn scan IMAGES" in answer.stderr


def test_photographs_that_are_gone_are_a_clear_error() -> None:
    scanned()
    Path("photos").rename("elsewhere")
    answer = call("top-images", "0:0", "--index", "index")
    assert answer.exit_code == 1
    assert "photos does not exist" in answer.stderr


def test_two_worker_processes_find_what_one_finds() -> None:
    """In a process of its own, as a person would start it."""
    pytest.importorskip("distributed")
    command = [sys.executable, "-m", "vizcnn", "scan", "photos", *SMALL, "--workers", "2", "-o", "spread", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["results"][0]["digest"] == scanned()["digest"]
    assert "arning" not in answer.stderr
    assert "Traceback" not in answer.stderr

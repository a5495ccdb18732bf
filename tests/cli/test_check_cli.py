"""`vizcnn check` as a process, as somebody calls it who has just installed vizcnn."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support_process import run_vizcnn

import vizcnn

MINE = """
import torch, vizcnn
from torch import nn

def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 3, 1)
    return vizcnn.Model(nn.Sequential(*layers), size=(16, 24), mean=(0.5, 0.4, 0.3), name="mine")

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network().network

    def forward(self, images):
        maps = self.net(images)
        return maps, maps.mean((2, 3))

def two():
    return vizcnn.Model(Two(), size=16)
"""


def call(*arguments: str, cwd: Path, status: int = 0) -> tuple[str, str]:
    answer = run_vizcnn("check", *arguments, cwd=cwd)
    assert answer.returncode == status, answer.stderr
    return answer.stdout, answer.stderr


def call_cold(*arguments: str, cwd: Path) -> tuple[str, str]:
    command = [sys.executable, "-m", "vizcnn", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout, answer.stderr


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_it_says_all_of_a_persons_own_network_in_80_columns(mine: Path) -> None:
    out, err = call_cold("check", "./mine.py:network", cwd=mine)
    assert max(map(len, out.splitlines()[:-1])) <= 80  # the last is the command to type next
    assert out.startswith("mine: Sequential, 127 parameters, weights ")
    words = " ".join(out.split())
    assert "Input 3 x 16 x 24; photographs are scaled to cover that and cut (bilinear)" in words
    assert "mean 0.5, 0.4, 0.3; std 1, 1, 1" in words
    assert "Output tensor 1 x 3 x 14 x 22: logits" in words
    assert "Runs on cpu in float32, " in words
    assert "maximize 0, 1, 2 occlusion" in words
    assert "deconvnet the network uses silu, but this method's rule is defined for ReLU only" in words
    assert out.splitlines()[-1] == "Next: vizcnn occlusion sample:grace_hopper -m ./mine.py:network"
    assert "Traceback" not in err
    assert not [*mine.glob("*.png")]


@pytest.mark.parametrize("network", ["network", "two"])
def test_the_command_that_it_names_next_works(mine: Path, network: str) -> None:
    out = call(f"./mine.py:{network}", cwd=mine)[0]
    if network == "two":
        assert "With -t cam -t energy(net) there is no predicted class: the network returns" in " ".join(out.split())
    next_one = out.splitlines()[-1].removeprefix("Next: vizcnn ")
    call_cold(*shlex.split(next_one), cwd=mine)
    assert (mine / "grace_hopper-occlusion.png").exists()


def test_json_has_the_same_facts_as_keys(mine: Path) -> None:
    out, _ = call("-m", "./mine.py:network", "--json", cwd=mine)
    (found,) = json.loads(out)["results"]
    assert found["model"]["parameters"] == 127
    assert found["input"] == {
        "size": [16, 24], "channels": 3, "mean": [0.5, 0.4, 0.3], "std": [1, 1, 1], "fit": "crop", "resize": None,
        "interpolation": "bilinear", "antialias": True, "white": None,
    } | {key: value for key, value in found["input"].items() if key == "display"}  # fmt: skip
    assert found["output"]["kind"] == "logits"
    assert found["output"]["classes"] == 3
    assert found["run"]["dtype"] == "float32"
    probes = {row["probe"]: row for row in found["probes"]}
    assert probes["saliency"]["works"] == probes["layers"]["works"] == "yes"
    (found,) = json.loads(call("./mine.py:two", "--json", cwd=mine)[0])["results"]
    saliency = next(row for row in found["probes"] if row["probe"] == "saliency")
    assert (saliency["works"], saliency["target"]) == ("with a target", "energy(net)")
    assert "Give a target" in saliency["reason"]


def test_quiet_prints_nothing(mine: Path) -> None:
    assert call("lecture", "-q", cwd=mine)[0] == ""


def test_without_a_network_it_says_what_is_there(tmp_path: Path) -> None:
    out, _ = call(cwd=tmp_path)
    assert out.startswith(f"vizcnn {vizcnn.__version__}, torch ")
    for named in ("Devices", "cpu (", "Extras", "embed", "tiny", "lecture", "simple", "Next: vizcnn check MODEL"):
        assert named in out
    facts = json.loads(call("--json", cwd=tmp_path)[0])["results"][0]
    assert facts["version"] == vizcnn.__version__
    assert facts["extras"]["embed"] is True
    assert list(facts["bundled"]) == ["eleven", "lecture", "simple", "tiny"]


def test_without_a_network_it_lists_a_persons_own_names(mine: Path) -> None:
    (mine / "vizcnn.toml").write_text('[models.birds]\nnetwork = "./mine.py:network"\nclasses = 3\n')
    (mine / "inside").mkdir()
    out, _ = call(cwd=mine / "inside")
    assert f"Yours     birds     {mine / 'vizcnn.toml'}" in out
    (mine / "vizcnn.toml").write_text("[models.birds\n")
    out, err = call(cwd=mine, status=3)
    assert "vizcnn.toml cannot be read" in err
    assert "tiny" in out


def test_what_is_said_of_a_network_beside_its_name_is_used(mine: Path) -> None:
    (mine / "names.txt").write_text("wren\nrobin\nowl\n")
    out, _ = call("./mine.py:network", "--mean", "0.1,0.2,0.3", "--class-names", "names.txt", "--json", cwd=mine)
    (found,) = json.loads(out)["results"]
    assert found["input"]["mean"] == [0.1, 0.2, 0.3]
    assert found["output"]["labels"] == ["wren", "robin", "owl"]


def test_the_command_that_it_names_next_says_it_too(mine: Path) -> None:
    (mine / "na mes.txt").write_text("wren\nrobin\nowl\n")
    (mine / "net.py").write_text("from mine import network\ndef make(): return network().network\n")
    given = ["--input-size", "16x24", "--mean", "0.5,0.4,0.3", "--class-names", "na mes.txt", "--white", "4095.0"]
    last = call("./net.py:make", *given, "--trust-pickle", cwd=mine)[0].splitlines()[-1]
    typed = shlex.split(last.removeprefix("Next: vizcnn "))
    assert typed[2:4] == ["-m", "./net.py:make"]
    assert {*typed[4:]} == {*given, "--trust-pickle"}


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    out, err = call("tinny", cwd=tmp_path, status=1)
    assert out == ""
    assert err.count("\n") == 1
    assert "no model named 'tinny'. Did you mean 'tiny'?" in err
    assert "two models were given: tiny and -m lecture" in call("tiny", "-m", "lecture", cwd=tmp_path, status=2)[1]

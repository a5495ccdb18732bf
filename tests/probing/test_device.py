"""On a device every probe gives the processor's numbers and keeps the contract, and waits for the device seldom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vizcnn.ascent import RECIPES
from vizcnn.probing import registry

ROOT = Path(__file__).parents[2]


@cache
def work() -> dict[str, Any]:
    """What was found on the pretend device, in a process of its own."""
    script = Path(__file__).with_name("work_on_device.py")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_probe_gives_the_processors_numbers() -> None:
    found = work()["compare"]
    assert {name.split()[0] for name in found} == {*registry.list_names(), "scan"}
    assert {"occlusion incremental", "cam score-cam", "saliency smoothgrad"} <= found.keys()
    assert {name: difference for name, difference in found.items() if not difference < 1e-5} == {}


def test_every_probe_keeps_the_contract() -> None:
    broken = work()["keep_contract"]
    if "feature-maps" in broken:  # the run that raised only tried whether two images fit into one
        assert broken.pop("feature-maps").endswith("the network raised, and the probe hid it")
    assert broken == {}


CALLS = {
    "arithmetic": (20, 12, 4, 0),
    "cam": (8, 9, 0, 0),
    "deconvnet": (15, 8, 5, 1),
    "dream": (24, 20, 10, 7),
    "embed": (3, 4, 0, 0),
    "feature-maps": (16, 6, 3, 0),
    "filters": (3, 0, 0, 0),
    "invert": (40, 18, 5, 1),
    "layers": (2, 7, 0, 0),
    "maximize": (17, 10, 0, 0),
    "occlusion": (13, 18, 4, 6),  # auto chooses by the clock
    "rise": (11, 14, 3, 6),
    "saliency": (6, 6, 0, 0),
    "style": (38, 19, 18, 7),
    "top-images": (15, 10, 0, 0),
}
"""By probe, the most of its methods: waits and copies of a call with two images, and of each further image."""


def test_no_probe_waits_or_copies_more_than_it_says() -> None:
    found = work()["count_calls"]
    assert {name.split()[0] for name in found} == {*registry.list_names()}
    assert CALLS.keys() == {*registry.list_names()}, "a new probe says what it costs a device"
    more = {}
    for name, counts in found.items():
        said = CALLS[name.split()[0]]
        got = (counts["waits"][0], counts["copies"][0], counts["waits"][1], counts["copies"][1])
        if any(one > most + 1e-9 for one, most in zip(got, said, strict=True)):
            more[name] = (got, said)
    assert more == {}


@pytest.mark.parametrize(
    ("what", "waits", "copies"),
    [
        ("maximize, step", 1 / 8, 0),  # one look at a block of steps
        ("dream, step", 1 / 8, 0),
        ("invert, step", 1 / 8, 0),
        ("style, step", 1 / 8, 0),
        ("occlusion, batch", 1, 0),
        ("incremental occlusion, batch", 0, 7),  # which values each window needs
        ("rise, batch", 1, 3),  # the masks
        ("smoothgrad, batch", 0, 1),  # the noise
        ("gradient, batch", 4, 2),
        ("cam, batch", 4, 2),
        ("scan, batch", 8, 5),  # of four layers: statistics, and the places of new best images
        ("digest, layer", 0, 0),
    ],
)
def test_a_further_step_or_batch_costs_few_waits_and_copies(what: str, waits: float, copies: float) -> None:
    found = work()["count_work"][what]
    assert found["waits"] <= waits + 1e-9
    assert found["copies"] <= copies + 1e-9
    assert found["operations"] >= 10


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_ascent_that_looks_seldom_makes_the_processors_pictures(recipe: str) -> None:
    found = work()["climb"][recipe]
    assert found["difference"] < 1e-5
    assert found["waits"] <= 1 / 8 + 1e-9
    assert found["copies"] == 0


def test_a_block_of_steps_is_taken_again_where_a_target_falls_silent() -> None:
    assert any(found["again"] for found in work()["climb"].values())


@pytest.mark.parametrize(
    "method",
    [
        *("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients"),
        *("grad-cam", "grad-cam++", "layer-cam"),
    ],
)
def test_sixteen_images_cost_a_device_little_more_than_one(method: str) -> None:
    one, sixteen, difference = work()["count_images"][method]
    assert difference < 1e-5
    assert sixteen["waits"] == one["waits"]
    assert sixteen["operations"] / 16 < one["operations"] / 5

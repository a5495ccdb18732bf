"""Every installed probe keeps the contract; a probe of somebody else's package is treated like one of ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ORIGIN

import vizcnn
from vizcnn import testing
from vizcnn.errors import DegenerateResult
from vizcnn.probing import Map, each_map, heatmap, registry
from vizcnn.probing.subject import Subject

PLUGIN = Path(__file__).parent / "plugin"


QUICK: dict[str, dict[str, Any]] = {
    "dream": {"steps": 2, "octaves": 2, "size": 48},
    "invert": {"steps": 4},
    "maximize": {"steps": 4},
    "rise": {"masks": 60},
    "style": {"steps": 4, "size": 32},
}
"""Options with which probes that take long keep the same contract in less time."""


@pytest.mark.parametrize("name", registry.list_names())
def test_contract(name: str, tmp_path: Path) -> None:
    testing.check_probe(name, tmp_path, **QUICK.get(name, {}))


def test_the_contract_is_kept_where_warnings_are_only_shown(tmp_path: Path) -> None:
    """Occlusion says in a warning that the network raised, and why, before it goes another way."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        testing.check_probe("occlusion", tmp_path, window=(5, 4), engine="auto")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the third party's package."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*pip, str(PLUGIN)], check=True, capture_output=True)
    return folder


def run(site: Path, *arguments: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    answer = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_a_third_partys_probe_appears_on_the_command_line(site: Path, tmp_path: Path) -> None:
    assert "weight-norms  How large are the weights of each layer?" in run(site, "-m", "vizcnn", "--help")
    assert "--order INTEGER" in run(site, "-m", "vizcnn", "weight-norms", "--help")
    assert "is the largest with" in run(site, "-m", "vizcnn", "weight-norms", "-m", "lecture", cwd=tmp_path)
    provenance = vizcnn.inputs.provenance_in(tmp_path / "weight-norms.png")
    assert provenance is not None
    assert provenance["plugin"] == "vizcnn-two-probes 1.0"


@pytest.mark.parametrize("name", ["weight-norms", "taylor"])
def test_a_third_partys_probe_passes_the_contract(name: str, site: Path, tmp_path: Path) -> None:
    code = f"import pathlib, vizcnn.testing as t; t.check_probe({name!r}, pathlib.Path({str(tmp_path)!r}))"
    run(site, "-c", code)


@pytest.mark.parametrize(("name", "most"), [("weight_norms", 35), ("taylor", 25)])
def test_the_third_partys_probe_is_about_as_short_as_promised(name: str, most: int) -> None:
    code = [line for line in (PLUGIN / f"{name}.py").read_text().splitlines() if line.strip()]
    assert len(code) <= most


def test_a_third_partys_attribution_is_drawn_and_told_as_ours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Black for grey makes it gradient times input, which `saliency` has too: the same numbers and the same picture,
    but for what the method calls itself."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    taylor = import_module("taylor")
    model, images = testing.delicate_model(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    asked: dict[str, Any] = {"target": ["a", "b"], "progress": False}
    theirs = taylor.Taylor(grey=0.0)(model, images, **asked)
    ours = vizcnn.Saliency(method="gradient-x-input")(model, images, **asked)
    np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-5, atol=1e-8)
    boxes = [[[mark and mark.box for mark in row] for row in found.marks] for found in (theirs, ours)]
    assert boxes[0] == boxes[1]
    assert {mark and mark.text for row in theirs.marks for mark in row} == {
        "where it is strongest"
    }  # unless it says more
    assert theirs.describe() == ours.describe().replace("gradient-x-input adds up to most", "grey would change most")
    assert (theirs.provenance.probe, theirs.provenance.options) == ("taylor", {"grey": 0.0})
    assert theirs.provenance.paper == "Taylor 1715"
    assert set(theirs.meanings) == {"logit lost in grey"}
    panels = [[ax.get_title() for ax in found.figure().axes] for found in (theirs, ours)]
    assert panels[0] == panels[1]


@dataclass(frozen=True)
class Nothing(vizcnn.Result):
    """A result that says and shows the least."""

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {"values": torch.rand(1).numpy()}

    def summary(self) -> dict[str, Any]:
        return {}

    def describe(self) -> str:
        return "nothing"


class Careless(vizcnn.Probe[vizcnn.Result]):
    """A probe that breaks the contract in the way that FAULT names."""

    def compute(self, subject: Subject) -> vizcnn.Result:
        network: Any = subject.model.network
        FAULTS[FAULT](network, subject.inputs)
        return Nothing(subject.provenance())


FAULT = ""
FAULTS: dict[str, Any] = {
    "hooks": lambda network, _: network.conv.register_forward_hook(print),
    "in-place flags": lambda network, _: setattr(network.relu, "inplace", False),
    "attributes": lambda network, _: setattr(network.conv, "remembered", 1),
    "weights": lambda network, _: network.fc.weight.data.add_(1),
    "gradients": lambda network, _: network.fc.weight.grad.add_(1),
    "numpy random state": lambda *_: np.random.rand(),
    "gradient mode": lambda *_: torch.set_grad_enabled(False),
}


def test_the_contract_check_finds_a_probe_that_hides_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hiding(vizcnn.Probe[vizcnn.Result]):
        """Swallows what the network raises."""

        def compute(self, subject: Subject) -> vizcnn.Result:
            with contextlib.suppress(RuntimeError):
                subject.model(subject.inputs)
            return Nothing(subject.provenance())

    monkeypatch.setattr(registry, "get", lambda _: Hiding)
    monkeypatch.setattr(registry, "read_summary", lambda _: "hiding")
    with pytest.raises(AssertionError, match="the network raised, and the probe hid it"):
        testing.check_probe("hiding", tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_check_finds_what_a_careless_probe_leaves_behind(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "get", lambda _: Careless)
    monkeypatch.setattr(registry, "read_summary", lambda _: "careless")
    monkeypatch.setattr(f"{__name__}.FAULT", fault)
    try:
        with pytest.raises(AssertionError, match=f"after a normal run the network's {fault} differ from before"):
            testing.check_probe("careless", tmp_path)
    finally:
        torch.set_grad_enabled(True)


@pytest.mark.parametrize("careless", ["scale", "noise"])
def test_the_contract_check_finds_a_map_that_depends_on_company(
    careless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Comparing(vizcnn.Probe[vizcnn.Heatmap]):
        """Scales by the largest value of the batch, or draws noise for the whole batch."""

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            def make_maps(images: torch.Tensor, _: Any) -> list[Map]:
                rng = torch.Generator().manual_seed(subject.seed)
                noise = torch.rand(images.shape, generator=rng)
                noisy = images / images.max() if careless == "scale" else images + noise
                return [Map(one, None, "is") for one in noisy.mean(1)]

            maps = each_map(subject, make_maps, label="maps")
            return heatmap(subject, maps, meaning=lambda quantity: quantity, signed=True)

    monkeypatch.setattr(registry, "get", lambda _: Comparing)
    monkeypatch.setattr(registry, "read_summary", lambda _: "comparing")
    with pytest.raises(
        AssertionError, match=r"an image has another map alone than beside another\. Where the method is"
    ):
        testing.check_probe("comparing", tmp_path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"a": 1}, {"b": 1}], "records have other keys than the first"),
        ([{"a": 1}, {"a": [1, 2]}], "records are not plain"),
        ([{"a": float("nan")}], "not JSON compliant"),
    ],
)
def test_the_contract_check_finds_records_that_are_no_rows_of_a_table(
    records: list[dict[str, Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nothing, "records", lambda _: records)
    with pytest.raises((AssertionError, ValueError), match=message):
        testing._check_records(Nothing(ORIGIN))


def test_the_contract_check_finds_options_that_a_manifest_does_not_keep() -> None:
    class Changing(vizcnn.Probe[vizcnn.Result]):
        """Does it keep its options?"""

        size: int = vizcnn.param(1, "A size.")

        def write_options(self) -> dict[str, Any]:
            return {"size": 2}

    probe = Changing(size=3)
    result = Nothing(replace(ORIGIN, probe="changing", options=probe.write_options()))
    with pytest.raises(AssertionError, match="the manifest gives another probe"):
        testing._check_manifest(probe, result)


def refuse_beside_brighter(image: torch.Tensor, company: torch.Tensor) -> torch.Tensor | None:
    return None if image.max() < 0.6 * company.max() else image


def refuse_unless_beside_brighter(image: torch.Tensor, company: torch.Tensor) -> torch.Tensor | None:
    return None if company.max() < 0.6 else image


def refuse_dark_and_scale(image: torch.Tensor, company: torch.Tensor) -> torch.Tensor | None:
    return None if image.max() < 0.6 else image / company.mean()


def refuse_dark(image: torch.Tensor, _: torch.Tensor) -> torch.Tensor | None:
    return None if image.max() < 0.6 else image


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refuse_beside_brighter, r"an image has a map alone and is refused beside another\. Where the method is given"),
        (
            refuse_unless_beside_brighter,
            r"an image is refused alone and has a map beside another\. Where the method is",
        ),
        (refuse_dark_and_scale, r"an image has another map alone than beside another\. Where the method is given"),
        (refuse_dark, "vizcnn refusing .* failed"),  # all is well until the command line, which does not know it
    ],
)
def test_the_contract_check_finds_an_image_that_is_refused_for_its_company(
    answer: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(vizcnn.Probe[vizcnn.Heatmap]):
        """Gives no map for an image that is too dark."""

        def compute(self, subject: Subject) -> vizcnn.Heatmap:
            def make_maps(images: torch.Tensor, _: Any) -> list[Map]:
                answers = [answer(image, subject.inputs) for image in images]
                if any(one is None for one in answers):
                    raise DegenerateResult("this image is too dark")
                return [Map(one.mean(0), None, "is") for one in answers]

            maps = each_map(subject, make_maps, label="maps")
            return heatmap(subject, maps, meaning=lambda quantity: quantity, signed=True)

    monkeypatch.setattr(registry, "get", lambda _: Refusing)
    monkeypatch.setattr(registry, "read_summary", lambda _: "refusing")
    with pytest.raises(AssertionError, match=message):
        testing.check_probe("refusing", tmp_path)


def test_what_the_framework_restores_itself() -> None:
    """Modes, requires_grad and the random state are handed back even when a probe changes them."""

    class Rough(vizcnn.Probe[vizcnn.Result]):
        """Changes what it should not."""

        def compute(self, subject: Subject) -> vizcnn.Result:
            torch.manual_seed(5)
            subject.model.network.train().requires_grad_(True)
            return Nothing(subject.provenance())

    model, image = testing.delicate_model(), torch.rand(1, 3, 16, 16)
    before = testing.state_of(model)
    Rough()(model, image)
    assert testing.state_of(model) == before

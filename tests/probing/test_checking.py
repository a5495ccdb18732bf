"""check(): what is known of a network at first contact, told and kept."""

from __future__ import annotations

import warnings
from collections import Counter, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from support import small_cnn
from support_networks import ask, hold_to_verdict
from torch import nn

import vizcnn
from vizcnn.errors import ParameterError, VizcnnWarning
from vizcnn.probing.checking import describe_structure
from vizcnn.results.check import UNKNOWN, Check


@pytest.fixture(scope="module")
def found() -> Check:
    return vizcnn.check(vizcnn.load("tiny"))


def test_the_answers_are_those_of_the_network(found: Check) -> None:
    model = vizcnn.load("tiny")
    with torch.no_grad():
        shares = model(model.prepared(vizcnn.open_photo("sample:grace_hopper"))[0][None])[0].softmax(0)
    best = shares.topk(5)
    answers = found.facts["sample"]["answers"]
    assert [each["class"] for each in answers] == best.indices.tolist()
    assert [each["probability"] for each in answers] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert answers[0]["label"] == "military uniform"


def test_the_layers_are_those_that_the_probes_take(found: Check) -> None:
    takes = {row[0]: row[3] for row in found.rows}
    model, image = vizcnn.load("tiny"), "sample:grace_hopper"
    assert takes["cam"] == vizcnn.Cam()(model, image, progress=False).provenance.details["layer"]
    maps = vizcnn.FeatureMaps()(model, image, progress=False)
    assert takes["feature-maps"] == maps.provenance.details["layers"].replace(",", ", ")
    assert takes["embed"] == "what enters fc"


def test_the_facts_name_the_weights_and_the_place(found: Check) -> None:
    model = vizcnn.load("tiny")
    assert found.facts["model"]["weights_sha256"] == model.weights_sha256() == found.provenance.weights_sha256
    assert found.facts["model"]["parameters"] == sum(each.numel() for each in model.network.parameters())
    assert found.facts["run"]["device"] == "cpu"
    assert 0 < found.facts["run"]["seconds"] < 60


def test_it_is_a_table_that_can_be_kept_and_drawn(found: Check, tmp_path: Path) -> None:
    assert isinstance(found, vizcnn.Table)
    opened = vizcnn.load_result(found.save(tmp_path / "check.json"))
    assert opened == found
    assert opened.describe() == found.describe() == str(found)
    assert vizcnn.load_result(found.save(tmp_path / "check.npz")).describe() == found.describe()
    assert found.save(tmp_path / "check.png").stat().st_size > 1000
    assert [record["probe"] for record in found.records()] == vizcnn.probing.registry.list_names()


def test_what_was_inferred_while_loading_is_shown() -> None:
    model: Any = vizcnn.Model(small_cnn(), size=12)
    model.notes = ("the prefix module. was taken off",)
    assert "the prefix module. was taken off" in vizcnn.check(model).describe()


def test_classes_without_names_and_five_channels_of_noise() -> None:
    found = vizcnn.check(vizcnn.Model(small_cnn(channels=1), size=12, channels=1))
    assert "5 classes without names" in found.describe()
    assert "grace_hopper.jpg, in grey" in found.describe()


def test_a_network_that_fails_is_told_with_what_works_all_the_same() -> None:
    found = vizcnn.check(vizcnn.Model(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(7, 2)), size=12))
    assert "the network itself fails on images (1, 3, 12, 12)" in found.facts["sample"]["error"]
    assert found.facts["run"]["seconds"] is None
    assert "filters" in {row[0] for row in found.rows if row[1] == "yes"}


class Then(nn.Module):
    """A small network, of whose output something else is made, or of something else than the images."""

    def __init__(self, then: Any, *, first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.then, self.first = small_cnn(), then, first

    def forward(self, images: Any) -> Any:
        return self.net(self.then(images)) if self.first else self.then(self.net(images))


class Idle(nn.Module):
    """A network that has a layer, and does not run it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


class OneWay(torch.autograd.Function):
    """A function without a backward pass."""

    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def mix(images: torch.Tensor) -> torch.Tensor:
    return nn.functional.batch_norm(images, None, None, training=True)


ODD: dict[str, Any] = {
    "whole numbers": lambda: Then(lambda output: (100 * output).long()),
    "complex numbers": lambda: Then(lambda output: output + 0j),
    "no numbers": lambda: Then(lambda output: output[:, :0]),
    "batch statistics": lambda: Then(mix, first=True),
    "one image": lambda: Then(lambda images: images.reshape(1, 3, 12, 12), first=True),
    "always the same": lambda: Then(lambda output: 0 * output + 1),
    "detached": lambda: Then(lambda images: images.detach(), first=True),
    "nothing": lambda: Then(lambda _: None),
    "no layer runs": Idle,
}


@pytest.mark.parametrize(
    "probe", ["cam", "deconvnet", "embed", "invert", "occlusion", "rise", "saliency", "top-images"]
)
@pytest.mark.parametrize("odd", ODD)
def test_the_verdicts_hold_of_odd_networks(odd: str, probe: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VizcnnWarning)
        seen = ask(vizcnn.Model(ODD[odd](), size=12))
        assert seen.verdicts[probe]["works"] != UNKNOWN, seen.verdicts[probe]["reason"]
        hold_to_verdict(probe, seen)


def test_a_backward_pass_that_fails_is_a_verdict() -> None:
    found = vizcnn.check(vizcnn.Model(Then(OneWay.apply, first=True), size=12))
    rows = {row[0]: row for row in found.rows}
    assert str(rows["saliency"][4]).startswith(
        "the network's backward pass fails: NotImplementedError: You must implement"
    )
    assert str(rows["saliency"][4]).endswith("Use occlusion or rise, which need no gradient")
    assert (rows["deconvnet"][1], rows["occlusion"][1]) == ("no", "yes")
    assert rows["cam"][1] == "yes"  # whose layer lies behind the failing part


def test_only_a_model_can_be_checked() -> None:
    network: Any = small_cnn()
    with pytest.raises(ParameterError, match="check needs a vizcnn.Model, got Sequential. Wrap a network"):
        vizcnn.check(network)


Pair = namedtuple("Pair", "boxes scores")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(1, 3), "tensor 1 x 3"),
        (torch.tensor(1.0), "tensor of one number"),
        ({"out": torch.zeros(1, 2, 4, 4), "n": 3}, "dict of out (tensor 1 x 2 x 4 x 4), n (int)"),
        ([{}, torch.zeros(2)], "list of dict of nothing, tensor 2"),
        (Pair(torch.zeros(1), None), "Pair of tensor 1, NoneType"),
        (Counter("a"), "Counter of a (int)"),
    ],
)
def test_a_structure_is_told_in_words(value: Any, words: str) -> None:
    assert describe_structure(value) == words

"""Bundled networks with other weights, and files that say of which bundled network they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vizcnn
from vizcnn.errors import ParameterError, WeightsError
from vizcnn.models.sources.bundled import CARD, read_card
from vizcnn.models.sources.bundled_networks import NETWORKS


def build(name: str, classes: int) -> nn.Module:
    """A bundled architecture with weights that are all 0.01."""
    network = NETWORKS[name](classes)
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(0.01)
    return network


def save_own(file: Path, name: str, classes: int, **changes: Any) -> Path:
    """A file with weights and a card, as `train_own` leaves it."""
    card = {"network": name, "input": read_card(name)["input"], "labels": [f"kind {i}" for i in range(classes)]}
    save_file(build(name, classes).state_dict(), file, {CARD: json.dumps(card | changes)})
    return file


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_bundled_network_takes_weights_of_a_file(name: str, ending: str, tmp_path: Path) -> None:
    usual = read_card(name)["labels"]
    for classes in (len(usual), 3):
        state, file = build(name, classes).state_dict(), tmp_path / f"{classes}.{ending}"
        save_file(state, file) if ending == "safetensors" else torch.save({"state_dict": state}, file)
        model = vizcnn.load(f"{name}@{file}")
        assert float(model.network.get_parameter("conv1.weight").flatten()[0].detach()) == pytest.approx(0.01)
        assert model.name == f"{name}@{classes}.{ending}"
        assert model.input == vizcnn.load(name).input
        assert model.labels == (tuple(usual) if classes == len(usual) else None)
    assert "inferred 3 classes" in model.notes[0]
    assert vizcnn.load(f"{name}@{file}", class_names=["a", "b", "c"]).labels == ("a", "b", "c")


def test_files_that_are_none_of_the_network_are_refused(tmp_path: Path) -> None:
    torch.save(build("simple", 10).state_dict(), tmp_path / "simple.pth")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    own = save_own(tmp_path / "own.safetensors", "simple", 3)
    for name, message in {
        "simple.pth": "the weights do not fit the architecture",
        "page.safetensors": "page.safetensors is no checkpoint",
        "missing.pth": "no weights file",
        "own.safetensors": f"the file holds weights of simple. Load it as simple@{own}",
    }.items():
        with pytest.raises(WeightsError, match=message):
            vizcnn.load(f"lecture@{tmp_path / name}")
    with pytest.raises(WeightsError, match="no weights tagged 'intial'. Did you mean 'initial'.*or a file ending in"):
        vizcnn.load("lecture@intial")
    with pytest.raises(ParameterError, match="lecture is not built for a number of classes"):
        vizcnn.load(f"lecture@{tmp_path / 'simple.pth'}", classes=3)


def test_a_file_with_a_card_is_a_network_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = {**read_card("simple")["input"], "fit": "stretch", "resize": None}
    file = save_own(tmp_path / "own.safetensors", "simple", 3, input=contract)
    by_file, by_name = vizcnn.load(str(file)), vizcnn.load(f"simple@{file}")
    (tmp_path / "vizcnn.toml").write_text('[models.mine]\nnetwork = "own.safetensors"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    by_table = vizcnn.load("mine")
    for model in (by_file, by_name, by_table):
        assert model.labels == ("kind 0", "kind 1", "kind 2")
        assert model.input.fit == "stretch"
        assert not model.notes
        assert model.weights_sha256() == by_file.weights_sha256()
    assert [model.name for model in (by_file, by_name, by_table)] == [
        "own.safetensors",
        "simple@own.safetensors",
        "mine",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "other"}, r"card that does not say its network \(of eleven, lecture, simple, tiny\), input and"),
        ({"network": ["simple"]}, "card that does not say its network"),
        ({"labels": None}, "card that does not say its network"),
        ({"labels": ["one", "two"]}, "names 2 classes and has weights for 3"),
        ({"input": {"side": 3}}, "no input contract that this version reads: 'size'"),
        ({"input": {"size": [28, 28], "colours": 1}}, "no input contract that this version reads"),
        ({"input": {"size": 28, "channels": 1, "std": [0]}}, "no input contract that this version reads"),
        ({"network": "lecture"}, "the weights do not fit the architecture"),
    ],
)
def test_damaged_cards_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = save_own(tmp_path / "own.safetensors", "simple", 3, **changes)
    with pytest.raises(WeightsError, match=message):
        vizcnn.load(str(file))

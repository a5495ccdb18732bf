"""Names of a person's own networks, in vizcnn.toml and pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import LayerNotFound, ModelNotFound, ParameterError
from vizcnn.models.sources.configured import list_configured

NET = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )
"""
BIRDS = """
[models.birds]
network = "./net.py:make"
weights = "best.pth"
input-size = [20, 24]
mean = [0.1, 0.2, 0.3]
class-names = "names.txt"
layer = "1"
head = "sigmoid-logits"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a network and its weights; we stand in a folder below it."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "names.txt").write_text("wren\nrobin\ncrow\n")
    (tmp_path / "vizcnn.toml").write_text(BIRDS)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    network = vizcnn.load("./net.py:make", input_size=20).network
    torch.save({name: value + 1 for name, value in network.state_dict().items()}, "best.pth")
    torch.save({name: value + 2 for name, value in network.state_dict().items()}, "other.pth")
    monkeypatch.chdir("below")
    return tmp_path


def test_a_name_gives_the_network_with_all_that_the_file_says() -> None:
    model, same = vizcnn.load("birds"), vizcnn.load("../net.py:make@../best.pth", input_size=20)
    assert model.weights_sha256() == same.weights_sha256()
    assert model.input.size == (20, 24)
    assert model.input.mean == (0.1, 0.2, 0.3)
    assert model.labels == ("wren", "robin", "crow")
    assert (model.name, model.head, model.default_layer) == ("birds", "sigmoid-logits", "1")


def test_what_is_said_at_the_call_goes_before_the_file() -> None:
    model = vizcnn.load("birds@../other.pth", input_size=16, class_names=["a", "b", "c"])
    other = vizcnn.load("../net.py:make@../other.pth", input_size=20)
    assert model.weights_sha256() == other.weights_sha256()
    assert (model.input.size, model.labels, model.name) == ((16, 16), ("a", "b", "c"), "birds@other.pth")


def test_probes_look_at_its_layer(photo_file: Path) -> None:
    answer = CliRunner().invoke(main, ["cam", str(photo_file), "-m", "birds", "-t", "crow", "-o", "a.npz"])
    assert answer.exit_code == 0, answer.output
    assert vizcnn.load_result("a.npz").provenance.details["layer"] == "1"
    model = vizcnn.load("birds")
    assert vizcnn.FeatureMaps()(model, photo_file).provenance.details["layers"] == "1"
    assert vizcnn.Cam(layer="0")(model, photo_file, target=0).provenance.details["layer"] == "0"
    with_layer = model.network_sha256()
    model.default_layer = "0"
    assert model.network_sha256() != with_layer  # or a folder of maps would be taken for one of the same call


def test_the_nearest_file_wins_and_both_kinds_of_files_are_read(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(
        '[tool.vizcnn.models.birds]\nnetwork = "tiny"\n[tool.vizcnn.models.mine]\nnetwork = "simple@initial"\n'
    )
    (folder / "below" / "vizcnn.toml").write_text('[tool.vizcnn.models.near]\nnetwork = "lecture"\n')
    found, problems = list_configured()
    assert [(each.name, each.file.name) for each in found] == [
        ("near", "vizcnn.toml"),
        ("birds", "vizcnn.toml"),
        ("mine", "pyproject.toml"),
    ]
    assert problems == ()
    assert vizcnn.load("mine").weights_sha256() == vizcnn.load("simple@initial").weights_sha256()
    assert vizcnn.load("near").name == "near"


def test_modules_of_factories_are_found_beside_the_file(folder: Path) -> None:
    (folder / "besides.py").write_text(NET)
    (folder / "vizcnn.toml").write_text('[models.a]\nnetwork = "besides:make"\ninput-size = 20\n')
    assert vizcnn.load("a").input.size == (20, 20)


@pytest.mark.parametrize(
    "network",
    ["./net.py:make@best.pth", "./net.py:make@./best.pth#0", "net:make@best.pth"],
    ids=["file", "part", "module"],
)
def test_weights_behind_an_at_are_relative_to_the_file(folder: Path, network: str) -> None:
    """Else another file of this name in the current folder would be taken without a word."""
    best = vizcnn.load("birds").network.state_dict()
    if "#" in network:
        torch.save([best], folder / "best.pth")
    torch.save(torch.load("../other.pth"), "best.pth")
    (folder / "vizcnn.toml").write_text(f'[models.a]\nnetwork = "{network}"\ninput-size = 20\n')
    assert vizcnn.load("a").network.state_dict()["0.bias"].tolist() == best["0.bias"].tolist()
    other = vizcnn.load("a@../other.pth").network.state_dict()
    assert other["0.bias"].tolist() == (best["0.bias"] + 1).tolist()


def test_a_misspelt_table_is_said(folder: Path) -> None:
    (folder / "vizcnn.toml").write_text('[model.owls]\nnetwork = "tiny"\n')
    (folder / "pyproject.toml").write_text('[tool.vizcnn.model.owls]\nnetwork = "tiny"\n[tool.other]\na = 1\n')
    with pytest.raises(ModelNotFound) as error:
        vizcnn.load("owls")
    for words in (
        r"vizcnn.toml has an unknown table [model]. Networks stand under [models.NAME]",
        r"pyproject.toml has an unknown table [tool.vizcnn.model]. Networks stand under [tool.vizcnn.models.NAME]",
    ):
        assert words in str(error.value)
    assert "tool.other" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('network = "tiny"\nweights = 5', "models.a of .*, weights: a text is needed, got 5"),
        (
            'network = "simple@initial"\nweights = "best.pth"',
            "names weights twice, 'best.pth' and behind the @ of 'simple@initial'. Leave one out",
        ),
        ('network = "tiny"\ninput_size = 3', "has an unknown key 'input_size'. Did you mean 'input-size'?"),
        ('network = "tiny"\ninput-size = "x"', "models.a of .*vizcnn.toml, input-size: an input size is a side in px"),
        ('network = "tiny"\nantialias = 1', "antialias: true or false is needed, got 1"),
        ('network = "tiny"\nhead = "logit"', "models.a of .*vizcnn.toml: .*logit"),
        ('network = "tiny"\ntrust-pickle = true', "unknown key 'trust-pickle'"),
        ("mean = [1]", "names no network. Give it one, such as network ="),
        ('network = "tiny"\nmean = [0.5]', "models.a of .*: mean and std need 3 values"),
        ('network = "./nothing.py:make"', "models.a of .*: no file .*nothing.py"),
        ('network = "resnet19"', "models.a of .*: no model named 'resnet19'. Did you mean 'resnet1"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(folder: Path, text: str, message: str) -> None:
    (folder / "vizcnn.toml").write_text(f"[models.a]\n{text}\n")
    with pytest.raises((ParameterError, ModelNotFound), match=message):
        vizcnn.load("a")


def test_a_layer_that_is_not_there(folder: Path) -> None:
    (folder / "vizcnn.toml").write_text('[models.a]\nnetwork = "tiny"\nlayer = "layer9"\n')
    with pytest.raises(LayerNotFound, match="models.a of .*no layer named 'layer9' in tiny. Did you mean 'layer"):
        vizcnn.load("a")


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_a_name_that_everybody_knows_stays_what_it_is(folder: Path, name: str) -> None:
    """Else a file in a folder above would silently change what a command explains."""
    (folder / "vizcnn.toml").write_text(f'[models.{name}]\nnetwork = "lecture"\n')
    with pytest.raises(
        ModelNotFound, match="has the name of a network that comes with vizcnn or torchvision, so it is"
    ):
        vizcnn.load(name)


def test_a_damaged_file_hinders_only_names_that_may_be_in_it(folder: Path) -> None:
    (folder / "below" / "pyproject.toml").write_text("[tool.vizcnn")
    assert vizcnn.load("birds").name == "birds"
    assert vizcnn.load("tiny").name == "tiny"
    with pytest.raises(ModelNotFound, match="no model named 'bird'. Did you mean 'birds'?.*below/pyproject.toml can"):
        vizcnn.load("bird")

"""What a person says of a network beside its name: size, mean, std, names, channels and classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import ModelNotFound, ParameterError
from vizcnn.models.given import read_names, read_numbers, read_size

NET = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
def nothing(): return None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "names.txt").write_text("cat\ndog\nfox\n")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "right"), [(224, (224, 224)), ("224", (224, 224)), ("224x320", (224, 320)), ([3, 4], (3, 4))]
)
def test_sizes(given: Any, right: tuple[int, int]) -> None:
    assert read_size(given) == right


@pytest.mark.parametrize("given", ["", "x", "224x", "0", "-3", "3,4", 0, 2.5, True, (1, 2, 3), (1.0, 2), None])
def test_what_is_no_size(given: Any) -> None:
    with pytest.raises(ParameterError, match="an input size is a side in px, such as 224, or HEIGHTxWIDTH"):
        read_size(given)


def test_numbers_per_channel() -> None:
    assert read_numbers("mean", "0.5, .25,1") == read_numbers("mean", [0.5, 0.25, 1]) == (0.5, 0.25, 1.0)
    for wrong in ("a", "0.5,,1", 0.5, [None]):
        with pytest.raises(ParameterError, match="std is a number for each channel, such as"):
            read_numbers("std", wrong)


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nfox",
        "\ufeffcat\r\ndog\r\nfox\r\n\r\n",
        '["cat", "dog", "fox"]',
        '{"2": "fox", "0": "cat", "1": "dog"}',
        '{"fox": 2, "cat": 0, "dog": 1}',
        '{"model_type": "resnet", "id2label": {"0": "cat", "1": "dog", "2": "fox"}}',
    ],
)
def test_files_of_class_names(folder: Path, text: str) -> None:
    (folder / "names").write_bytes(text.encode())
    assert read_names("names") == read_names(folder / "names") == ("cat", "dog", "fox")


def test_class_names_in_python() -> None:
    assert read_names(["a", "b"]) == read_names({1: "b", 0: "a"}) == ("a", "b")
    for wrong in ([], ["a", ""], [1, 2], {0: "a", 2: "b"}, {}, {"a": 0, "b": 0}, {"a": "b"}):
        with pytest.raises(
            ParameterError, match="names of classes are a list of texts|labels (as a mapping go|number the|give class)"
        ):
            read_names(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\n\ndog", "names has no name of a class on line 2. Give every class one"),
        ("", "names has no name of a class on line 1"),
        ('{"0": "cat", "2": "dog"}', "labels number the classes from 0 without gaps, got none for 1 among 2"),
    ],
)
def test_files_that_name_no_classes(folder: Path, text: str, message: str) -> None:
    (folder / "names").write_text(text)
    with pytest.raises(ParameterError, match=message):
        read_names("names")
    with pytest.raises(ParameterError, match="names of classes cannot be read from missing: No such file"):
        read_names("missing")


def test_what_is_given_goes_before_a_networks_own_contract() -> None:
    own, model = vizcnn.load("tiny"), vizcnn.load("tiny", input_size="32x48", mean="0,0.5,1", std=[1, 2, 4])
    contract = model.provenance()["input"]
    assert contract["size"] == (32, 48)
    assert contract["mean"] == (0, 0.5, 1)
    assert contract["std"] == (1, 2, 4)
    assert own.provenance()["input"]["size"] == (64, 64)
    images = torch.rand(1, 3, 32, 48)
    inputs = (images - torch.tensor([0, 0.5, 1]).view(1, 3, 1, 1)) / torch.tensor([1.0, 2, 4]).view(1, 3, 1, 1)
    torch.testing.assert_close(model(images), own.network(inputs))


def test_the_part_of_a_photograph_that_is_cut_out_is_the_same_at_another_size() -> None:
    """Of 256 px, 224 are seen: at half the size 112 of 128."""
    model = vizcnn.load("squeezenet1_1@random", input_size=112)
    assert (model.input.size, model.input.resize) == ((112, 112), 128)


def test_numbers_that_do_not_fit_the_channels_are_refused() -> None:
    with pytest.raises(ParameterError, match="mean and std need 3 values"):
        vizcnn.load("tiny", mean=(0.5, 0.5))


def test_architectures_are_built_for_other_channels_and_classes() -> None:
    for name in ("squeezenet1_1", "googlenet"):  # which turns RGB inside, if they are RGB
        model = vizcnn.load(f"{name}@random", input_channels=1, classes=3)
        assert model(torch.rand(2, 1, 64, 64)).shape == (2, 3)
        assert model.labels is None
        assert model.notes == (
            f"{name}@random: mean and std are known for RGB only, so that its images stay in [0, 1]",
        )
    assert vizcnn.load("squeezenet1_1@random", input_channels=1, mean=[0.5], std=[0.5]).notes == ()


def test_networks_that_exist_are_not_built_anew() -> None:
    with pytest.raises(ParameterError, match="published weights of resnet18 are for 3 channels and 1000 classes, and"):
        vizcnn.load("resnet18", classes=7)
    with pytest.raises(ParameterError, match="tiny takes 3 channels, and input-channels 1 was given"):
        vizcnn.load("tiny", input_channels=1)
    for spec in ("tiny", "./net.py:make"):
        with pytest.raises(ParameterError, match=f"classes 7 was given, and {spec} is not built for a number of"):
            vizcnn.load(spec, classes=7, input_size=20)


def test_numbers_that_the_weights_of_a_file_contradict_are_refused(folder: Path) -> None:
    network = vizcnn.load("squeezenet1_1@random", classes=3).network
    torch.save(network.state_dict(), folder / "three.pth")
    message = "the weights of squeezenet1_1@three.pth are for 3 channels and 3 classes, and 3 and 5 were given. Leave"
    with pytest.raises(ParameterError, match=message):
        vizcnn.load("squeezenet1_1@three.pth", classes=5)
    with pytest.raises(ParameterError, match="for 3 channels and 3 classes, and 1 and 3 were given. Leave these out"):
        vizcnn.load("squeezenet1_1@three.pth", input_channels=1)
    model = vizcnn.load("squeezenet1_1@three.pth", classes=3, input_channels=3)
    assert model.weights_sha256() == vizcnn.Model(network, size=224).weights_sha256()


def test_a_factory_may_return_a_plain_network(folder: Path) -> None:
    model = vizcnn.load("./net.py:make", input_size=(20, 30), mean=[0.5] * 3, std=[0.25] * 3, class_names="names.txt")
    images = torch.rand(2, 3, 20, 30)
    torch.testing.assert_close(model(images), model.network((images - 0.5) / 0.25))
    assert model.labels == ("cat", "dog", "fox")
    assert (model.name, model.notes) == ("./net.py:make", ())
    bare = vizcnn.load("./net.py:make", input_size=20)
    assert bare.notes == ("./net.py:make: pixels in [0, 1] go in as they are, since neither mean nor std was given",)
    torch.save({f"module.{name}": value for name, value in model.network.state_dict().items()}, folder / "a.pth")
    assert vizcnn.load("./net.py:make@a.pth", input_size=20).weights_sha256() == model.weights_sha256()
    with pytest.raises(ModelNotFound, match="returned Sequential, not a vizcnn.Model: .* Give --input-size 224"):
        vizcnn.load("./net.py:make")
    with pytest.raises(ModelNotFound, match="returned NoneType, neither a vizcnn.Model nor an nn.Module"):
        vizcnn.load("./net.py:nothing", input_size=20)


def test_the_command_line_and_python_say_the_same(photo_file: Path) -> None:
    options = "-m ./net.py:make --input-size 24x32 --mean 0.1,0.2,0.3 --std 1,2,3 --class-names names.txt -t dog"
    answer = CliRunner().invoke(main, ["cam", str(photo_file), *options.split(), "-o", "a.npz", "--json"])
    assert answer.exit_code == 0, answer.output
    found = vizcnn.load_result("a.npz")
    model = vizcnn.load(
        "./net.py:make", input_size="24x32", mean=[0.1, 0.2, 0.3], std=(1, 2, 3), class_names=["cat", "dog", "fox"]
    )
    again = vizcnn.Cam()(model, photo_file, target="dog")
    assert found.values.tolist() == again.values.tolist()  # type: ignore[attr-defined]
    assert json.dumps(found.provenance.input) == json.dumps(again.provenance.input)
    assert json.loads(answer.output)["results"][0]["provenance"]["input"]["size"] == [24, 32]
    assert found.provenance.network_sha256 == again.provenance.network_sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input-size", "3x"], "an input size is a side in px"),
        (["--mean", "a"], "mean is a number for each channel"),
        (["--classes", "0"], "0 is not in the range"),
    ],
)
def test_misuse_is_told_before_anything_is_loaded(options: list[str], message: str) -> None:
    answer = CliRunner().invoke(main, ["cam", "photo.png", *options])
    assert answer.exit_code == 2
    assert message in " ".join(answer.output.split())


def test_scans_take_them_too(photo_file: Path) -> None:
    options = "-m ./net.py:make --input-size 24 -o index --loaders 0 -q"
    answer = CliRunner().invoke(main, ["scan", str(photo_file), *options.split()])
    assert answer.exit_code == 0, answer.output
    found = vizcnn.TopImages().answer(vizcnn.Index.open("index"), ["0:0"])
    assert [*found.provenance.input["size"]] == [24, 24]

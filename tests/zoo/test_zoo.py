from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vizcnn
from vizcnn import zoo
from vizcnn.errors import OutputError
from vizcnn.models.sources import bundled_networks as networks
from vizcnn.zoo import train_mnist, train_tiny


def test_the_bundled_networks_have_complete_cards() -> None:
    assert zoo.list_names() == ["eleven", "lecture", "simple", "tiny"]
    readme = (zoo.FOLDER / "README.md").read_text()
    for name in zoo.list_names():
        card = zoo.read_card(name)
        assert {"architecture", "input", "labels", "accuracy", "data", "licence", "reproduce"} <= set(card)
        assert f"`{name}`" in readme
        assert f"{card['accuracy']['top1']:.2f}%" in readme, "the card for people states another accuracy"


@pytest.mark.parametrize(
    ("name", "bytes_at_most", "top1", "top5"), [("tiny", 6_500_000, 60, 83), ("eleven", 2_000_000, 45, 70)]
)
def test_the_networks_for_photographs_are_small_and_good(
    name: str, bytes_at_most: int, top1: float, top5: float
) -> None:
    card = zoo.read_card(name)
    assert (zoo.FOLDER / f"{name}.safetensors").stat().st_size <= bytes_at_most
    assert len(set(card["labels"])) == 202
    assert card["accuracy"]["top1"] >= top1
    assert card["accuracy"]["top5"] >= top5
    assert card["training"][-1]["top1"] == pytest.approx(card["accuracy"]["top1"], abs=0.5)


@pytest.mark.parametrize(("name", "kernels"), [("tiny", (32, 3, 7, 7)), ("eleven", (96, 3, 11, 11))])
def test_every_filter_of_the_first_layer_is_worth_looking_at(name: str, kernels: tuple[int, ...]) -> None:
    weight = vizcnn.load(name).network.get_parameter("conv1.weight")
    norms = weight.flatten(1).norm(dim=1)  # (filters,)
    assert weight.shape == kernels
    assert norms.min() >= norms.median() / 10


def test_every_unit_of_the_bundled_networks_can_be_hooked() -> None:
    """Each ReLU is a module of its own, called once, and none works in place."""
    for name in zoo.list_names():
        model = vizcnn.load(name)
        calls: list[str] = []
        relus = {n: m for n, m in model.layers().items() if isinstance(m, torch.nn.ReLU)}
        handles = [m.register_forward_hook(lambda *_, n=n, calls=calls: calls.append(n)) for n, m in relus.items()]
        model(torch.rand(1, model.input.channels, *model.input.size))
        for handle in handles:
            handle.remove()
        assert sorted(calls) == sorted(relus)
        assert not any(relu.inplace for relu in relus.values())


@pytest.mark.parametrize("name", ["lecture", "simple"])
def test_the_stated_accuracy_on_digits_is_the_shipped_files(data: Path, name: str) -> None:
    images, labels = train_mnist.read_digits(data / "mnist", "t10k")
    stated = zoo.read_card(name)["accuracy"]["top1"]
    assert stated >= 98.9
    assert train_mnist.accuracy(vizcnn.load(name).network, images, labels) == pytest.approx(stated, abs=0.02)
    assert train_mnist.accuracy(vizcnn.load(f"{name}@initial").network, images, labels) < 30


def test_the_stated_accuracy_on_photographs_is_the_shipped_files(data: Path) -> None:
    val = train_tiny.validation_split(train_tiny.read_archive(data / "tiny-imagenet-200.tar.xz"))
    for name in train_tiny.RECIPES:
        stated = zoo.read_card(name)["accuracy"]
        top1, top5 = train_tiny.accuracy(vizcnn.load(name).network, val)
        assert top1 == pytest.approx(stated["top1"], abs=0.05)
        assert top5 == pytest.approx(stated["top5"], abs=0.05)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """300 random digits in MNIST's own format."""
    random = np.random.default_rng(0)
    for part in ("train", "t10k"):
        for kind, header, count in (("images-idx3", 16, 300 * 784), ("labels-idx1", 8, 300)):
            values = random.integers(0, 10, count, dtype=np.uint8).tobytes()
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(bytes(header) + values))
    return tmp_path


def test_digit_training_goes_on_where_it_stopped(digits: Path, tmp_path: Path) -> None:
    images, labels = train_mnist.read_digits(digits, "train")
    finished = []
    for folder, stops in ((tmp_path / "a", 1), (tmp_path / "b", 2)):
        folder.mkdir()
        for _ in range(stops):
            run = train_mnist.Run("simple", folder, 2)
            for _ in range(2 // stops):
                run.train_epoch(images, labels)
        finished.append(run)
    assert finished[0].epoch == finished[1].epoch == 2
    for one, other in zip(finished[0].average.parameters(), finished[1].average.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("architecture", "places"), [(networks.Tiny, "layer4"), (networks.Eleven, "relu5")])
def test_the_last_map_of_a_network_for_photographs_has_8_by_8_places(
    architecture: type[torch.nn.Module], places: str
) -> None:
    """So that class activation maps have detail; they are exact, because only an average stands before `fc`."""
    network = architecture().eval()
    maps: list[torch.Tensor] = []
    network.get_submodule(places).register_forward_hook(lambda *seen: maps.append(seen[-1]))
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 64))
        assert maps[0].shape[2:] == (8, 8)
        torch.testing.assert_close(network.get_submodule("fc")(maps[0].mean((2, 3))), logits)


def shorten(network: str, *epochs: int) -> train_tiny.Recipe:
    """The recipe of a network with one cycle for each of these numbers of epochs, each like one of its own."""
    own = train_tiny.RECIPES[network].cycles
    cycles = tuple(replace(own[min(i, len(own) - 1)], epochs=each) for i, each in enumerate(epochs))
    return replace(train_tiny.RECIPES[network], cycles=cycles, batch=10)


def test_the_learning_rate_ends_each_cycle_at_zero() -> None:
    cycle, before = train_tiny.RECIPES["tiny"].find_cycle(50)
    assert (cycle.epochs, before) == (12, 2)
    rates = [cycle.find_lr(epoch / 10) for epoch in range(121)]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(cycle.peak_lr)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    with pytest.raises(IndexError, match="no epoch 63"):
        train_tiny.RECIPES["tiny"].find_cycle(63)


@pytest.mark.parametrize("network", ["eleven", "tiny"])
def test_photograph_training_goes_on_where_it_stopped(archive: Path, tmp_path: Path, network: str) -> None:
    members = train_tiny.read_archive(archive)
    train, val = train_tiny.training_split(members), train_tiny.validation_split(members)
    assert train_tiny.read_classes(members) == (["n2", "n1"], ["lemon", "tabby"])
    assert train.images.shape == (20, 3, 64, 64)
    assert val.labels.tolist() == [1, 0, 1, 0]
    finished = []
    recipe = shorten(network, 1, 1)
    for folder, stops in ((tmp_path / "a", 1), (tmp_path / "b", 2)):
        folder.mkdir()
        for _ in range(stops):
            run = train_tiny.Run(recipe, folder, 2)
            for _ in range(2 // stops):
                run.train_epoch(train, val)
        finished.append(run)
    for one, other in zip(finished[0].average.parameters(), finished[1].average.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert [row["size"] for row in finished[1].log] == [cycle.sizes[0][1] for cycle in recipe.cycles]
    assert all(0 <= row["top1"] <= row["top5"] == 100 for row in finished[1].log)  # of two classes
    with pytest.raises(SystemExit, match="made with another recipe"):
        train_tiny.Run(replace(recipe, seed=3), tmp_path / "a", 2)


@pytest.mark.parametrize("network", ["eleven", "tiny"])
def test_training_never_shuts_a_filter_of_the_first_layer(archive: Path, tmp_path: Path, network: str) -> None:
    """What scales their channels stays one, so all of them go on learning."""
    members = train_tiny.read_archive(archive)
    train, val = train_tiny.training_split(members), train_tiny.validation_split(members)
    run = train_tiny.Run(shorten(network, 1), tmp_path, 2)
    before = run.network.get_parameter("conv1.weight").clone()
    run.train_epoch(train, val)
    assert bool((run.average.get_parameter("bn1.weight") == 1).all())
    assert bool((run.average.get_parameter("conv1.weight") != before).flatten(1).any(1).all())


def test_a_decayed_filter_begins_again_as_a_mirror_image() -> None:
    torch.manual_seed(0)
    pair = [networks.Tiny(2), networks.Tiny(2)]
    states = [network.state_dict() for network in pair]  # views of their values
    for state in states:
        kernels = state["conv1.weight"]  # (32, 3, 7, 7)
        kernels += kernels.flip(3).clone()
        kernels[7, :, :, :3] = 3  # the only one that its mirror image is unlike
        kernels[5] /= 1000
        state["bn1.running_mean"].copy_(torch.arange(32))
    before = [state["conv1.weight"].clone() for state in states]
    assert train_tiny.revive_filters(*pair) == 1
    others = [i for i in range(32) if i != 5]
    for state, was in zip(states, before, strict=True):
        assert torch.equal(state["conv1.weight"][5], was[7].flip(2))
        assert torch.equal(state["conv1.weight"][others], was[others])
        assert state["bn1.running_mean"][[5, 7]].tolist() == [7, 7]
    assert train_tiny.revive_filters(*pair) == 0


def test_a_cycle_may_begin_with_that(archive: Path, tmp_path: Path) -> None:
    members = train_tiny.read_archive(archive)
    train, val = train_tiny.training_split(members), train_tiny.validation_split(members)
    run = train_tiny.Run(shorten("tiny", 1, 1, 1), tmp_path, 2)
    assert [cycle.revive for cycle in run.recipe.cycles] == [False, False, True]
    for network in (run.network, run.average):
        network.state_dict()["conv1.weight"][5] = 0
    smallest = []
    for _ in range(3):
        run.train_epoch(train, val)
        smallest.append(float(run.average.state_dict()["conv1.weight"].flatten(1).norm(dim=1)[5]))
    assert smallest[1] < 0.1 < smallest[2]


class Unnormalised(torch.nn.Module):
    """A network that treats each image by itself, however a batch is shared."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 4, 8, 8), torch.nn.GroupNorm(2, 4)
        self.fc = torch.nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.bn1(self.conv1(x)).relu().mean((2, 3)))  # (N, classes)
        return logits


def test_workers_share_a_batch_and_not_its_gradient(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(train_tiny.ARCHITECTURES, "tiny", Unnormalised)
    monkeypatch.setattr(train_tiny, "augment", lambda images, *_: train_tiny.normalise(images))
    members = train_tiny.read_archive(archive)
    train, val = train_tiny.training_split(members), train_tiny.validation_split(members)
    runs = []
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        recipe = replace(shorten("tiny", 1), batch=5, workers=workers)
        runs.append(train_tiny.Run(recipe, tmp_path / str(workers), 2))
        runs[-1].train_epoch(train, val)
    assert runs[0].log[0]["loss"] == pytest.approx(runs[1].log[0]["loss"], abs=0.01)
    for one, shared in zip(runs[0].network.parameters(), runs[1].network.parameters(), strict=True):
        torch.testing.assert_close(one, shared, rtol=0.02, atol=2e-3)


def test_digit_training_keeps_what_it_is_told_to(digits: Path, tmp_path: Path) -> None:
    """300 digits are three steps: kept are the start, each second step, and the end; training is none the wiser."""
    images, labels = train_mnist.read_digits(digits, "train")
    runs = []
    for folder, keep in ((tmp_path / "kept", 2), (tmp_path / "plain", 0)):
        folder.mkdir()
        run = train_mnist.Run("simple", folder, 1, keep)
        run.train_epoch(images, labels)
        runs.append(run)
    assert [file.name for file in sorted((tmp_path / "plain").iterdir())] == ["checkpoint.pth"]
    kept = sorted(file.name for file in (tmp_path / "kept").glob("simple-*"))
    assert kept == ["simple-00000.safetensors", "simple-00002.safetensors", "simple-00003.safetensors"]
    for file, network in ((kept[0], runs[1].initial), (kept[2], runs[1].network)):
        model = vizcnn.load(str(tmp_path / "kept" / file))
        assert model.labels == tuple("0123456789")
        assert model.input == vizcnn.load("simple").input
        for name, value in network.state_dict().items():
            assert torch.equal(model.network.state_dict()[name], value)


def test_digit_training_leaves_a_foreign_file_alone(digits: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "simple-00000.safetensors"
    foreign.write_bytes((zoo.FOLDER / "simple.safetensors").read_bytes())
    before = foreign.read_bytes()
    with pytest.raises(OutputError, match="exists and is not of vizcnn.zoo.train_mnist; it was left alone"):
        train_mnist.Run("simple", tmp_path, 1, 2).train_epoch(*train_mnist.read_digits(digits, "train"))
    assert foreign.read_bytes() == before

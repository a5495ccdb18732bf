"""Weights of checkpoints get into the network that they belong to; what was done is said, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import vizcnn
from vizcnn.errors import WeightsError
from vizcnn.models import _torchvision
from vizcnn.models.architectures import Architecture, Filled, build_filled
from vizcnn.models.fitting import fill_network


class Net(nn.Module):
    """A convolution, a norm and a head, for any number of classes and channels."""

    def __init__(self, classes: int = 10, channels: int = 3, blocks: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4))
        self.blocks = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(blocks)))
        self.head = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


State = dict[str, Any]


def drawn(seed: int, **options: int) -> State:
    torch.manual_seed(seed)
    state = Net(**options).state_dict()
    return {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in state.items()}


def save(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "a.pth")
    return folder / "a.pth"


def fill(content: Any, folder: Path, part: str = "", network: nn.Module | None = None) -> tuple[State, tuple[str, ...]]:
    network = network or Net()
    notes = fill_network(network, f"{save(content, folder)}{part}", "mine")
    return network.state_dict(), notes


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name].float(), value.float()) for name, value in other.items())


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


WEIGHTS, OTHER = drawn(1), drawn(2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WEIGHTS, None),
        ({"net": WEIGHTS, "epoch": 3}, "weights found under 'net'"),
        (prefixed("_orig_mod.module.", WEIGHTS), "weights found without the prefix '_orig_mod.module.'"),
        (
            {"state_dict": {**prefixed("model.", WEIGHTS), "loss.weight": torch.ones(2)}, "lr": 0.1},
            "weights found under 'state_dict' without the prefix 'model.'; ignored loss.weight",
        ),
        ({**WEIGHTS, "n.stem.num_batches_tracked": torch.tensor(1)}, "ignored n.stem.num_batches_tracked"),
        ({**WEIGHTS, "stem.0.total_ops": torch.zeros(1)}, "ignored stem.0.total_ops"),
        ({k.replace("stem.", "stem.module."): v for k, v in WEIGHTS.items()},
         "weights found without the wrappers inside its names"),
        ({k: v for k, v in WEIGHTS.items() if "num_batches" not in k}, None),
    ],
)  # fmt: skip
def test_weights_are_found_and_a_line_says_where(content: Any, said: str | None, tmp_path: Path) -> None:
    found, notes = fill(content, tmp_path)
    assert notes == ((f"mine: {said}",) if said else ())
    assert same(found, {k: v for k, v in WEIGHTS.items() if "num_batches" not in k})


def test_weights_in_half_precision_fill_a_network_in_full_precision(tmp_path: Path) -> None:
    half = {name: value.half() for name, value in WEIGHTS.items()}
    found, _ = fill(half, tmp_path)
    assert found["head.bias"].dtype == torch.float32
    assert same(found, half)
    model = built(half, tmp_path).network
    assert same(model.state_dict(), half)
    assert model.state_dict()["head.bias"].dtype == torch.float32


def test_averaged_models_lose_their_wrapper(tmp_path: Path) -> None:
    network = Net()
    found, notes = fill(AveragedModel(network).state_dict(), tmp_path)
    assert same(found, network.state_dict())
    assert notes == ("mine: weights found without the prefix 'module.'; ignored n_averaged",)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda network: nn.ModuleDict({"model": network})])
def test_networks_whose_own_names_carry_a_prefix(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    """Of their own checkpoint, of that of the network inside, and of one held elsewhere."""
    for number, prefix in enumerate(("", "net.", "module.", "model.")):
        weights = drawn(number)
        network = wrap(Net())
        _, notes = fill(prefixed(prefix, weights), tmp_path, network=network)
        assert same(next(iter(network.children())).state_dict(), weights), prefix
        own = f"{next(network.named_children())[0]}."
        assert notes == () if prefix == own else "without the prefix" in notes[0] or f"with {own!r} before" in notes[0]


def test_of_several_sets_of_weights_the_plain_one_is_taken_and_the_other_is_named(tmp_path: Path) -> None:
    content = {"model_ema": {"module": OTHER}, "model": WEIGHTS}
    found, notes = fill(content, tmp_path)
    assert same(found, WEIGHTS)
    file = tmp_path / "a.pth"
    assert notes == (
        f"mine: weights found under 'model'; 'model_ema.module' fits too ({file}#model_ema.module takes it)",
    )
    for part in ("#model_ema", "#model_ema.module"):
        assert same(fill(content, tmp_path, part)[0], OTHER)
    assert same(fill({"model_ema": OTHER}, tmp_path)[0], OTHER)  # the only one
    assert same(fill({"a": WEIGHTS, "b": {k: v.clone() for k, v in WEIGHTS.items()}}, tmp_path)[0], WEIGHTS)  # the same


@pytest.mark.parametrize(
    "content",
    [{"last": WEIGHTS, "best": OTHER}, {"last": WEIGHTS, "best": prefixed("module.", OTHER), "ema": drawn(3)}],
)
def test_where_nothing_decides_between_sets_of_weights_the_person_must(content: State, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="mine: several sets of weights in the file fit: 'last', 'best.*Say which, as"
    ):
        fill(content, tmp_path)
    assert same(fill(content, tmp_path, "#last")[0], WEIGHTS)
    assert same(fill(content, tmp_path, "#best")[0], OTHER)


def test_prefixes_of_several_networks_in_one_state_dict(tmp_path: Path) -> None:
    content = {**prefixed("student.", WEIGHTS), **prefixed("teacher.", OTHER)}
    with pytest.raises(WeightsError, match="several sets of weights in the file fit: 'student', 'teacher'"):
        fill(content, tmp_path)
    found, notes = fill(content, tmp_path, "#teacher")
    assert same(found, OTHER)
    assert "ignored student.stem.0.weight" in notes[0]
    both = {**WEIGHTS, **prefixed("ema.", OTHER)}  # the first fits as it stands
    found, notes = fill(both, tmp_path)
    assert same(found, WEIGHTS)
    assert "ignored ema.stem.0.weight" in notes[0]
    assert same(fill(both, tmp_path, "#ema")[0], OTHER)


def test_weights_that_are_the_file_itself_come_first(tmp_path: Path) -> None:
    found, notes = fill({**WEIGHTS, "best": OTHER}, tmp_path)
    assert same(found, WEIGHTS)
    assert notes == (f"mine: 'best' fits too ({tmp_path / 'a.pth'}#best takes it)",)
    assert same(fill({**WEIGHTS, "best": OTHER}, tmp_path, "#best")[0], OTHER)


def test_other_networks_in_the_file_are_named_and_optimizers_are_not(tmp_path: Path) -> None:
    network = Net()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {
        "generator": WEIGHTS, "discriminator": nn.Conv2d(1, 1, 1).state_dict(), "opt": optimizer.state_dict(),
        "schedules": [{"best": torch.tensor(0.5)}], "mean": torch.ones(3),
    }  # fmt: skip
    found, notes = fill(content, tmp_path)
    assert same(found, WEIGHTS)
    assert notes == ("mine: weights found under 'generator'; ignored mean, all of 'discriminator'",)


def test_a_part_that_is_not_there_and_a_file_with_a_hash_in_its_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of the network named 'emma'. It has model, ema"):
        fill({"model": WEIGHTS, "ema": OTHER}, tmp_path, "#emma")
    torch.save(WEIGHTS, tmp_path / "run#ema.pth")
    network = Net()
    fill_network(network, tmp_path / "run#ema.pth", "mine")
    assert same(network.state_dict(), WEIGHTS)


def without(*names: str) -> State:
    return {name: value for name, value in WEIGHTS.items() if name not in names}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("head.bias"), r"the weights do not fit the architecture. missing: head.bias. Name the architecture"),
        (
            {"state_dict": prefixed("model.", {**without("head.weight", "head.bias"), "fc.w": torch.ones(1)})},
            r"the weights under 'state_dict.model' do not .* missing: head.weight, head.bias; left over: fc.w. Name",
        ),
        (
            drawn(1, blocks=4),  # the smaller network is complete in the larger one
            "left over: blocks.1.weight, blocks.1.bias, blocks.2.weight, blocks.2.bias and 2 more. Name",
        ),
        ({**WEIGHTS, "head.scale": torch.ones(1)}, "left over: head.scale. Name"),
        (
            {**WEIGHTS, "head.weight": torch.ones(10, 5)},
            r"head.weight is \(10, 5\) in the file and \(10, 4\) in the network",
        ),
        (
            {"a": {"encoder.kernel": torch.ones(1)}},
            "which has none of their names. The file has under 'a' encoder.kernel; the network has stem.0.weight, stem",
        ),
        (
            {**WEIGHTS, "head.bias": WEIGHTS["head.bias"] * 1j},
            "'head.bias' holds complex numbers, and the network takes",
        ),
        (
            {**WEIGHTS, "head.weight": torch.ones(10, 4, dtype=torch.int8)},
            r"'head.weight' holds quantized numbers \(torch.int8\), and the network takes real ones",
        ),
    ],
)
def test_what_does_not_fit_is_listed_by_name(content: State, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        fill(content, tmp_path)
    assert str(caught.value).startswith("mine: the weights")


def test_the_truncated_network_of_a_longer_sequence_is_another_one(tmp_path: Path) -> None:
    longer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="left over: 2.weight, 2.bias"):
        fill(longer.state_dict(), tmp_path, network=longer[:2])


def test_buffers_that_the_network_makes_itself_may_be_left_over(tmp_path: Path) -> None:
    network = Net()
    network.head.register_buffer("positions", torch.arange(4), persistent=False)
    _, notes = fill({**WEIGHTS, "head.positions": torch.zeros(4)}, tmp_path, network=network)
    assert notes == ("mine: ignored head.positions",)
    assert network.head.positions.tolist() == [0, 1, 2, 3]  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_names_that_torch_translates_itself_are_left_to_torch(tmp_path: Path) -> None:
    """The old weight norm's names, for the new one, behind a prefix."""
    old, new = nn.utils.weight_norm(nn.Linear(2, 3)), parametrizations.weight_norm(nn.Linear(2, 3))
    fill(prefixed("model.", old.state_dict()), tmp_path, network=new)
    image = torch.rand(4, 2)
    torch.testing.assert_close(new(image), old(image))


def build(classes: int, channels: int) -> nn.Module:
    return Net(classes, channels)


def built(content: State, folder: Path, **options: Any) -> Filled:
    return build_filled(Architecture([build], classes=10), save(content, folder), "net@a.pth", **options)


@pytest.mark.parametrize(("classes", "channels"), [(10, 3), (3, 3), (1, 3), (10, 1), (1000, 5), (3, 4)])
@pytest.mark.parametrize("prefix", ["", "model.module."])
def test_numbers_of_classes_and_channels_are_inferred(prefix: str, classes: int, channels: int, tmp_path: Path) -> None:
    weights = drawn(7, classes=classes, channels=channels)
    found = built({"state_dict": prefixed(prefix, weights)}, tmp_path)
    assert (found.classes, found.channels) == (classes, channels)
    assert same(found.network.state_dict(), weights)
    assert found.network(torch.zeros(1, channels, 8, 8)).shape == (1, classes)
    assert not any(value.is_meta for value in found.network.state_dict().values())
    told = [f"{classes} class{'es' * (classes != 1)}"] * (classes != 10)
    told += [f"{channels} input channel{'s' * (channels != 1)}"] * (channels != 3)
    assert (f"inferred {' and '.join(told)}" in found.notes[0]) if told else "inferred" not in found.notes[0]


def test_sizes_that_contradict_each_other_infer_nothing(tmp_path: Path) -> None:
    weights = {**drawn(1, classes=3), "head.bias": torch.ones(4)}
    with pytest.raises(WeightsError, match=r"head.weight is \(3, 4\) in the file and \(10, 4\) in the network"):
        built(weights, tmp_path)


def test_an_absurd_number_of_classes_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "head.weight": torch.zeros(2**40, 0), "head.bias": torch.zeros(2**40, 0)}
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        built(weights, tmp_path)


def test_the_first_variant_that_fits_is_built(tmp_path: Path) -> None:
    variants = [lambda classes, channels, n=n: Net(classes, channels, blocks=n) for n in (3, 2, 1)]
    for blocks in (1, 2, 3):
        file = save(drawn(1, classes=5, blocks=blocks), tmp_path)
        found = build_filled(Architecture(variants, classes=10), file, "net")
        assert len(found.network.blocks) == blocks  # type: ignore[arg-type]


def test_torchvision_networks_say_their_classes_channels_and_normalisation(tmp_path: Path) -> None:
    network = _torchvision.import_models().squeezenet1_1(num_classes=3)
    network.features[0] = nn.Conv2d(1, 64, 3, stride=2)
    torch.save({"state_dict": prefixed("model.", network.state_dict())}, tmp_path / "a.ckpt")
    model = vizcnn.load(f"squeezenet1_1@{tmp_path / 'a.ckpt'}")
    assert (model.input.channels, model.input.mean, model.labels) == (1, (0.0,), None)
    assert model.notes == (
        "squeezenet1_1@a.ckpt: weights found under 'state_dict' without the prefix 'model.'; inferred 3 classes and 1 "
        "input channel",
        "squeezenet1_1@a.ckpt: mean and std are known for RGB only, so that its images stay in [0, 1]",
    )
    image = torch.rand(2, 1, 64, 64)
    assert torch.allclose(model(image), network.eval()(image), atol=1e-5)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_networks_that_ask_for_a_version_of_their_names(ending: str, tmp_path: Path) -> None:
    """torchvision's MNASNet refuses weights without one, which safetensors do not keep."""
    state = _torchvision.import_models().mnasnet0_5(num_classes=5).state_dict()
    file = tmp_path / f"a.{ending}"
    torch.save({"state_dict": state}, file) if ending == "pth" else save_file(state, file)
    assert same(vizcnn.load(f"mnasnet0_5@{file}").network.state_dict(), state)


FACTORY = """
import vizcnn
from torch import nn
def network(): return vizcnn.Model(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 2)), size=4)
"""


def test_factories_get_notes_and_trust(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    spec = f"{tmp_path}/mine.py:network"
    whole = vizcnn.load(spec).network
    torch.save(prefixed("module.", whole.state_dict()), tmp_path / "a.pth")
    assert vizcnn.load(f"{spec}@{tmp_path / 'a.pth'}").notes == (
        f"{spec}@a.pth: weights found without the prefix 'module.'",
    )
    with torch.no_grad():
        whole.get_parameter("0.bias").fill_(7)
    torch.save(whole, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="is a whole pickled network"):
        vizcnn.load(f"{spec}@{tmp_path / 'whole.pt'}")
    model = vizcnn.load(f"{spec}@{tmp_path / 'whole.pt'}", trust_pickle=True)
    assert model.network.state_dict()["0.bias"].tolist() == [7, 7]

"""Cascading randomization: on copies, from the last layer to the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, LayerNotFound, ParameterError, UnsuitableNetwork
from vizcnn.evaluation import randomize

SIZE = (24, 24)
IMAGE = picture(SIZE)
Maps = npt.NDArray[np.float64]


def make_model(network: Any = None) -> vizcnn.Model:
    return vizcnn.Model(network or small_cnn(), size=SIZE, name="net")


def take_gradient(model: vizcnn.Model) -> Tensor:
    image = IMAGE.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(model(image)[0, 2], image)
    return slopes.abs().sum(1)


def draw_edges(_: vizcnn.Model) -> Maps:
    found: Maps = np.hypot(*np.gradient(IMAGE[0].mean(0).numpy()))
    return found


def test_layers_become_random_from_the_last_to_the_first_and_stay_so() -> None:
    network, seen = small_cnn(), []

    def look(model: vizcnn.Model) -> Tensor:
        seen.append({name: value.clone() for name, value in model.network.state_dict().items()})
        return take_gradient(model)

    found = randomize(make_model(network), look, progress=False)
    assert found.provenance.options == {"layers": ("7", "3", "0")}
    np.testing.assert_array_equal(found.x, [0, 1, 2, 3])
    assert found.lines[0, 0] == 1
    assert found.lines[0, -1] < 0.9
    before = network.state_dict()
    for step, weights in enumerate(seen):
        changed = {name.partition(".")[0] for name, value in weights.items() if not torch.equal(value, before[name])}
        assert changed == set(["7", "3", "0"][:step])
    for name, value in seen[-1].items():  # about the size that they had
        if value.dim() > 1:
            assert 0.7 < float(value.std() / before[name].std()) < 1.4
    assert found.describe().splitlines()[1] == f"likeness {found.lines[0, 3]:.2f} when all 3 are"


def test_a_map_that_knows_no_network_stays_as_it_is() -> None:
    np.testing.assert_allclose(randomize(make_model(), draw_edges, progress=False).lines, 1)


def test_the_network_is_left_as_it_was() -> None:
    network = small_cnn().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()

    def spoil(model: vizcnn.Model) -> Tensor:
        assert model.network is not network
        model.network.register_forward_hook(lambda *_: None)
        return take_gradient(model)

    randomize(make_model(network), spoil, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not network._forward_hooks
    assert torch.equal(state, torch.get_rng_state())


def test_seeds_repeat_the_curve_and_layers_choose_its_steps() -> None:
    one, same, other = (randomize(make_model(), take_gradient, seed=s, progress=False).lines for s in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert randomize(make_model(), take_gradient, layers=["3"], progress=False).lines.shape == (1, 2)


class Odd(nn.Module):
    """Weights of its own, registration against the order of runs, attention, a norm, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 5)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.BatchNorm2d(6)
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.again = nn.Conv2d(6, 6, 1)
        self.tied = nn.Conv2d(6, 6, 1)
        self.tied.weight = self.again.weight
        self.place = nn.Parameter(torch.randn(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)) + self.place
        x = self.tied(self.again(x)).flatten(2).transpose(1, 2)  # (N, T, 6)
        out: Tensor = self.head(self.attention(x, x, x)[0].mean(1))
        return out


def test_odd_networks_forget_each_of_their_weights_once() -> None:
    torch.manual_seed(0)
    network, last = Odd(), dict[str, Tensor]()

    def look(model: vizcnn.Model) -> Tensor:
        last.update({name: value.clone() for name, value in model.network.named_parameters()})
        return take_gradient(model)

    found = randomize(make_model(network.eval()), look, progress=False)
    names = found.provenance.options["layers"]
    assert [name for name in names if "." not in name and " " not in name] == ["head", "tied", "again", "stem"]
    assert names[-1] == "the network's own weights"  # with what they hold that does not run by itself
    for name, value in network.named_parameters():
        constant = bool((value == value.flatten()[0]).all())
        assert torch.equal(last[name], value) == constant, name


def test_weights_that_two_layers_share_are_drawn_once() -> None:
    seen = list[Tensor]()

    def look(model: vizcnn.Model) -> Tensor:
        seen.append(model.network.again.weight.detach().clone())  # type: ignore[union-attr, operator]
        return take_gradient(model)

    randomize(make_model(Odd().eval()), look, layers=["tied", "again"], progress=False)
    before, tied, again = seen
    assert not torch.equal(before, tied)
    assert torch.equal(tied, again)


def test_a_step_without_a_map_is_a_gap() -> None:
    calls = []

    def fail(model: vizcnn.Model) -> Any:
        calls.append(model)
        if len(calls) == 3:
            raise DegenerateResult("no evidence")
        return np.zeros(SIZE) if len(calls) == 4 else take_gradient(model)

    found = randomize(make_model(), fail, progress=False)
    assert np.isnan(found.lines[0]).tolist() == [False, False, True, True]
    assert "no map after 3: no evidence" in found.findings
    assert any("no map after 0: the map is even all over" in one for one in found.findings)
    assert not any("nan" in one for one in found.findings)


def test_one_layer_is_spoken_of_once() -> None:
    (said,) = randomize(make_model(), take_gradient, layers=["0"], progress=False).findings
    assert said.endswith("when 0 alone is random")


def test_what_cannot_be_made_random_is_refused() -> None:
    with pytest.raises(UnsuitableNetwork, match="black box"):
        randomize(make_model(lambda x: x.mean((2, 3))), draw_edges)
    with pytest.raises(ParameterError, match="no weights"):
        randomize(make_model(nn.Flatten()), draw_edges)
    with pytest.raises(ParameterError, match="'1' has no weights"):
        randomize(make_model(), draw_edges, layers=["1"])
    with pytest.raises(ParameterError, match="layers are a list of names"):
        randomize(make_model(), draw_edges, layers=[])
    with pytest.raises(ParameterError, match="seed must be"):
        randomize(make_model(), draw_edges, seed=-1)
    with pytest.raises(LayerNotFound):
        randomize(make_model(), draw_edges, layers=["conv"])
    with pytest.raises(ParameterError, match="explain is a function"):
        randomize(make_model(), draw_edges(make_model()))  # type: ignore[arg-type]
    with pytest.raises(DegenerateResult, match="even all over"):
        randomize(make_model(), lambda _: np.ones(SIZE))
    kept = small_cnn()
    kept.kept = torch.ones(1, requires_grad=True) * 2
    with pytest.raises(ParameterError, match="cannot be copied"):
        randomize(make_model(kept), draw_edges)

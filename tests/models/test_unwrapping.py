"""Compiled and parallel networks are looked at as if nobody had wrapped them, and stay wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import vizcnn
from vizcnn.errors import ParameterError

pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")  # of the compiler

runs = 0
"""How often compiled code has run."""


def count_runs(graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
    """A compiler for `torch.compile` that leaves everything as it is, but counts."""

    def run(*inputs: Any) -> Any:
        global runs
        runs += 1
        return graph.forward(*inputs)

    return run


def compiled(part: Any) -> Any:
    return torch.compile(part, backend=count_runs)


class Two(nn.Module):
    """The small network of the other tests, in two parts."""

    def __init__(self) -> None:
        super().__init__()
        parts = list(small_cnn())
        self.a, self.b = nn.Sequential(*parts[:3]), nn.Sequential(*parts[3:])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        return y


class CompiledForward(Two):
    """Written with a decorator before its forward."""

    @compiled
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        return y


def compile_forward(network: Two) -> Two:
    network.forward = compiled(network.forward)  # type: ignore[method-assign]
    return network


def change(network: Two, part: str, wrap: Callable[[Any], Any]) -> Two:
    setattr(network, part, wrap(getattr(network, part)))
    return network


def compile_in_place(network: Two, part: nn.Module) -> Two:
    part.compile(backend=count_runs)
    return network


def twice(network: Two) -> Two:
    return change(change(network, "a", compiled), "b", nn.DataParallel)


KINDS: dict[str, Callable[[Two], Any]] = {
    "parallel": nn.DataParallel,
    "distributed": DistributedDataParallel,
    "compiled": compiled,
    "compiled and distributed": lambda network: compiled(DistributedDataParallel(network)),
    "compiled in place": lambda network: compile_in_place(network, network),
    "a part compiled": lambda network: change(network, "b", compiled),
    "a part compiled in place": lambda network: compile_in_place(network, network.b),
    "a layer compiled in a parallel part": twice,
    "its forward compiled": compile_forward,
    "written with a compiled forward": lambda _: CompiledForward(),
}
PROBES: dict[str, Callable[[vizcnn.Model, Tensor], Any]] = {
    "cam": lambda model, images: vizcnn.Cam()(model, images, 1, progress=False).values,
    "feature-maps": lambda model, images: (
        vizcnn.FeatureMaps(layers=("a.1",))(model, images, progress=False).rows[0].panels[0].values
    ),
    "guided": lambda model, images: vizcnn.Saliency(method="guided-backprop")(model, images, 1, progress=False).values,
    "occlusion": lambda model, images: vizcnn.Occlusion(window=6, stride=4)(model, images, 1, progress=False).values,
    "a layer's unit": lambda model, images: vizcnn.Saliency()(model, images, "b.0:3", progress=False).values,
    "filters": lambda model, _: vizcnn.Filters(layer="b.0")(model, progress=False).rows[0].panels[0].values,
}


@pytest.fixture(scope="module", autouse=True)
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one process, without which there is no distributed network."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path_factory.mktemp('group') / 'meet'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def describe(network: nn.Module) -> list[Any]:
    """What may not change: which modules are where, their modes, hooks, and how they are called."""
    own = ("_compiled_call_impl", "forward")
    return [
        (name, id(module), module.training, len(module._forward_hooks), [vars(module).get(key) for key in own])
        for name, module in network.named_modules(remove_duplicate=False)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_network_is_answered_for_as_the_one_inside(kind: str) -> None:
    plain, images = vizcnn.Model(Two(), size=16), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    network = KINDS[kind](Two())
    model = vizcnn.Model(network, size=16)
    count = runs
    with torch.no_grad():
        network(images)  # its machine code is there before any hook is
    used = runs > count
    assert used <= ("compiled" in kind)  # torch 2.13 does not compile an nn.Sequential in place
    before = describe(network)
    assert list(model.layers()) == list(plain.layers())
    assert model.weights_sha256() == plain.weights_sha256()
    if "forward" not in kind:  # that is code of its own
        assert (model.name, model.network_sha256()) == ("Two", plain.network_sha256())
    for name, probe in PROBES.items():
        np.testing.assert_allclose(probe(model, images), probe(plain, images), rtol=1e-5, atol=1e-6, err_msg=name)
        assert describe(network) == before, name
    count = runs
    with torch.no_grad():
        network(images)
    assert (runs > count) == used, "compiled code is no longer used"


def test_a_network_that_is_compiled_after_it_was_given() -> None:
    network, images = Two(), torch.rand(1, 3, 16, 16)
    model = vizcnn.Model(network, size=16)
    expected = PROBES["feature-maps"](model, images)
    change(network, "a", compiled)
    network(images)
    np.testing.assert_array_equal(PROBES["feature-maps"](model, images), expected)
    assert "a.1" in model.layers()


def test_hooks_of_a_wrapper_are_not_dropped_silently() -> None:
    wrapper = nn.DataParallel(Two())
    wrapper.register_forward_hook(lambda *_: None)
    with pytest.raises(ParameterError, match=r"DataParallel around the network has hooks .* Register them on the netw"):
        vizcnn.Model(wrapper, size=16)


def test_a_sharded_network_is_refused() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    sharded = FullyShardedDataParallel.__new__(FullyShardedDataParallel)  # a real one needs an accelerator
    nn.Module.__init__(sharded)
    with pytest.raises(ParameterError, match=r"keeps a part of the weights on each process.*Gather the full state"):
        vizcnn.Model(sharded, size=16)


def test_a_network_with_a_part_called_module_keeps_its_names() -> None:
    network = nn.Module()
    network.module = small_cnn()
    network.forward = network.module.forward
    model = vizcnn.Model(network, size=16)
    assert "module.0" in model.layers()
    assert vizcnn.Cam(layer="module.3")(model, torch.rand(1, 3, 16, 16), 1, progress=False).values.shape[-1] == 16

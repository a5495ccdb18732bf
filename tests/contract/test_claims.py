"""What a probe says that it needs of a network is what it needs: on odd small networks each claim of `vizcnn check` is
held against a call of the probe."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import small_cnn
from support_networks import UNet, ask, build, hold_to_verdict, list_probes, wrap
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import UnsuitableNetwork
from vizcnn.probing import registry
from vizcnn.probing.checking import judge
from vizcnn.probing.facts import Facts

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning"),
]


class Altered(nn.Module):
    """The small network, with something done to what its convolutions give, or to its output."""

    def __init__(self, *, maps: Any = None, output: Any = None) -> None:
        super().__init__()
        self.inner, self.maps, self.output = small_cnn(), maps or (lambda x: x), output or (lambda x: x)

    def forward(self, x: Tensor) -> Any:
        return self.output(self.inner[5:](self.maps(self.inner[:5](x))))


def _fail(_: Tensor) -> Tensor:
    raise RuntimeError("this network fails on purpose")


def _make_dense() -> nn.Module:
    return build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 4)))


def _make_narrow() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.Flatten())


NETWORKS: dict[str, Callable[[], vizcnn.Model]] = {
    "usual": lambda: wrap(small_cnn(), 16),
    "random output": lambda: wrap(Altered(output=lambda y: y + torch.rand_like(y)), 16),
    "random maps": lambda: wrap(Altered(maps=lambda y: F.dropout(y, 0.5)), 16),
    "NaN": lambda: wrap(Altered(output=lambda y: y * torch.nan), 16),
    "fails": lambda: wrap(Altered(output=_fail), 16),
    "mixes images": lambda: wrap(Altered(output=lambda y: y - y.mean(0)), 16),
    "detached output": lambda: wrap(Altered(output=lambda y: y.detach()), 16),
    "detached maps": lambda: wrap(Altered(maps=lambda y: y.detach()), 16),
    "blind": lambda: wrap(Altered(maps=torch.zeros_like), 16),
    "no maps": lambda: wrap(_make_dense(), 16),
    "one position": lambda: wrap(build(_make_narrow), 16),
    "tanh": lambda: wrap(Altered(maps=torch.tanh), 16),
    "two outputs": lambda: wrap(Altered(output=lambda y: {"a": y, "b": y + 1}), 16),
    "text": lambda: wrap(Altered(output=type), 16),
    "a pixel's class": lambda: wrap(build(UNet), 16),
    "labels of another": lambda: wrap(small_cnn(), 16, labels=["a", "b"]),
    "double": lambda: wrap(small_cnn().double(), 16),
    "wide": lambda: wrap(small_cnn(), (16, 24)),
    "grey": lambda: wrap(small_cnn(channels=1), 16, channels=1),
}


@cache
def look(name: str) -> Any:
    return ask(NETWORKS[name]())


@pytest.mark.parametrize("probe", list_probes())
@pytest.mark.parametrize("name", NETWORKS)
def test_a_claim_is_true(name: str, probe: str) -> None:
    hold_to_verdict(probe, look(name))


WANTED: dict[str, dict[str, Any]] = {  # of the odd networks, what somebody who knows them would say
    "usual": {"no": 0, "yes": 15},
    "no maps": {"cam": "no", "feature-maps": "no", "filters": "no", "saliency": "yes", "layers": "yes"},
    "detached output": {"saliency": "no", "cam": "no", "occlusion": "yes", "rise": "yes", "dream": "yes"},
    "blind": {"saliency": "no", "occlusion": "no", "rise": "no", "filters": "yes"},
    "fails": {"occlusion": "no", "filters": "yes"},
    "random output": {"occlusion": "no", "saliency": "no", "feature-maps": "yes", "filters": "yes"},
    "two outputs": {"occlusion": "with a target", "dream": "yes"},
}


@pytest.mark.parametrize("name", WANTED)
def test_the_check_knows_what_somebody_knows(name: str) -> None:
    verdicts = look(name).verdicts
    for probe, wanted in WANTED[name].items():
        if isinstance(wanted, int):
            assert sum(each["works"] == probe for each in verdicts.values()) == wanted
        else:
            assert verdicts[probe]["works"] == wanted, verdicts[probe]
    for verdict in verdicts.values():
        assert bool(verdict["reason"]) == (verdict["works"] != "yes")


def test_a_probe_that_does_not_say_what_it_needs_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(vizcnn.Probe[vizcnn.Result]):
        """Says nothing."""

    monkeypatch.setattr(registry, "list_names", lambda: ["silent", "saliency", "nothing"])
    known = registry.get
    monkeypatch.setattr(registry, "get", lambda name: Silent if name == "silent" else known(name))
    rows = {row[0]: row for row in vizcnn.check(NETWORKS["usual"]()).rows}
    assert rows["silent"][1] == "not known"
    assert "Try it" in str(rows["silent"][4])
    assert rows["saliency"][1] == "yes"
    assert rows["nothing"][1] == "no"  # as a plugin that cannot be imported
    assert "no probe named 'nothing'" in str(rows["nothing"][4])


def test_a_third_partys_probe_states_a_need_in_a_line() -> None:
    from vizcnn.probing import require_slopes

    class Sharp(vizcnn.Probe[vizcnn.Result]):
        """Needs a gradient."""

        def rehearse(self, facts: Facts) -> str:
            return f"the slopes of {require_slopes(facts).score.numel()} score"

    def ask_of(name: str) -> Any:
        from vizcnn.inputs.tensors import to_photo
        from vizcnn.models.borrowing import borrow
        from vizcnn.probing.facts import observe

        model = NETWORKS[name]()
        image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        with borrow(model, "test"), torch.no_grad():
            return judge(Sharp(), observe(model, image, to_photo(image[0])))

    assert ask_of("usual").takes == "the slopes of 1 score"
    assert "has no gradient with respect to the pixels" in ask_of("detached output").reason


def test_a_network_that_no_probe_takes_is_one_error() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    with pytest.raises(UnsuitableNetwork, match="check on Sequential: layer '1' normalises with the statistics"):
        vizcnn.check(wrap(network, 16))

"""What was found out about a network is used again only where nothing that it depends on has changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, ParameterError
from vizcnn.models.kept_checks import make_key

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Noisy(nn.Module):
    """Random by as much as any of its many settings says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)
        self.plain, self.listed, self.config = 0.0, [0.0], SimpleNamespace(deep={"noise": 0.0})
        self.tensor = torch.zeros(1)
        self.hidden = [nn.Identity()]
        self.scale = partial(torch.mul, other=0.0)

        def count(*, noise: float = 0.0) -> float:
            return noise

        self.count = count
        self.register_buffer("buffer", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        size = (
            self.count()
            + self.plain
            + self.listed[0]
            + self.config.deep["noise"]
            + self.tensor
            + self.get_buffer("buffer")
        )
        noisy: Tensor = y + (size + self.scale(torch.ones(1))) * torch.rand_like(y)
        return noisy


def reload_code(network: Noisy) -> None:
    def forward(self: Noisy, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.conv(x).mean((2, 3)))
        return out + torch.rand_like(out)

    type(network).forward = forward  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[Noisy], Any]] = {
    "an attribute": lambda network: setattr(network, "plain", 5.0),
    "an item of a list": lambda network: network.listed.__setitem__(0, 5.0),
    "deep in a configuration": lambda network: network.config.deep.update(noise=5.0),
    "a tensor": lambda network: network.tensor.fill_(5.0),
    "a function's own default": lambda network: setattr(network.count, "__kwdefaults__", {"noise": 5.0}),
    "a partial function": lambda network: setattr(network, "scale", partial(torch.mul, other=5.0)),
    "a buffer that no file keeps": lambda network: network.get_buffer("buffer").fill_(5.0),
    "the code": reload_code,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("hidden", [True, False])
def test_a_network_that_has_become_random_is_refused(change: Callable[[Noisy], Any], hidden: bool) -> None:
    network = type("Own", (Noisy,), {})()
    if not hidden:
        network.hidden = []
    model = vizcnn.Model(network, size=16)
    assert (make_key(model, IMAGES, (), "digest") is None) == hidden  # a module that the digest does not see
    vizcnn.Saliency()(model, IMAGES, 0, progress=False)
    change(network)
    with pytest.raises(DegenerateResult, match="it is random"):
        vizcnn.Saliency()(model, IMAGES, 0, progress=False)


def test_a_function_whose_surroundings_are_not_known_yet_is_no_fault() -> None:
    def use_later() -> Any:
        return later

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.helper = use_later  # type: ignore[assignment]
    model = vizcnn.Model(network, size=16)
    assert make_key(model, IMAGES, (), "digest") is None
    later = 1
    assert make_key(model, IMAGES, (), "digest") is not None
    assert use_later() == later


class Positive(nn.Module):
    """Outputs of which only the values show what they are, between 0 and 1 for dark images only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        nn.init.uniform_(self.conv.weight, 0, 0.07, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.conv(x).mean((2, 3)) * 2) - 0.9


DARK, BRIGHT = torch.full((1, 3, 16, 16), 0.02), torch.full((1, 3, 16, 16), 0.9)


def test_what_outputs_are_is_said_of_the_images_at_hand() -> None:
    model = vizcnn.Model(Positive(), size=16, labels=list("abcde"))
    said = [vizcnn.Saliency()(model, image, 0, progress=False).meanings for image in (DARK, BRIGHT)]
    assert [" score " in meaning for (meaning,) in said] == [True, False]
    assert " logit " in said[1][0]


@pytest.mark.filterwarnings("ignore:the target of Positive is a probability")
@pytest.mark.parametrize("images", [BRIGHT, torch.cat([DARK, BRIGHT, DARK])])
def test_a_head_that_the_outputs_contradict_is_refused_also_later(images: Tensor) -> None:
    model = vizcnn.Model(Positive(), size=16, labels=list("abcde"), head="sigmoid")
    vizcnn.Saliency()(model, DARK, 0, progress=False)
    with pytest.raises(ParameterError, match="head is said to be sigmoid, but its outputs are"):
        vizcnn.Saliency()(model, images, 0, progress=False)

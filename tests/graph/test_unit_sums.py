"""Units number by number, of all sites, against what plain hooks read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support import enliven, picture
from support_sites import make_varied, read_by_hooks
from torch import Tensor, nn

import vizcnn
from vizcnn.graph.arithmetic import compute_unit, read_site
from vizcnn.graph.sites import find_sites


@pytest.mark.parametrize("name", ["varied", "tiny", "densenet121@random"])
def test_a_unit_by_hand_is_what_a_hook_reads(name: str) -> None:
    model = make_varied() if name == "varied" else vizcnn.load(name)
    image = picture(model.input.size if name != "densenet121@random" else (32, 32), model.input.channels).to(
        model.dtype
    )
    sites, random = find_sites(model, (image.shape[2], image.shape[3])), torch.Generator().manual_seed(0)
    truth = read_by_hooks(model, image, sites.sites[:20])
    near = 1e-9 if model.dtype == torch.float64 else 2e-3
    for site in sites.sites[:20]:
        channels, *sides = (*site.shape, 1, 1)[:3]
        with model.borrowed():
            values = read_site(sites, site, image)
            for _ in range(6):
                channel, y, x = (int(torch.randint(side, (), generator=random)) for side in (channels, *sides))
                found = compute_unit(sites, site, values, channel, (y, x))
                given = torch.as_tensor(truth[site.name]).reshape(channels, *sides)[channel, y, x]
                assert found.after == pytest.approx(float(given), abs=near, rel=near), site.name
                added = sum(addend.value for addend in found.addends)
                assert found.before == pytest.approx(added + found.bias)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(2, 3), groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 3, (5, 3), padding="same", dilation=2),
        nn.Conv2d(4, 3, 3, padding=(2, 1), padding_mode="replicate"),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)),
    ],
    ids=["all options", "depthwise", "same", "padded with the edge", "weight norm"],
)
def test_every_place_of_a_convolution_by_hand_is_what_torch_gives(conv: nn.Conv2d) -> None:
    network = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.Tanh(), nn.Conv2d(conv.out_channels, 1, 1))
    image = picture((9, 8), 4).double()
    enliven(network.double(), image)
    model = vizcnn.Model(network, size=(9, 8), channels=4, mean=[0] * 4, std=[1] * 4)
    with torch.no_grad():
        given = torch.tanh(network[1](network[0](image)))[0]
    sites = find_sites(model)
    site = sites.sites[0]
    assert site.shape == given.shape
    with model.borrowed():
        values = read_site(sites, site, image)
        channel = conv.out_channels - 1
        for y in range(given.shape[1]):
            for x in range(given.shape[2]):
                found = compute_unit(sites, site, values, channel, (y, x))
                assert found.after == pytest.approx(float(given[channel, y, x]), abs=1e-12)


class Shortcut(nn.Module):
    """Adds what it reads to a convolution of it, which stands second; its last layer reads this beside the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        out: Tensor = self.last(torch.cat([x, self.relu(x + self.conv(x))], 1)).mean((2, 3))
        return out


def test_what_has_weights_comes_first_and_the_activation_is_of_the_sum_by_hand() -> None:
    model, image = vizcnn.Model(Shortcut(), size=6), picture((6, 6))
    sites = find_sites(model)
    site = next(site for site in sites.sites if site.name == "conv")
    with model.borrowed():
        values = read_site(sites, site, image)
        found = compute_unit(sites, site, values, 2, (3, 4))
        assert [addend.layer for addend in found.addends] == ["conv", ""]
        assert found.addends[1].reads == ("stem:2",)
        assert found.addends[1].value == pytest.approx(float(values.reads[site.paths[0].layer == "conv"][0, 2, 3, 4]))
        other = compute_unit(sites, site, replace(values, before=values.before - 100), 2, (3, 4))
    assert other.after == found.after == max(found.before, 0)


def test_what_a_unit_reads_of_joined_maps_is_called_as_in_its_own() -> None:
    model, image = vizcnn.Model(Shortcut(), size=6), picture((6, 6))
    sites = find_sites(model)
    site = next(site for site in sites.sites if site.name == "last")
    with model.borrowed():
        (addend,) = compute_unit(sites, site, read_site(sites, site, image), 0, (1, 1)).addends
    assert addend.reads == (*(f"stem:{k}" for k in range(4)), *(f"conv:{k}" for k in range(4)))


class Beside(nn.Module):
    """The larger of two convolutions leads to other channels than the shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.large, self.small = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.relu, self.last = nn.ReLU(), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        out: Tensor = self.last(self.relu(torch.cat([self.large(x), x + self.small(x)], 1))).mean((2, 3))
        return out


def test_weights_come_first_also_where_the_main_path_leads_elsewhere() -> None:
    model, image = vizcnn.Model(Beside(), size=6), picture((6, 6))
    sites = find_sites(model)
    site = next(site for site in sites.sites if site.name == "large")
    with model.borrowed():
        found = compute_unit(sites, site, read_site(sites, site, image), 5, (1, 1))
    assert [addend.layer for addend in found.addends] == ["small", ""]

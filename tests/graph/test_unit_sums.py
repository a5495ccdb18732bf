"""Units number by number, of all sites, against what plain hooks read."""

from __future__ import annotations

import pytest
import torch
from support import picture
from support_sites import make_varied, read_by_hooks

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

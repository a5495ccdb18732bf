"""Sums by hand, number by number, against what plain hooks read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import picture
from support_sites import make_varied, read_by_hooks

import vizcnn
from vizcnn.anatomy.by_hand import explain_missing, read_by_hand
from vizcnn.graph.sites import find_sites

ACTIVATE = {"": lambda x: x, "relu": F.relu, "relu6": F.relu6, "silu": F.silu}


@pytest.mark.parametrize("name", ["varied", "tiny", "lecture"])
def test_terms_applied_to_what_they_read_give_what_the_site_gives(name: str) -> None:
    model = make_varied() if name == "varied" else vizcnn.load(name)
    images = picture(model.input.size, model.input.channels, 2).to(model.dtype)
    sites = find_sites(model)
    truth = read_by_hooks(model, images, sites.sites)
    for site in sites.sites:
        with model.borrowed():
            found = read_by_hand(model, sites, site, images)
        np.testing.assert_allclose(found.says, truth[site.name], rtol=1e-5, atol=1e-5)
        total = torch.zeros(2, *site.shape, *(1,) * (3 - len(site.shape)))
        for term, read in zip(found.terms, found.reads, strict=True):
            values = torch.from_numpy(read)
            if term is not None:
                weights, bias = torch.from_numpy(term.weights), torch.from_numpy(term.bias)
                values = F.conv2d(values, weights, bias, term.stride, term.padding, term.dilation, term.groups)
            total += values
        sums = ACTIVATE[site.activation](total).reshape(found.says.shape)
        np.testing.assert_allclose(sums, found.says, rtol=1e-3, atol=1e-3)


def test_a_plain_shortcut_has_no_term_and_a_scaled_one_has() -> None:
    sites = find_sites(vizcnn.load("tiny"))
    block = next(site for site in sites.sites if site.name == "layer1.0.conv2")
    with_identity = read_by_hand(vizcnn.load("tiny"), sites, block, picture((64, 64)))
    assert [term is None for term in with_identity.terms] == [False, True]
    dense = find_sites(vizcnn.load("densenet121@random", input_size=32))
    norm = next(site for site in dense.sites if site.read == "features.denseblock1.denselayer1.relu1")
    (term,) = read_by_hand(vizcnn.load("densenet121@random"), dense, norm, picture((32, 32))).terms
    assert term is not None
    assert (term.weights.shape, term.groups) == ((64, 1, 1, 1), 64)


def test_joined_channels_are_not_shown_by_hand() -> None:
    sites = find_sites(vizcnn.load("densenet121@random", input_size=32))
    joins = next(site for site in sites.sites if site.read == "features.denseblock1.denselayer2.relu1")
    assert explain_missing(joins) == "it joins the channels of several layers"
    assert explain_missing(sites.sites[0]) == ""

"""Links, against the convolution of one channel with one kernel, whose outputs are then counted; neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from support import enliven, picture
from support_sites import make_varied
from torch import Tensor

import vizcnn
from vizcnn.anatomy.links import list_feeds, list_reads, measure_links
from vizcnn.anatomy.neighbours import find_neighbours
from vizcnn.graph.paths import Path
from vizcnn.graph.running import run_graph
from vizcnn.graph.sites import find_sites


@pytest.fixture(scope="module")
def varied() -> Iterator[vizcnn.Model]:
    model = make_varied()
    with model.borrowed():
        yield model


def convolve_one(path: Path, read: Tensor, row: int, channel: int) -> Tensor:
    """What one channel adds to one unit through a path, at all places of all images; zero where it has no weight."""
    if path.weights is None:
        return read[:, channel] * (float(path.scale[row]) if row == channel else 0)
    weights = torch.from_numpy(path.fold())
    first = row // (len(weights) // path.groups) * weights.shape[1]
    if not first <= channel < first + weights.shape[1]:
        return torch.zeros(1)
    kernel = weights[row : row + 1, channel - first : channel - first + 1]
    maps = read.reshape(len(read), *path.shape)[:, channel : channel + 1]
    return F.conv2d(maps, kernel, None, path.stride, path.padding, path.dilation)


def test_links_are_the_deviations_of_what_is_added(varied: vizcnn.Model) -> None:
    sites, images = find_sites(varied), picture((40, 32), count=9).double()
    links = measure_links(varied, sites, images)
    assert sites.graph is not None
    values = {path.value for site in sites.sites for path in site.paths} | {site.before for site in sites.sites}
    with torch.no_grad():
        read = run_graph(sites.graph, images, values)
    for site, own in zip(sites.sites, links, strict=True):
        before = read[site.before].transpose(0, 1).flatten(1)
        np.testing.assert_allclose(own.deviation, before.std(1, correction=0), rtol=1e-5, atol=1e-6)
        assert len(own.paths) == len(site.paths)
        for path, link in zip(site.paths, own.paths, strict=True):
            rows, channels = len(path.scale), path.shape[0]
            assert link.deviation.shape == link.mean.shape == (rows, channels)
            for row in range(0, rows, 3):
                for channel in range(channels):
                    added = convolve_one(path, read[path.value], row, channel)
                    assert link.deviation[row, channel] == pytest.approx(
                        float(added.std(correction=0)), rel=1e-5, abs=1e-6
                    )
                    assert link.mean[row, channel] == pytest.approx(float(added.mean()), rel=1e-5, abs=1e-6)


def test_what_drives_a_unit_and_what_it_drives_are_the_same_links(varied: vizcnn.Model) -> None:
    sites, images = find_sites(varied), picture((40, 32), count=5).double()
    links = measure_links(varied, sites, images)
    names = [site.name for site in sites.sites]
    block = names.index("block1.conv2")
    reads = list_reads(sites, links, block, 5, 50)
    assert [link.deviation for link in reads] == sorted((link.deviation for link in reads), reverse=True)
    assert {(link.site, link.path) for link in reads} == {(names.index("block1.conv1"), 0), (names.index("stem"), 1)}
    assert {link.unit for link in reads if link.path == 1} == {5}  # a shortcut adds a unit to its own number
    assert {link.unit for link in reads if link.path == 0} == {4, 5, 6, 7}  # of two groups it is in the second
    for link in reads:
        assert link.site is not None
        back = [
            each
            for each in list_feeds(sites, links, link.site, link.unit, 500)
            if (each.site, each.unit, each.path) == (block, 5, link.path)
        ]
        assert len(back) == 1
        assert back[0].deviation == pytest.approx(link.deviation / links[block].deviation[5], rel=1e-5)
    assert list_reads(sites, links, 0, 1, 2)[0].site is None  # the image
    assert len(list_reads(sites, links, block, 5, 2)) == 2


def test_links_through_joined_channels() -> None:
    """In a DenseNet a norm reads what many layers gave, each through its own channels."""
    model = vizcnn.load("densenet121@random", input_size=32)
    enliven(model.network, picture((32, 32), count=4))
    sites = find_sites(model)
    with model.borrowed():
        links = measure_links(model, sites, picture((32, 32), count=4))
    number = next(i for i, s in enumerate(sites.sites) if s.read == "features.denseblock1.denselayer3.relu1")
    for unit, source, own in [(3, "features.conv0", 3), (70, "features.denseblock1.denselayer1.conv2", 6)]:
        (link,) = list_reads(sites, links, number, unit, 9)
        assert link.site is not None
        assert (sites.sites[link.site].name, link.unit) == (source, own)


def test_neighbours_are_the_highest_correlations() -> None:
    random = np.random.default_rng(0)
    means = [random.normal(size=(50, 6)).astype(np.float16), random.normal(size=(50, 9)).astype(np.float16)]
    means[1][:, 2] = means[0][:, 3] * 2 + 1  # of one mind
    means[1][:, 4] = 7  # the same for all images
    found = find_neighbours(means, 4)
    whole = np.concatenate(means, 1).astype(np.float64)
    alive = [i for i in range(15) if i != 10]
    r: npt.NDArray[np.float64] = np.asarray(np.corrcoef(whole[:, alive].T))
    np.fill_diagonal(r, -2)
    assert (found[0].sites[3, 0], found[0].units[3, 0]) == (1, 2)
    assert found[0].correlations[3, 0] == pytest.approx(1, abs=1e-3)
    assert found[1].sites[4].tolist() == [-1] * 4
    assert np.isnan(found[1].correlations[4]).all()
    for row, i in enumerate(alive):
        own, k = (found[0], i) if i < 6 else (found[1], i - 6)
        best = [alive[j] for j in np.argsort(-r[row])[:4]]
        assert [int(u) + 6 * int(s) for s, u in zip(own.sites[k], own.units[k], strict=True)] == best
        np.testing.assert_allclose(own.correlations[k], np.sort(r[row])[::-1][:4], atol=1e-5)


def test_neighbours_within_a_site_alone_and_of_no_images() -> None:
    means = [np.random.default_rng(0).normal(size=(20, 5)).astype(np.float16) for _ in range(2)]
    for i, own in enumerate(find_neighbours(means, 3, across=False)):
        assert (own.sites == i).all()
    (none,) = find_neighbours([np.zeros((0, 4), np.float16)], 3)
    assert (none.units == -1).all()

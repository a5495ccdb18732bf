"""Effects of units, against plain hooks that set one channel to zero in a full run; estimates against their formula."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import picture
from support_sites import make_varied, read_by_hooks
from torch import Tensor, nn

import vizcnn
from vizcnn.anatomy.effects import (
    Effects,
    Estimate,
    _choose_units,
    check_estimate,
    choose_images,
    estimate_effects,
    measure_effects,
)
from vizcnn.graph.sites import Site, Sites, find_sites

READABLE = ["block1.conv2", "block2.conv2", "left", "right", "narrow", "wide"]


@pytest.fixture(scope="module")
def varied() -> Iterator[vizcnn.Model]:
    model = make_varied()
    with model.borrowed():
        yield model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return picture((40, 32), count=7).double()


@pytest.fixture(scope="module")
def sites(varied: vizcnn.Model) -> Sites:
    return find_sites(varied)


CLASSES = np.array([0, 1, 2, 3, 4, 0, 1], np.int64)


def find(sites: Sites, name: str) -> Site:
    return next(site for site in sites.sites if site.name == name)


def run_without(model: vizcnn.Model, read: str, unit: int, images: Tensor) -> Tensor:
    """The output of full runs with a plain hook that sets a channel to zero, at a module's last call."""
    calls, last = [0], 2 if read.endswith(".relu") else 1

    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        calls[0] += 1
        return output.index_fill(1, torch.tensor([unit]), 0) if calls[0] == last else output

    handle = model.layer(read).register_forward_hook(hook)
    with torch.no_grad():
        output: Tensor = model(images)
    handle.remove()
    return output


@pytest.mark.parametrize("name", READABLE)
def test_effects_are_those_of_a_hook_in_a_full_run(
    varied: vizcnn.Model, sites: Sites, images: Tensor, name: str
) -> None:
    site = find(sites, name)
    order = list(range(site.shape[0]))[::-1]
    (found,) = measure_effects(varied, sites, [site], images, CLASSES, [order], seconds=60)
    assert found.units.tolist() == order
    assert found.images == 7
    with torch.no_grad():
        before = varied(images)
    rows, truth = np.arange(7), torch.from_numpy(CLASSES)
    assert found.before == pytest.approx(float((before.argmax(1) == truth).double().mean()))
    for u, unit in enumerate(order):
        after = run_without(varied, site.read, unit, images)
        change = (after - before)[rows, truth]
        assert found.change[u] == pytest.approx(float(change.mean()), abs=1e-12)
        assert found.flips[u] == int((after.argmax(1) != before.argmax(1)).sum())
        assert found.after[u] == pytest.approx(float((after.argmax(1) == truth).double().mean()))
        for c in range(5):
            assert found.by_class[u, c] == pytest.approx(float(change[truth == c].mean()), abs=1e-12)


def test_sites_share_the_time_and_have_at_least_one_unit_each(
    varied: vizcnn.Model, sites: Sites, images: Tensor
) -> None:
    wanted, orders = [find(sites, "stem"), find(sites, "fc1")], [[3, 1, 2], [6, 0]]
    measured = measure_effects(varied, sites, wanted, images, CLASSES, orders, seconds=0)
    assert [found.units.tolist() for found in measured] == [[3], [6]]
    measured = measure_effects(varied, sites, wanted, images, CLASSES, orders, seconds=60)
    assert [found.units.tolist() for found in measured] == orders
    together = measure_effects(varied, sites, wanted[:1], images, CLASSES, orders[:1], seconds=60)[0]
    np.testing.assert_array_equal(measured[0].change, together.change)  # sites leave each other alone


def test_what_cheap_sites_leave_over_goes_to_the_others() -> None:
    orders = [range(100), range(10), range(100)]
    assert [len(each) for each in _choose_units(orders, np.array([1.0, 0.5, 0.1]), 60.0)] == [45, 10, 100]
    assert [len(each) for each in _choose_units(orders, np.array([1.0, 0.5, 0.1]), -5.0)] == [1, 1, 1]


def test_estimates_are_minus_gradient_times_activation(varied: vizcnn.Model, sites: Sites, images: Tensor) -> None:
    """Against gradients of plain runs at the layers' outputs, and exact where the rest of the network is linear."""
    names = ["stem", "narrow", "wide", "fc1"]
    wanted = [find(sites, name) for name in names]
    found = estimate_effects(varied, sites, wanted, images, CLASSES)
    truth = read_by_hooks(varied, images, wanted)
    for site, estimate in zip(wanted, found, strict=True):
        if "(" in site.read:
            continue
        leaf = truth[site.name].clone().requires_grad_()
        handle = varied.layer(site.read).register_forward_hook(lambda _m, _i, _o, leaf=leaf: leaf)
        score = varied(images)[np.arange(7), CLASSES].sum()
        handle.remove()
        (gradient,) = torch.autograd.grad(score, leaf)
        expected = -(gradient * leaf.detach()).sum((0, 2, 3)) / 7
        np.testing.assert_allclose(estimate, expected.numpy(), atol=1e-12)
    last = find(sites, "fc1")  # behind it is one dense layer
    (measured,) = measure_effects(varied, sites, [last], images, CLASSES, [range(7)], seconds=60)
    np.testing.assert_allclose(found[names.index("fc1")], measured.change, atol=1e-12)


def test_an_estimate_stands_in_only_where_it_was_shown_to_agree() -> None:
    change = np.linspace(-1, 1, 40)

    def checked(measured: npt.NDArray[np.float64], estimated: npt.NDArray[np.float64] = change) -> Estimate:
        count = len(measured)
        none, no_flips = np.zeros(count), np.zeros(count, np.int64)
        effects = Effects(np.arange(count), 9, measured, no_flips, 1.0, none, no_flips, none, 1.0)
        return check_estimate(estimated, effects)

    noise = np.random.default_rng(0).normal(size=40)
    assert checked((change + 0.01 * noise)[:20]).is_good
    assert not checked((change + 0.01 * noise)[:19]).is_good  # too few
    assert not checked(change + 2 * noise).is_good  # agrees too little
    assert not checked(np.zeros(40)).is_good
    assert not checked(change, np.zeros(40)).is_good


def test_images_are_chosen_evenly_over_classes() -> None:
    classes = np.array([0, 0, 0, -1, 1, 2, 2, 1, 0])
    assert choose_images(classes, 3).tolist() == [0, 4, 5]
    assert choose_images(classes, 6).tolist() == [0, 1, 4, 5, 6, 7]
    assert choose_images(classes, 99).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]

"""Which names of a checkpoint are which of a network's: prefixes by one rule, whatever they are called."""

from __future__ import annotations

from itertools import product

import pytest

from vizcnn.models.renaming import find_renamings

OWN = ["conv1.weight", "bn1.weight", "bn1.num_batches_tracked", "head.0.weight", "head.0.bias"]


def read(names: list[str], own: list[str] = OWN) -> dict[str, str]:
    """The network's name for each of a checkpoint's that has one, by the best renaming."""
    best = find_renamings(names, own)[0]
    pairs = {name: best.rename(name) for name in names}
    return {name: new for name, new in pairs.items() if new is not None}


WRAPPERS = ["module", "_orig_mod", "model", "net", "backbone", "anything"]


@pytest.mark.parametrize("parts", [*product(WRAPPERS), *product(WRAPPERS, WRAPPERS)], ids=".".join)
def test_the_prefix_before_the_networks_own_names_is_taken_off(parts: tuple[str, ...]) -> None:
    prefix = ".".join(parts) + "."
    names = [prefix + name for name in OWN]
    assert read([*names, "criterion.weight"]) == dict(zip(names, OWN, strict=True))


@pytest.mark.parametrize("part", WRAPPERS)
def test_a_network_with_a_part_of_that_name_is_not_broken(part: str) -> None:
    """Its own names are found as they stand, behind the same prefix once more, and without it."""
    own = [f"{part}.{name}" for name in OWN]
    assert read(own, own) == dict(zip(own, own, strict=True))
    assert not find_renamings(own, own)[0].describe()
    twice = [f"{part}.{name}" for name in own]
    assert read(twice, own) == dict(zip(twice, own, strict=True))
    assert read(OWN, own) == dict(zip(OWN, own, strict=True))
    mixed = ["weight", f"{part}.weight"]  # only one of two is behind it
    assert read(mixed, mixed) == {name: name for name in mixed}


def test_wrappers_inside_names_are_taken_out_on_either_side() -> None:
    inside = [name.replace("head.", "head.module.").replace("conv1.", "conv1._orig_mod.") for name in OWN]
    assert read(inside) == dict(zip(inside, OWN, strict=True))
    assert read(OWN, inside) == dict(zip(OWN, inside, strict=True))
    behind = [f"model.{name}" for name in inside]
    assert read(behind) == dict(zip(behind, OWN, strict=True))


def test_names_that_wrappers_alone_tell_apart_keep_them() -> None:
    own = ["a.weight", "a.module.weight"]
    assert read(own, own) == dict(zip(own, own, strict=True))
    assert all(not each.inside for each in find_renamings(["x.a.weight"], own))


def test_all_prefixes_behind_which_the_network_is_complete_are_listed() -> None:
    names = [f"{prefix}.{name}" for prefix in ("student", "teacher") for name in OWN]
    renamings = find_renamings(names, OWN)
    assert [each.prefix for each in renamings] == ["student.", "teacher."]
    assert all(each.complete for each in renamings)


def test_counters_may_be_missing_and_nothing_else_may() -> None:
    assert find_renamings([name for name in OWN if "num_batches" not in name], OWN)[0].complete
    assert not find_renamings(OWN[1:], OWN)[0].complete
    assert find_renamings(["other.kernel"], OWN) == []

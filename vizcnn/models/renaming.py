"""Renaming: which names of a checkpoint are which of a network's.

Whoever trains in parallel, compiles or holds the network inside a larger module saves its weights under longer names:
`module.conv1.weight`, `_orig_mod.conv1.weight`, `model.conv1.weight`. No such prefix is known here by its name. The
prefix behind which the network's own names are found is taken off, and nothing is where they are found as they stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

COUNTERS = ("num_batches_tracked",)
"""Last parts of names whose values play no role outside training, so that they may be missing."""

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""What torch calls the network inside a parallel, compiled, sharded or checkpointed one."""


@dataclass(frozen=True)
class Renaming:
    """One way to read a checkpoint's names as a network's.

    prefix: what is taken off the names; those that begin otherwise belong to something else.
    added: what then comes before them, since all names of the network begin so.
    inside: for names in which wrappers stand between other parts, which of the network's names is which.
    found: how many of the network's names there are.
    complete: whether that is all of them but counters.
    """

    prefix: str = ""
    added: str = ""
    inside: dict[str, str] = field(default_factory=dict, hash=False)
    found: int = 0
    complete: bool = False

    @property
    def changes_nothing(self) -> bool:
        return not (self.prefix or self.added or self.inside)

    def rename(self, name: str) -> str | None:
        """The network's name for a name of the checkpoint; None for one of something else."""
        if self.inside:
            return self.inside.get(name)
        return self.added + name.removeprefix(self.prefix) if name.startswith(self.prefix) else None

    def describe(self) -> str:
        """What was done to the names, or ""."""
        if self.inside:
            return "without the wrappers inside its names"
        taken = f"without the prefix {self.prefix!r}" if self.prefix else ""
        return " and ".join(filter(None, [taken, f"with {self.added!r} before the names" if self.added else ""]))


def find_renamings(names: Collection[str], own: Collection[str]) -> list[Renaming]:
    """All ways to read a checkpoint's names as those of a network, `own`; the best one first.

    Where some give all of the network's names, no others are listed, and one that changes nothing is the first. Names
    with wrappers inside, such as `features.module.0.weight`, are read only where no prefix gives all. None where not
    one name is found.
    """
    found = list(_find_prefixes(names, own))
    if not any(each.complete for each in found):
        found += _look_behind_wrappers(names, own)
    found.sort(key=lambda each: (not each.complete, -each.found, len(each.added), len(each.prefix), bool(each.inside)))
    complete = [each for each in found if each.complete]
    return _drop_same(complete, names) if complete else found


def is_counter(name: str) -> bool:
    """Whether a name is that of a value which plays no role outside training."""
    return name.rpartition(".")[2] in COUNTERS


def _find_prefixes(names: Iterable[str], own: Collection[str]) -> Iterator[Renaming]:
    needed = sum(not is_counter(name) for name in own)
    for added in _list_common_beginnings(own):
        shorter = {name.removeprefix(added) for name in own}
        found: Counter[str] = Counter()
        essential: Counter[str] = Counter()
        for name in names:
            for start in _list_starts(name):
                if name[start:] in shorter:
                    found[name[:start]] += 1
                    essential[name[:start]] += not is_counter(name)
        for prefix, number in found.items():
            yield Renaming(prefix, added, {}, number, essential[prefix] == needed)


def _look_behind_wrappers(names: Collection[str], own: Collection[str]) -> list[Renaming]:
    """The renamings that a prefix gives once wrappers are taken out of all names, also of the network's."""
    theirs, ours = ({_drop_wrappers(name): name for name in each} for each in (names, own))
    if len(theirs) < len(names) or len(ours) < len(own) or (theirs.keys() == set(names) and ours.keys() == set(own)):
        return []  # two names would become one, or there is no wrapper
    return [
        Renaming(each.prefix, each.added, _pair(each, theirs, ours), each.found, each.complete)
        for each in _find_prefixes(theirs, ours)
    ]


def _pair(renaming: Renaming, theirs: dict[str, str], ours: dict[str, str]) -> dict[str, str]:
    """The network's name of each of the checkpoint's that has one. Both dicts lead to names with their wrappers."""
    pairs = {}
    for short, name in theirs.items():
        renamed = renaming.rename(short)
        if renamed is not None:
            pairs[name] = ours.get(renamed, renamed)
    return pairs


def _drop_same(renamings: Iterable[Renaming], names: Collection[str]) -> list[Renaming]:
    """The renamings without those that do the same as one before them."""
    different: dict[tuple[str | None, ...], Renaming] = {}
    for each in renamings:
        different.setdefault(tuple(map(each.rename, names)), each)
    return list(different.values())


def _drop_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _list_starts(name: str) -> Iterator[int]:
    """Where the parts of a dotted name begin."""
    yield 0
    yield from (i + 1 for i, letter in enumerate(name) if letter == ".")


def _list_common_beginnings(own: Collection[str]) -> list[str]:
    """The dotted beginnings that all names share, with their last dot; the empty one first."""
    first = min(own, default="")
    last = max(own, default="")  # of sorted strings, the first and the last share what all share
    starts = [start for start in _list_starts(first) if last.startswith(first[:start])]
    return [first[:start] for start in starts if len(first) > start]

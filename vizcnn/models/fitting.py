"""Fitting: the weights of a checkpoint, put into the network that they belong to.

A checkpoint may hold several state_dicts, and in each the network's names may stand behind prefixes. All ways to read
it are compared with the network: its names, its shapes, and what is left over. One that fits is taken; of several, the
one that is no average over training; and where that does not decide, the person must.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from vizcnn.errors import WeightsError
from vizcnn.models.checkpoints import StateDict, list_some, read_weights, split_part, take_first_line
from vizcnn.models.renaming import Renaming, find_renamings, is_counter

_AVERAGED = re.compile(r"(^|[._-])(ema|swa|avg|averaged?|shadow)([._-]|$)", re.IGNORECASE)
_OF_OPTIMIZER = re.compile(r"(^|\.)state\.\d+$")
_TALLIES = ("total_ops", "total_params")  # what profilers leave in the layers whose cost they have counted
_QUANTIZED = (torch.int8, torch.uint8)


def fill_network(network: nn.Module, file: str | Path, spec: str, *, trust_pickle: bool = False) -> tuple[str, ...]:
    """Put the weights of a checkpoint into a network, and give a line on what was taken and left out, if any.

    file: a checkpoint, or FILE#PART where several sets of weights in it fit. spec: the model's name, for messages.
    Raises WeightsError; the network may then hold a part of the weights.
    """
    path, part = split_part(str(file))
    states = read_weights(path, trust_pickle=trust_pickle)
    choice = choose_reading(states, lambda _: network, part, path, spec)
    left = choice.reading.fill(network, spec)
    return choice.describe(left, spec)


@dataclass(frozen=True, eq=False)
class Reading:
    """One state_dict of a checkpoint, read by one renaming, beside the network that it may belong to."""

    state: StateDict
    renaming: Renaming
    network: nn.Module

    @property
    def label(self) -> str:
        """How a person names it: the keys in the file, and the prefix."""
        return ".".join(filter(None, [self.state.place, self.renaming.prefix.removesuffix(".")]))

    @cached_property
    def own(self) -> dict[str, Tensor]:
        """The network's state_dict, as it was when it was first asked for."""
        own: dict[str, Tensor] = self.network.state_dict()
        return own

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the network's names, also those that the network does not have."""
        pairs = ((self.renaming.rename(name), value) for name, value in self.state.tensors.items())
        return {name: value for name, value in pairs if name is not None}

    @property
    def outside(self) -> list[str]:
        """The names of the state_dict that belong to something else than the network."""
        return [name for name in self.state.tensors if self.renaming.rename(name) is None]

    @cached_property
    def fits(self) -> bool:
        left = [name for name in self.tensors if name not in self.own]
        return self.renaming.complete and not self._list_misshapen() and not self._list_strange(left)

    def equals(self, other: Reading) -> bool:
        """Whether the network would get the same weights."""
        pairs = ((self.tensors[name], other.tensors[name]) for name in self.own if not is_counter(name))
        return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)

    def fill(self, network: nn.Module, spec: str, *, assign: bool = False) -> list[str]:
        """Load the tensors into a network, and list the names that are left over; assign: replace the network's own
        tensors. Raises WeightsError."""
        which = f" under {self.label!r}" if self.label else ""
        unfit = f"{spec}: the weights{which} do not fit the architecture"
        if problems := self._list_wrong_kinds() or self._list_misshapen():
            raise WeightsError(f"{unfit}: {list_some(problems)}")
        try:
            missing, left = network.load_state_dict(self._add_versions(), strict=False, assign=assign)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines()]
            reason = lines[1] if len(lines) > 1 else take_first_line(error)  # the first names the network's class
            raise WeightsError(f"{unfit}: {reason[:200]}") from error
        missing, strange = [name for name in missing if not is_counter(name)], self._list_strange(left)
        if missing or strange:
            lists = {"missing": missing, "left over": strange or (missing and [*left, *self.outside])}
            found = "; ".join(f"{word}: {list_some(names)}" for word, names in lists.items() if names)
            raise WeightsError(f"{unfit}. {found}. {_REMEDY}")
        return [*left, *self.outside]

    def _list_misshapen(self) -> list[str]:
        """A sentence for each tensor of another shape than the network's."""
        return [
            f"{name} is {tuple(value.shape)} in the file and {tuple(self.own[name].shape)} in the network"
            for name, value in self.tensors.items()
            if name in self.own and value.shape != self.own[name].shape
        ]

    def _list_strange(self, left: Iterable[str]) -> list[str]:
        """Those of the names left over that lie in parts which the network has: it is another one, mostly a larger one.

        Values without a role outside training, and buffers that the network makes itself, are not strange."""
        parts = {self._find_part(name) for name in self.own}
        made = {name for name, _ in self.network.named_buffers()}
        return [
            name
            for name in left
            if self._find_part(name) in parts
            and name not in made
            and not (is_counter(name) or name.rpartition(".")[2] in _TALLIES)
        ]

    def _find_part(self, name: str) -> str:
        """The outermost part of the network that a name lies in; all of an nn.Sequential are one."""
        part = name.removeprefix(self.renaming.added).partition(".")[0]
        return "0" if part.isdecimal() else part

    def _list_wrong_kinds(self) -> list[str]:
        """A sentence for each tensor of numbers that the network would take for others."""
        return [
            f"{name!r} holds {'complex numbers' if value.is_complex() else f'quantized numbers ({value.dtype})'}, and "
            "the network takes real ones there"
            for name, value in self.tensors.items()
            if name in self.own
            and self.own[name].is_floating_point()
            and (value.is_complex() or value.dtype in _QUANTIZED)
        ]

    def _add_versions(self) -> OrderedDict[str, Tensor]:
        """The tensors, with the versions of the modules' names as torch notes them.

        Formats such as safetensors keep none. Names that are exactly the network's are then of its own version.
        """
        noted = self.state.versions.items()
        renamed = ((self.renaming.rename(f"{name}." if name else ""), version) for name, version in noted)
        versions = {name.removesuffix("."): version for name, version in renamed if name is not None}
        if not versions and self.tensors.keys() == self.own.keys():
            versions = {name: facts.get("version") for name, facts in getattr(self.own, "_metadata", {}).items()}
        state = OrderedDict(self.tensors)
        if versions:
            state._metadata = {name: {"version": version} for name, version in versions.items()}  # type: ignore[attr-defined]
        return state


_REMEDY = "Name the architecture that they were saved from, or a function that builds it, as ./file.py:factory@FILE"


@dataclass(frozen=True)
class Choice:
    """The reading to take. others: those that fit as well. beside: what else holds weights in the file. path: of it."""

    reading: Reading
    others: Sequence[Reading]
    beside: Sequence[str]
    path: str

    def describe(self, left: Sequence[str], spec: str, inferred: Sequence[str] = ()) -> tuple[str, ...]:
        """A line on what was taken, inferred and left out; none where the file held the network's weights alone.

        left: names that the network does not have. inferred: what the weights told of the network."""
        place = f"under {self.reading.state.place!r}" if self.reading.state.place else ""
        found = " ".join(filter(None, [place, self.reading.renaming.describe()]))
        said = [f"weights found {found}"] * bool(found)
        said += [f"inferred {' and '.join(inferred)}"] * bool(inferred)
        ignored = [*left, *self.beside]
        said += [f"ignored {list_some(ignored)}"] * bool(ignored)
        said += [f"{each.label!r} fits too ({self.path}#{each.label} takes it)" for each in self.others]
        return (f"{spec}: {'; '.join(said)}",) if said else ()


def choose_reading(
    states: Sequence[StateDict], fit: Callable[[Mapping[str, Tensor]], nn.Module], part: str, path: str, spec: str
) -> Choice:
    """The way to read a checkpoint as weights of a network; where none fits, the one that comes nearest.

    fit: gives the network, for tensors by its names, whose shapes may tell its numbers of classes and channels.
    part: consider only what this names, if anything. path: of the file. Raises WeightsError where no name is the
    network's, and where the person must choose.
    """
    own = fit({}).state_dict()
    readings = list(_list_readings(states, fit, part))
    if not readings:
        raise WeightsError(f"{spec}: {_explain_none(states, own, part, path)}")
    fitting = [each for each in readings if each.fits]
    if not fitting:
        nearest = max(readings, key=lambda each: each.renaming.found)
        return Choice(nearest, (), _list_beside(states, [nearest]), path)
    different = [each for i, each in enumerate(fitting) if not any(map(each.equals, fitting[:i]))]
    plain = (
        [each for each in different if not each.label]  # the file itself is what it is a file of
        or [each for each in different if not _AVERAGED.search(each.label)]
        or different
    )
    if len(plain) > 1:
        names = ", ".join(repr(each.label) for each in different)
        raise WeightsError(
            f"{spec}: several sets of weights in the file fit: {names}. Say which, as in {path}#{different[-1].label}"
        )
    return Choice(plain[0], [each for each in different if each is not plain[0]], _list_beside(states, fitting), path)


def _list_beside(states: Iterable[StateDict], readings: Sequence[Reading]) -> list[str]:
    """What holds weights in the file and is none of these readings: by name those that lie openly, others as a whole.

    What optimizers keep for each weight, and single numbers, are no weights."""
    read = {each.state.place for each in readings}
    beside = [state for state in states if state.place not in read and not _OF_OPTIMIZER.search(state.place)]
    found: list[str] = []
    for state in beside:
        if any(value.dim() for value in state.tensors.values()):
            found += [f"all of {state.place!r}"] if state.place else state.tensors
    return found


def _list_readings(
    states: Iterable[StateDict], fit: Callable[[Mapping[str, Tensor]], nn.Module], part: str
) -> Iterator[Reading]:
    """All ways to read state_dicts as the network's; where the names are right as they stand, there is no other."""
    own = fit({}).state_dict()
    for state in states:
        renamings = find_renamings(state.tensors, own)
        if renamings and renamings[0].complete and renamings[0].changes_nothing and not part:
            renamings = renamings[:1]
        for renaming in renamings:
            reading = Reading(state, renaming, fit({}))
            if not part or f".{part}." in f".{reading.label}.":
                yield Reading(state, renaming, fit(reading.tensors))


def _explain_none(states: Sequence[StateDict], own: Iterable[str], part: str, path: str) -> str:
    if part:
        places = [state.place for state in states if state.place]
        return f"{path} has no weights of the network named {part!r}. It has {list_some(places) or 'one set only'}"
    largest = max(states, key=lambda state: len(state.tensors))
    place = f" under {largest.place!r}" if largest.place else ""
    return (
        f"the weights do not fit the architecture, which has none of their names. The file has{place} "
        f"{list_some(largest.tensors)}; the network has {list_some(own)}. {_REMEDY}"
    )

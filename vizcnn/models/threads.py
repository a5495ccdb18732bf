"""Threads: a lock for each network, and one for what the whole process shares.

A web server, or a notebook beside a widget, asks one network from several threads. A probe puts hooks on the network
and changes its flags for a while, so only one thread at a time may do that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from vizcnn.errors import ParameterError

S = TypeVar("S")


class _Lock:
    """A re-entrant lock with a number. Whoever needs several takes them in order, so that threads cannot deadlock."""

    numbers = count()

    def __init__(self) -> None:
        self.number, self.lock = next(self.numbers), threading.RLock()


class _Kept(Generic[S]):
    """A state of the whole process that calls change. The first of several calls that overlap reads it and the last to
    end puts it back: if each put back what it found itself, the last would bring back a state from the middle of
    another."""

    state: S  # as the first of the calls found it

    def __init__(self, read: Callable[[], S], put_back: Callable[[S], None], lock: threading.RLock) -> None:
        self.read, self.put_back, self.lock, self.calls = read, put_back, lock, 0

    @contextmanager
    def keep(self) -> Iterator[None]:
        with self.lock:
            self.state = self.state if self.calls else self.read()
            self.calls += 1
        try:
            yield
        finally:
            with self.lock:
                self.calls -= 1
                if not self.calls:
                    self.put_back(self.state)


class _Shared:
    """What the threads of this process share."""

    def __init__(self) -> None:
        self.locks = WeakIdKeyDictionary()  # a module, parameter or buffer: its _Lock
        self.making = threading.Lock()  # of locks
        self.random = threading.RLock()  # torch's global random numbers
        self.random_state = _Kept(_read_random_states, _put_back_random_states, self.random)
        self.rounding = _Kept(_read_rounding, _put_back_rounding, threading.RLock())


@contextmanager
def lock_network(network: nn.Module) -> Iterator[None]:
    """Wait until no other thread holds this network, or one that shares modules or weights with it, and hold it."""
    parts = (*network.modules(), *network.parameters(), *network.buffers())
    with _SHARED.making:
        locks = [_SHARED.locks.setdefault(part, _Lock()) for part in parts]
    with ExitStack() as held:
        for each in sorted(locks, key=lambda lock: lock.number):
            held.enter_context(each.lock)
        yield


def check_seed(what: str, seed: int) -> None:
    """Raise ParameterError for what cannot seed both torch's and NumPy's random numbers. what: who asks."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise ParameterError(f"{what}: seed must be a whole number of at least 0 and below 2**63, got {seed!r}")


@contextmanager
def seed_random(seed: int) -> Iterator[None]:
    """Seed torch's global random numbers; afterwards they continue as if nothing had been drawn.

    For libraries that cannot be given a generator of their own. Only one thread at a time may do this."""
    with _SHARED.random, torch.random.fork_rng(devices=range(len(_read_cuda_states()))):
        torch.manual_seed(seed)
        yield


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Afterwards torch's global random numbers continue as if nothing had been drawn, whatever a network has drawn."""
    with _SHARED.random_state.keep():
        yield


@contextmanager
def round_as_float32() -> Iterator[None]:
    """Inside, float32 networks compute in float32; afterwards torch's settings are as before.

    On NVIDIA's cards torch rounds convolutions to the 10 bits of TF32 unless told otherwise, and a caller may have
    asked for the like on other devices (`torch.set_float32_matmul_precision`). An image's answer then depends on its
    company in the fourth digit, which is more than a window of occlusion often takes from it."""
    with _SHARED.rounding.keep():
        for each, precision in zip(_list_rounding(), _read_rounding(), strict=True):
            if precision != "none":  # nothing was set, here or for all of torch
                each.fp32_precision = "ieee"
        yield


def _read_random_states() -> list[Tensor]:
    return [torch.get_rng_state(), *_read_cuda_states()]


def _put_back_random_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, each in enumerate(states[1:]):
        torch.cuda.set_rng_state(each, device)


def _read_cuda_states() -> list[Tensor]:
    """The random states of the CUDA devices; none where CUDA has not been started, which reading them would do."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _list_rounding() -> tuple[Any, ...]:
    """Where torch keeps to how many bits float32 may be rounded, by kind of operation."""
    backends: Any = torch.backends  # torch's own types do not know these
    cards, processor = backends.cudnn, backends.mkldnn
    return (cards.conv, cards.rnn, backends.cuda.matmul, processor.conv, processor.matmul, processor.rnn)


def _read_rounding() -> list[str]:
    return [each.fp32_precision for each in _list_rounding()]


def _put_back_rounding(precisions: list[str]) -> None:
    for each, precision in zip(_list_rounding(), precisions, strict=True):
        if each.fp32_precision != precision:
            each.fp32_precision = precision


_SHARED = _Shared()


def _reset_locks() -> None:
    """Start with new locks in a forked process: it has one thread, and nobody there would release the old ones."""
    global _SHARED
    _SHARED = _Shared()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_locks)

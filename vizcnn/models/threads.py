"""Threads: a lock for each network, and one for what the whole process shares.

A web server, or a notebook beside a widget, asks one network from several threads. A probe puts hooks on the network
and changes its flags for a while, so only one thread at a time may do that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary


class _Lock:
    """A re-entrant lock with a number. Whoever needs several takes them in order, so that threads cannot deadlock."""

    numbers = count()

    def __init__(self) -> None:
        self.number, self.lock = next(self.numbers), threading.RLock()


class _Shared:
    """What the threads of this process share."""

    def __init__(self) -> None:
        self.locks = WeakIdKeyDictionary()  # a module, parameter or buffer: its _Lock
        self.making = threading.Lock()  # of locks
        self.random = threading.RLock()  # torch's global random numbers
        self.calls = 0  # that are running now, see keep_random_state
        self.state: list[Tensor] = []  # of the random numbers, before the first of them


_SHARED = _Shared()


def _reset_locks() -> None:
    """Start with new locks in a forked process: it has one thread, and nobody there would release the old ones."""
    global _SHARED
    _SHARED = _Shared()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_locks)


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


@contextmanager
def seed_random(seed: int) -> Iterator[None]:
    """Seed torch's global random numbers; afterwards they continue as if nothing had been drawn.

    For libraries that cannot be given a generator of their own. Only one thread at a time may do this."""
    with _SHARED.random, torch.random.fork_rng(devices=range(len(_read_cuda_states()))):
        torch.manual_seed(seed)
        yield


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Afterwards torch's global random numbers continue as if nothing had been drawn, whatever a network has drawn.

    Of several calls that overlap, the last to end puts the state back that the first one found: if each put back what
    it found itself, the last would bring back a state from the middle of another."""
    shared = _SHARED
    with shared.random:
        shared.state = shared.state if shared.calls else [torch.get_rng_state(), *_read_cuda_states()]
        shared.calls += 1
    try:
        yield
    finally:
        with shared.random:
            shared.calls -= 1
            if not shared.calls:
                _put_back(shared.state)


def _read_cuda_states() -> list[Tensor]:
    """The random states of the CUDA devices; none where CUDA has not been started, which reading them would do."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _put_back(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    for device, each in enumerate(state[1:]):
        torch.cuda.set_rng_state(each, device)

"""What keeps threads apart: a lock for each network, and one for what the whole process shares.

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
    """A re-entrant lock with a number: whoever needs several takes them in order, so no two threads wait in a ring."""

    numbers = count()

    def __init__(self) -> None:
        self.number, self.lock = next(self.numbers), threading.RLock()


class _Shared:
    """What the threads of this process share."""

    def __init__(self) -> None:
        self.locks = WeakIdKeyDictionary()  # a module, parameter or buffer: its _Lock
        self.making = threading.Lock()  # of locks
        self.random = threading.RLock()  # torch's global random numbers
        self.calls = 0  # that are running now, see random_state_kept
        self.state: list[Tensor] = []  # of the random numbers, before the first of them


_SHARED = _Shared()


def _forget() -> None:
    """A child made by fork has one thread, and nobody else in it will ever release what others held."""
    global _SHARED
    _SHARED = _Shared()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def one_at_a_time(network: nn.Module) -> Iterator[None]:
    """Wait until no other thread holds this network, or one that shares modules or weights with it, and hold it."""
    parts = (*network.modules(), *network.parameters(), *network.buffers())
    with _SHARED.making:
        locks = [_SHARED.locks.setdefault(part, _Lock()) for part in parts]
    with ExitStack() as held:
        for each in sorted(locks, key=lambda lock: lock.number):
            held.enter_context(each.lock)
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start torch's global random numbers at a seed, and afterwards let them go on where they were.

    For libraries that draw from nowhere else. Threads wait for each other here."""
    with _SHARED.random, torch.random.fork_rng(devices=range(len(_cuda_states()))):
        torch.manual_seed(seed)
        yield


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Afterwards torch's global random numbers go on where they were, whatever a network has drawn.

    The last of several calls that overlap puts them back: if each did, the one that ends last would bring back what
    another had drawn."""
    shared = _SHARED
    with shared.random:
        shared.state = shared.state if shared.calls else [torch.get_rng_state(), *_cuda_states()]
        shared.calls += 1
    try:
        yield
    finally:
        with shared.random:
            shared.calls -= 1
            if not shared.calls:
                _put_back(shared.state)


def _cuda_states() -> list[Tensor]:
    """Of the devices that torch.manual_seed reaches; asking for more would start CUDA."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _put_back(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    for device, each in enumerate(state[1:]):
        torch.cuda.set_rng_state(each, device)

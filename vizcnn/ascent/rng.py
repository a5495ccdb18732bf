"""Random numbers of which each picture has its own, so that it comes out the same alone and in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

_Request = tuple[Callable[..., Tensor], tuple[int, ...]]
"""What is asked for: one of torch's functions that draw numbers, and the shape for one picture."""

_MOST_AHEAD = 2**25  # numbers that are drawn ahead, 128 MiB of float32


class Rng:
    """A random generator per picture.

    A picture's numbers depend on the seed and on its key alone, not on the batch that it is in. They are drawn on the
    CPU, so that they do not depend on the device either, and sent there for as many steps at once as fit into bounded
    memory, mostly all: a copy in each step would keep a device waiting. Which those are is guessed, that each step asks
    for what the first step did; where one asks for something else, the generators are set back, and the numbers are
    the same all the same.

    keys: one text for each of N pictures. like: a tensor of the dtype and on the device that the numbers shall have.
    """

    def __init__(self, seed: int, keys: Sequence[str], like: Tensor) -> None:
        self._generators = [torch.Generator().manual_seed(_hash_seed(seed, key)) for key in keys]
        self._like = like
        self._step: list[_Request] = []  # what a step asks for
        self._ahead: list[Tensor] = []  # of each request of a step, (steps, N, *shape)
        self._planned = 0  # how many requests these answer
        self._asked: list[_Request] = []  # since the numbers ahead were drawn
        self._block = 0  # how many of these before the present block
        self._begin()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (N, *shape)."""
        return self._give((torch.randn, shape))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (N, *shape), uniform in [-1, 1)."""
        return self._give((torch.rand, shape)) * 2 - 1

    def learn_step(self) -> None:
        """Take it that each further step asks for what has been asked for so far."""
        self._step = self._asked
        self._begin()

    def count_steps(self, most: int) -> int:
        """For how many steps numbers can be drawn ahead within bounded memory, at most this many."""
        numbers = len(self._generators) * sum(prod(shape) for _, shape in self._step)
        return max(1, min(most, _MOST_AHEAD // max(1, numbers)))

    def begin_block(self, steps: int, left: int) -> None:
        """A block of so many steps begins, to which `rewind` comes back. left: the steps from here to the last."""
        if len(self._asked) + steps * len(self._step) > self._planned:
            self._settle()
            self._begin()
            fit = self.count_steps(left)
            self._draw_ahead(left if fit == left else max(1, fit // steps) * steps)
        self._block = len(self._asked)

    def rewind(self) -> None:
        """Give the numbers of this block once more."""
        before = self._asked[: self._block]
        if len(self._asked) > self._planned:  # something else was asked for than was drawn ahead
            self._set_back()
            for request in before:
                self._draw(request)
        self._asked = before

    def _begin(self) -> None:
        self._states = [generator.get_state() for generator in self._generators]
        self._asked, self._block = [], 0

    def _draw_ahead(self, steps: int) -> None:
        drawn = [torch.empty(steps, len(self._generators), *shape) for _, shape in self._step]
        for i, generator in enumerate(self._generators):
            for step in range(steps):
                for (draw, shape), block in zip(self._step, drawn, strict=True):
                    draw(shape, generator=generator, out=block[step, i])
        self._ahead = [block.to(self._like) for block in drawn]
        self._planned = steps * len(self._step)

    def _give(self, request: _Request) -> Tensor:
        at, width = len(self._asked), len(self._step)
        if at >= self._planned or request != self._step[at % width]:
            self._settle()
            numbers = self._draw(request).to(self._like)
        else:
            numbers = self._ahead[at % width][at // width]
        self._asked.append(request)
        return numbers

    def _draw(self, request: _Request) -> Tensor:
        draw, shape = request
        return torch.stack([draw(shape, generator=one) for one in self._generators])

    def _settle(self) -> None:
        """Leave the generators where what was asked for leaves them, if more was drawn."""
        if len(self._asked) < self._planned:
            self._set_back()
            for request in self._asked:
                self._draw(request)
        self._planned = 0

    def _set_back(self) -> None:
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)


def _hash_seed(seed: int, key: str) -> int:
    """A seed of 63 bits, which is what torch takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) >> 1

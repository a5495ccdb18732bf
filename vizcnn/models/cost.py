"""Cost: what a call will take, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The cost of a call, known before it starts.

    work: what is to be done, in words. flops: floating-point operations. memory: the most bytes beside the weights.
    seconds: estimated from a short trial. None: unknown.
    """

    work: str
    flops: float | None
    memory: int | None
    seconds: float

    def describe(self) -> str:
        """The cost in one sentence."""
        flops = "FLOPs unknown" if self.flops is None else f"{self.flops / 1e9:.3g} GFLOP"
        memory = "memory unknown" if self.memory is None else f"{max(1, round(self.memory / 1e6))} MB of memory"
        return f"{self.work}; {flops}, {memory}, about {self.seconds:.2g} s"

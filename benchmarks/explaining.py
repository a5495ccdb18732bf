"""What `explain` costs: seconds and runs of an image, for several networks, quick and whole.

    python benchmarks/explaining.py
    python benchmarks/explaining.py -m tiny mobilenet_v2@FILE resnet18@random --threads 2

Processor seconds are of all threads together; on an idle machine with two cores the clock shows about half of them.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import vizcnn


@dataclass(frozen=True)
class Cost:
    """Of one explanation: seconds by the clock and of the processor, and images that the network has seen."""

    model: str
    quick: bool
    seconds: float
    busy: float
    images: int

    def row(self) -> str:
        kind = "quick" if self.quick else "whole"
        return f"| {self.model} | {kind} | {self.images:,} | {self.seconds:.1f} | {self.busy:.1f} |"


def measure(model: vizcnn.Model, image: str, *, quick: bool) -> Cost:
    """The cost of one explanation."""
    seen = [0]

    def count(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[0] += len(inputs[0])

    handle = model.network.register_forward_pre_hook(count)
    start, busy = time.perf_counter(), _find_busy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vizcnn.errors.VizcnnWarning)
            vizcnn.explain(model, image, quick=quick, progress=False)
    finally:
        handle.remove()
    return Cost(model.name, quick, time.perf_counter() - start, _find_busy() - busy, seen[0])


def _find_busy() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def list_rows(names: list[str], image: str, *, quick_only: bool) -> Iterator[str]:
    """The table, row by row."""
    yield "| network | | images seen | s | processor s |"
    yield "|---|---|---|---|---|"
    for name in names:
        model = vizcnn.load(name)
        for quick in (True, False)[: 1 if quick_only else 2]:
            yield measure(model, image, quick=quick).row()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--models", nargs="+", default=["tiny", "mobilenet_v2@random", "resnet18@random"])
    parser.add_argument("--image", default="sample:grace_hopper")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="leave the whole ones out")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for row in list_rows(given.models, given.image, quick_only=given.quick):
        print(row, flush=True)


if __name__ == "__main__":
    main()

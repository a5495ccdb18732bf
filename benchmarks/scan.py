"""What does a scan cost beside a bare forward pass of the same batches?

    python benchmarks/scan.py resnet18@random mobilenet_v2@random
    pip install zennit-crp && python benchmarks/scan.py resnet18@random --peer

Made-up images are kept in memory, so nothing is decoded: all convolutions and linear layers are scanned, top 9. Bare
forward pass and scan of a batch run in turn; overhead is the median of the scan's time over that of its neighbour,
less 1, leaving out the first batch, in which every image is among the best. The peer is zennit-crp's collection of
the most activating and most relevant images, for the same batches and layers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from tempfile import TemporaryDirectory

import torch
from occlusion import Time, machine, scenes, timed
from torch import Tensor

from vizcnn.models.borrowing import borrow
from vizcnn.models.layers.dryrun import copy_for_dry_run
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.models.scoring import default_batch
from vizcnn.scanning.layer_selection import select_layers
from vizcnn.scanning.loader import Batch
from vizcnn.scanning.observe import Finding, ScanSettings, observe

HEAD = (
    "| network | layers | channels | batch | ms an image, bare / scan | overhead | in CPU time | peer over bare |\n"
    + "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Cost:
    """Times batch by batch, in turn."""

    bare: tuple[Time, ...]
    scan: tuple[Time, ...]
    peer: tuple[Time, ...]

    def overhead(self, of: Sequence[Time], kind: str) -> float:
        """The median over neighbouring runs, as a share of the bare pass."""
        pairs = zip(of, self.bare, strict=True)
        return float(statistics.median(getattr(one, kind) / getattr(bare, kind) for one, bare in pairs)) - 1


def batches_of(model: Model, count: int, batch: int) -> list[Batch]:
    """Made-up batches, each different from the others."""
    images = scenes(batch + count, max(model.input.size))[:, : model.input.channels]
    return [
        Batch(torch.arange(i * batch, (i + 1) * batch), images[i : i + batch], (None,) * batch, ())
        for i in range(count)
    ]


def measured(model: Model, settings: ScanSettings, batches: Sequence[Batch], peer: bool) -> Cost:
    """Run bare pass, scan and peer in turn over the batches; the first counts for none."""
    finding = Finding(settings.make_tallies())
    unwatched, other = (
        copy_for_dry_run(model),
        copy_for_dry_run(model),
    )  # made first: hooks of the scan must not see their runs
    unwatched.network.eval()
    with borrow(model, "Benchmark"), observe(model, settings) as observe_batch, TemporaryDirectory() as folder:
        runs: dict[str, Callable[[Batch], None]] = {
            "bare": partial(_bare, unwatched),
            "scan": lambda batch: observe_batch(batch, finding),
        }
        if peer:
            runs["peer"] = _peer(other, settings, batches, folder)
        times: dict[str, list[Time]] = {kind: [] for kind in runs}
        for batch in batches:
            for kind, run in runs.items():
                times[kind].append(timed(partial(run, batch))[1])
    return Cost(*(tuple(times.get(kind, ())[1:]) for kind in ("bare", "scan", "peer")))


def _inputs(batch: Batch) -> Tensor:
    assert batch.inputs is not None
    return batch.inputs


@torch.no_grad()
def _bare(model: Model, batch: Batch) -> None:
    model(_inputs(batch))


def _peer(model: Model, settings: ScanSettings, batches: Sequence[Batch], folder: str) -> Callable[[Batch], None]:
    """zennit-crp's collection for the same layers: activation and relevance of class 0, by a plain gradient."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization

    layers = {name: ChannelConcept() for name, shape in settings.layers.items() if len(shape) == 3}
    model.network.requires_grad_(True)  # which the collection cannot do without
    images = [(image, 0) for batch in batches for image in model.normalised(_inputs(batch))]
    collection = FeatureVisualization(CondAttribution(model.network), images, layers, path=folder)

    def collect(batch: Batch) -> None:
        first, count = int(batch.numbers[0]), len(batch.numbers)
        with torch.enable_grad(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            collection.run(None, first, first + count, batch_size=count)

    return collect


def row(spec: str, rounds: int, batch: int | None, peer: bool) -> str:
    model = load(spec)
    size = model.input.size
    settings = ScanSettings(
        select_layers(model, size, None), size, 9, "max", batch or default_batch(size), torch.get_num_threads()
    )
    found = measured(model, settings, batches_of(model, rounds + 1, settings.batch), peer)
    each = [1e3 * statistics.median(t.wall for t in times) / settings.batch for times in (found.bare, found.scan)]
    cells = (
        spec,
        str(len(settings.layers)),
        f"{sum(shape[0] for shape in settings.layers.values()):,}",
        str(settings.batch),
        f"{each[0]:.1f} / {each[1]:.1f}",
        f"{found.overhead(found.scan, 'wall'):.1%}",
        f"{found.overhead(found.scan, 'cpu'):.1%}",
        f"{1 + found.overhead(found.peer, 'wall'):.1f}x" if peer else "-",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="as for the probes, e.g. resnet18@random")
    parser.add_argument("--rounds", type=int, default=20, help="batches that count")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peer", action="store_true", help="run zennit-crp too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine(options.threads)}; {options.rounds} batches\n\n{HEAD}")
    for spec in options.networks:
        print(row(spec, options.rounds, options.batch, options.peer), flush=True)


if __name__ == "__main__":
    main()

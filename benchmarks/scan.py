"""What does a scan cost beside a bare forward pass of the same batches?

    python benchmarks/scan.py resnet18@random mobilenet_v2@random
    pip install zennit-crp && python benchmarks/scan.py resnet18@random --peer

Made-up images are kept in memory, so nothing is decoded: all convolutions and linear layers are scanned, top 9. Bare
forward pass and scan of a batch run in turn; overhead is the median of the scan's time over that of its neighbour,
less 1, leaving out the first batch, in which every image is among the best. A scan with a study also keeps what an
atlas needs: all activations in bins, the answers, and a sample of images; it is measured on a quarter of the batches.
The peer is zennit-crp's collection of the most activating and most relevant images, for the same batches and layers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from tempfile import TemporaryDirectory

import torch
from occlusion import Time, describe_machine, make_images, measure_time
from torch import Tensor

from vizcnn.models.borrowing import borrow
from vizcnn.models.layers.dryrun import copy_for_dry_run
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.scanning.layer_selection import select_layers
from vizcnn.scanning.loader import Batch
from vizcnn.scanning.observe import ScanSettings, observe
from vizcnn.scanning.run import choose_scan_batch
from vizcnn.scanning.study import Study, settle_study

HEAD = (
    "| network | layers | channels | batch | ms an image, bare / scan | overhead | in CPU time | with a study "
    + "| peer over bare |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Timings:
    """The times of each way to run the same batches, batch by batch."""

    bare: tuple[Time, ...]
    scan: tuple[Time, ...]
    peer: tuple[Time, ...]

    def compute_overhead(self, times: Sequence[Time], kind: str) -> float:
        """The median over neighbouring runs, as a share of the bare pass. kind: `wall` or `cpu`."""
        pairs = zip(times, self.bare, strict=True)
        return float(statistics.median(getattr(one, kind) / getattr(bare, kind) for one, bare in pairs)) - 1


def make_batches(model: Model, count: int, batch: int) -> list[Batch]:
    """Made-up batches, each different from the others."""
    images = make_images(batch + count, max(model.input.size))[:, : model.input.channels]
    return [
        Batch(torch.arange(i * batch, (i + 1) * batch), images[i : i + batch], (None,) * batch, ())
        for i in range(count)
    ]


def measure(model: Model, settings: ScanSettings, batches: Sequence[Batch], peer: bool) -> Timings:
    """Run bare pass, scan and peer in turn over the batches; the first counts for none."""
    finding = settings.make_finding()
    # Copied before the scan puts its hooks on the layers: it must not see the runs of the copies.
    bare_model = copy_for_dry_run(model)
    peer_model = copy_for_dry_run(model)
    bare_model.network.eval()
    with borrow(model, "Benchmark"), observe(model, settings) as observe_batch, TemporaryDirectory() as folder:
        runs: dict[str, Callable[[Batch], None]] = {
            "bare": partial(_run_bare, bare_model),
            "scan": lambda batch: observe_batch(batch, finding),
        }
        if peer:
            runs["peer"] = _make_peer_run(peer_model, settings, batches, folder)
        times: dict[str, list[Time]] = {kind: [] for kind in runs}
        for batch in batches:
            for kind, run in runs.items():
                times[kind].append(measure_time(partial(run, batch))[1])
    return Timings(*(tuple(times.get(kind, ())[1:]) for kind in ("bare", "scan", "peer")))


def _get_inputs(batch: Batch) -> Tensor:
    assert batch.inputs is not None
    return batch.inputs


@torch.no_grad()
def _run_bare(model: Model, batch: Batch) -> None:
    model(_get_inputs(batch))


def _make_peer_run(
    model: Model, settings: ScanSettings, batches: Sequence[Batch], folder: str
) -> Callable[[Batch], None]:
    """A run of zennit-crp's collection for these layers: activation and relevance of class 0, by a plain gradient."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization

    layers = {name: ChannelConcept() for name, shape in settings.layers.items() if len(shape) == 3}
    model.network.requires_grad_(True)  # which the collection cannot do without
    images = [(image, 0) for batch in batches for image in model.normalised(_get_inputs(batch))]
    collection = FeatureVisualization(CondAttribution(model.network), images, layers, path=folder)

    def collect(batch: Batch) -> None:
        first, count = int(batch.numbers[0]), len(batch.numbers)
        with torch.enable_grad(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            collection.run(None, first, first + count, batch_size=count)

    return collect


def measure_network(spec: str, rounds: int, batch: int | None, peer: bool) -> str:
    """The table's line for a network."""
    model = load(spec)
    size = model.input.size
    batch = batch or choose_scan_batch(model, size)
    settings = ScanSettings(select_layers(model, size, None), size, 9, "max", batch, torch.get_num_threads())
    batches = make_batches(model, rounds + 1, settings.batch)
    timings = measure(model, settings, batches, peer)
    study = settle_study(model, Study(), size, len(batches) * settings.batch)
    with_study = measure(model, replace(settings, study=study), batches[: 1 + max(1, rounds // 4)], False)
    milliseconds = [
        1e3 * statistics.median(t.wall for t in times) / settings.batch for times in (timings.bare, timings.scan)
    ]
    cells = (
        spec,
        str(len(settings.layers)),
        f"{sum(shape[0] for shape in settings.layers.values()):,}",
        str(settings.batch),
        f"{milliseconds[0]:.1f} / {milliseconds[1]:.1f}",
        f"{timings.compute_overhead(timings.scan, 'wall'):.1%}",
        f"{timings.compute_overhead(timings.scan, 'cpu'):.1%}",
        f"{with_study.compute_overhead(with_study.scan, 'wall'):.1%}",
        f"{1 + timings.compute_overhead(timings.peer, 'wall'):.1f}x" if peer else "-",
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
    print(f"{describe_machine(options.threads)}; {options.rounds} batches\n\n{HEAD}")
    for spec in options.networks:
        print(measure_network(spec, options.rounds, options.batch, options.peer), flush=True)


if __name__ == "__main__":
    main()

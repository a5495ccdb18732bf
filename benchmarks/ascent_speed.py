"""Is gradient ascent fast? Seconds per picture of a channel, beside torch-lucent on the same network.

    pip install torch-lucent
    python benchmarks/ascent_speed.py
    python benchmarks/ascent_speed.py squeezenet1_0@FILE:features.9

Eight channels, 64 steps, 128 px; random weights will do for layers whose channels are then alive. Ours is one batch
with the recipe lucid. The peer makes one picture after the other, as its render_vis does: once as it is (it enlarges
what the network sees to 224 px), once at equal input size. Rounds alternate; medians of wall and CPU time are printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch

from vizcnn.ascent import RECIPES, Objective, optimize
from vizcnn.ascent.loop import Precision
from vizcnn.models._torchvision import import_models
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.models.targets import target

NETWORKS = ["resnet18@random:layer1", "resnet18@random:layer3", "vgg16@random:features.16"]


@dataclass(frozen=True)
class Work:
    """Channels 0 to `channels` of a layer, so many steps, pictures of side `size`."""

    model: Model
    layer: str
    channels: int
    steps: int
    size: int


@dataclass(frozen=True)
class Time:
    """Seconds per picture."""

    wall: float
    cpu: float


def run_ours(work: Work, precision: Precision = "float32") -> None:
    """Make the pictures in one batch."""
    objectives = [Objective(target(f"{work.layer}:{channel}")) for channel in range(work.channels)]
    recipe = replace(RECIPES["lucid"], steps=work.steps)
    with work.model.borrowed():
        size = (work.size, work.size)
        optimize(work.model, objectives, recipe, size=size, precision=precision, batch=work.channels, progress=False)


def run_peer(work: Work, input_side: int | None) -> None:
    """Make the pictures with torch-lucent. input_side: in px, of what the network sees; None for the peer's default."""
    import_models()  # its import of torchvision may need our remedy
    from lucent.optvis import objectives, param, render  # type: ignore[import-not-found]

    work.model.network.eval()
    for channel in range(work.channels):
        render.render_vis(
            work.model.network,
            objectives.channel(work.layer.replace(".", "_"), channel),
            lambda: param.image(work.size),
            thresholds=(work.steps,),
            progress=False,
            show_image=False,
            fixed_image_size=input_side,
        )


def measure_time(run: Callable[[], None], pictures: int) -> Time:
    """The seconds per picture of a run that makes so many."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Time((time.perf_counter() - wall) / pictures, (time.process_time() - cpu) / pictures)


def compare(work: Work, rounds: int, peer_channels: int) -> dict[str, Time]:
    """Median seconds per picture of each way, from alternating rounds."""
    few = replace(work, channels=peer_channels)  # the peer's pictures take equally long, so some will do
    ways: dict[str, tuple[Callable[[], None], int]] = {
        "float32": (lambda: run_ours(work), work.channels),
        "peer": (lambda: run_peer(few, None), few.channels),
        "peer, equal size": (lambda: run_peer(few, work.size), few.channels),
        "bfloat16": (lambda: run_ours(work, "bfloat16"), work.channels),
    }
    times: dict[str, list[Time]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (run, pictures) in ways.items():
            times[name].append(measure_time(run, pictures))
    return {name: Time(median(t.wall for t in each), median(t.cpu for t in each)) for name, each in times.items()}


def format_row(name: str, layer: str, times: dict[str, Time]) -> str:
    """The table's line for a layer of a network."""
    ours, default, equal, half = (times[key] for key in ("float32", "peer", "peer, equal size", "bfloat16"))
    seconds = [ours.wall, half.wall, default.wall, equal.wall]
    ratios = [default.wall / ours.wall, equal.wall / ours.wall, default.cpu / ours.cpu, equal.cpu / ours.cpu]
    ratios += [default.wall / half.wall, equal.wall / half.wall]
    cells = [f"{number:.2f}" for number in seconds] + [f"{ratio:.1f}x" for ratio in ratios]
    return f"| {name} {layer} | " + " | ".join(cells) + " |"


HEAD = (
    "| network | s float32 | s bfloat16 | s peer | s peer, equal size | over peer | over equal size | CPU over peer "
    "| CPU over equal size | bf16 over peer | bf16 over equal size |\n|" + "---|" * 11
)


def main(arguments: list[str] | None = None) -> list[dict[str, Time]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="each MODEL:LAYER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--peer-channels", type=int, default=2)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Time]] = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n{HEAD}")
    for network in options.networks:
        spec, _, layer = network.rpartition(":")
        work = Work(load(spec), layer, options.channels, options.steps, options.size)
        rows.append(compare(work, options.rounds, options.peer_channels))
        print(format_row(work.model.name, layer, rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    main()

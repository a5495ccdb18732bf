"""How much faster than captum's is our occlusion, and is the map the same?

    python benchmarks/occlusion.py

Torchvision networks with random weights (He's, with BatchNorm settled on a few images, so that windows move the
answer), one image, one class. captum runs at the fastest of several perturbations_per_eval, each tried once over all
windows. Then captum's sweep and ours run in turn; each of ours is cold: a new probe traces, plans and checks again.

FLOPs: ideal and executed, as shares of one whole forward pass per window. Speed-up: the median of the ratios of
neighbouring runs. Difference: the largest between the maps, over the largest value of captum's. Memory: by how much a
sweep raises the peak of a fresh process that has run the network on one image before.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.probes.occlusion import Occlusion
from vizcnn.results import Heatmap

NETWORKS = ("vgg16", "squeezenet1_1", "googlenet", "mobilenet_v2", "resnet50", "resnet18", "alexnet", "densenet121")
BATCHES = (1, 4, 8, 16, 32)

Array = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One row of the table. probe: options of our probe beside the windows; batches: what captum may choose from."""

    network: str
    size: int
    window: int
    stride: int
    rounds: int
    threads: int | None
    batches: tuple[int, ...]
    probe: Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What both are asked: where one image (1, C, H, W) in [0, 1] matters for a class. The network is in eval mode."""

    model: Model
    image: Tensor
    target: int
    window: int
    stride: int

    def run_ours(self, **options: Any) -> Heatmap:
        """Our result, from a cold call: nothing is kept from one to the next."""
        probe = Occlusion(window=self.window, stride=self.stride, fill="mean", **options)
        return probe(self.model, self.image, self.target, progress=False)

    def run_captum(self, batch: int) -> Array:
        """captum's map (H, W), `batch` windows at a time; all channels are covered together."""
        from captum.attr import Occlusion as Captum

        channels = self.image.shape[1]
        attribution: Tensor = Captum(self.model.__call__).attribute(
            self.image,
            sliding_window_shapes=(channels, self.window, self.window),
            strides=(channels, self.stride, self.stride),
            baselines=self.image.mean((2, 3), keepdim=True).expand_as(self.image),
            target=self.target,
            perturbations_per_eval=batch,
        )
        return attribution[0, 0].numpy()


def prepare_question(setting: Setting) -> Question:
    """The question of a row, always the same one: the class that the network names for a made-up image."""
    if setting.threads:
        torch.set_num_threads(setting.threads)
    model = load_network(setting.network, setting.size)
    return make_question(model, make_images(1, setting.size), setting.window, setting.stride)


def load_network(name: str, size: int) -> Model:
    """A network of torchvision whose answers depend on the image: He's weights, norms settled on three made-up images
    of side `size`."""
    model = load(f"{name}@random")
    _draw_weights(model.network)
    _set_norms(model, make_images(3, size))
    return model


@torch.no_grad()
def make_question(model: Model, image: Tensor, window: int, stride: int) -> Question:
    """The question where the image (1, C, H, W) matters for the class that the network names for it."""
    model.network.eval()
    return Question(model, image, int(model(image)[0].argmax()), window, stride)


def make_images(count: int, size: int) -> Tensor:
    """Made-up images (count, 3, size, size) with as much contrast in large shapes as in small ones, as photographs."""
    rng = torch.Generator().manual_seed(0)
    octaves = [
        F.interpolate(torch.randn(count, 3, side, side, generator=rng), size, mode="bilinear")
        for side in (4, 8, 16, 32, size)
    ]
    return torch.stack(octaves).sum(0).sigmoid()


def _draw_weights(network: nn.Module) -> None:
    """Draw He's weights throughout: with torch's own, the answer of a deep network hardly depends on the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


@torch.no_grad()
def _set_norms(model: Model, images: Tensor) -> None:
    """Give every BatchNorm the statistics of these images, one image at a time to keep the peak of memory low."""
    model.network.eval()
    for norm in (m for m in model.network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # all images weigh the same
        norm.train()
    for image in images:
        model(image[None])
    model.network.eval()


@dataclass(frozen=True)
class Time:
    """Seconds; cpu is summed over the threads."""

    wall: float
    cpu: float


def measure_time(run: Callable[[], T]) -> tuple[T, Time]:
    """What a run returns, and its time."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = run()
    return outcome, Time(time.perf_counter() - wall, time.process_time() - cpu)


def find_best_batch(question: Question, batches: tuple[int, ...]) -> int:
    """captum's fastest perturbations_per_eval, each tried once over all windows."""
    if len(batches) == 1:
        return batches[0]
    question.run_captum(max(batches))  # what only the first run pays for
    walls = {batch: measure_time(partial(question.run_captum, batch))[1].wall for batch in batches}
    say("captum's seconds by perturbations_per_eval: " + ", ".join(f"{b}: {wall:.1f}" for b, wall in walls.items()))
    return min(batches, key=walls.__getitem__)


@dataclass(frozen=True)
class Rounds:
    """Runs in turn. batch: captum's; our_times, captum_times: pair by pair."""

    batch: int
    our_times: tuple[Time, ...]
    captum_times: tuple[Time, ...]

    @property
    def speedup(self) -> float:
        """How many times as fast as captum we are."""
        return statistics.median(c.wall / o.wall for c, o in zip(self.captum_times, self.our_times, strict=True))

    @property
    def cpu_speedup(self) -> float:
        """The same in CPU time."""
        return statistics.median(c.cpu / o.cpu for c, o in zip(self.captum_times, self.our_times, strict=True))


@dataclass(frozen=True)
class Comparison(Rounds):
    """What a row's runs gave. details: of the provenance of our last map."""

    difference: float
    details: Mapping[str, Any]


def compare(setting: Setting) -> Comparison:
    """Run both in turn, `rounds` times."""
    question = prepare_question(setting)
    batch = find_best_batch(question, setting.batches)
    our_times, captum_times = [], []
    for i in range(setting.rounds):
        expected, captum_time = measure_time(partial(question.run_captum, batch))
        ours, our_time = measure_time(partial(question.run_ours, **setting.probe))
        say(f"{setting.network}, round {i + 1}: captum {captum_time.wall:.1f} s, ours {our_time.wall:.1f} s")
        captum_times.append(captum_time)
        our_times.append(our_time)
    refuse_rounding(question, expected)
    difference = measure_difference(ours.values[0, 0], expected)
    return Comparison(batch, tuple(our_times), tuple(captum_times), difference, ours.provenance.details)


def measure_difference(values: Array, expected: Array) -> float:
    """The largest difference between two maps, over the largest value of the second."""
    return float(np.abs(values - expected).max() / np.abs(expected).max())


@torch.no_grad()
def refuse_rounding(question: Question, values: Array) -> None:
    """Raise ValueError for a map of rounding errors: it can be compared with nothing."""
    model = question.model
    moved = float(np.abs(values).max()) / float(model(question.image).abs().max())
    say(f"{model.name}: the largest value of the map is {moved:.2g} of the largest logit")
    if moved < 1e-3:
        raise ValueError(f"{model.name}: covering moves the answer by only {moved:.1g} of it, next to rounding")


def measure_memory(setting: Setting, batch: int | None) -> float:
    """MB by which one sweep raises this process's peak: captum's with that batch, or ours where it is None."""
    import captum.attr  # noqa: F401 - else its import would count as memory of its sweep

    question = prepare_question(setting)
    before = _read_peak()
    if batch is None:
        question.run_ours(**setting.probe)
    else:
        question.run_captum(batch)
    return _read_peak() - before


def _read_peak() -> float:
    """The most memory that this process has held so far, in MB."""
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run_alone(function: Callable[..., T], *arguments: Any) -> T:
    """The function's answer, from a process of its own.

    Linux hands the parent's peak of memory on to its children, so the parent must never run a network itself."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


HEAD = (
    "| network | engine | FLOPs ideal / executed | seconds ours / captum | captum's batch | speed-up | speed-up in CPU "
    "time | difference | MB ours / captum |\n|" + "---|" * 9
)


def format_row(name: str, comparison: Comparison, memory: tuple[float, float]) -> str:
    """The table's line for a network. memory: MB of our sweep and of captum's."""
    ideal, executed = (_format_share(comparison.details.get(key)) for key in ("flops_ideal", "flops_executed"))
    seconds = [statistics.median(t.wall for t in times) for times in (comparison.our_times, comparison.captum_times)]
    cells = (
        name,
        str(comparison.details.get("engine", "plain")),
        f"{ideal} / {executed}",
        f"{seconds[0]:.2f} / {seconds[1]:.2f}",
        str(comparison.batch),
        f"{comparison.speedup:.2f}",
        f"{comparison.cpu_speedup:.2f}",
        f"{comparison.difference:.1e}",
        f"{memory[0]:.0f} / {memory[1]:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _format_share(number: float | None) -> str:
    return "-" if number is None or math.isnan(number) else f"{number:.1%}"


def say(text: str) -> None:
    """Print to stderr, beside the table."""
    print(text, file=sys.stderr, flush=True)


def describe_machine(threads: int | None) -> str:
    """The facts without which no time means anything."""
    from captum import __version__ as captum_version

    cores, capability = os.cpu_count(), torch.backends.cpu.get_cpu_capability()
    return (
        f"{cores} cores ({capability}), {threads or torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"captum {captum_version}, load before the run {os.getloadavg()[0]:.1f}"
    )


def _make_settings(options: argparse.Namespace) -> list[Setting]:
    shared = {name: getattr(options, name) for name in ("size", "window", "stride", "rounds", "threads")}
    probe, batches = {"engine": options.engine}, tuple(options.batches)
    return [Setting(network=name, batches=batches, probe=probe, **shared) for name in options.networks]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names of torchvision")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="what captum may choose from")
    parser.add_argument("--engine", default="auto", choices=("auto", "plain", "incremental"))
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def main() -> None:
    options = _parse_options()
    print(f"{describe_machine(options.threads)}; {options.size} px, window {options.window}, stride {options.stride}, "
          f"{options.rounds} rounds\n\n{HEAD}")  # fmt: skip
    speeds = {}
    for setting in _make_settings(options):
        comparison = run_alone(compare, setting)
        memory = run_alone(measure_memory, setting, None), run_alone(measure_memory, setting, comparison.batch)
        print(format_row(setting.network, comparison, memory), flush=True)
        speeds[setting.network] = comparison.speedup
    worst = min(speeds, key=speeds.__getitem__)
    print(f"\nSpeed-up: median {statistics.median(speeds.values()):.2f}, worst {speeds[worst]:.2f} ({worst})")


if __name__ == "__main__":
    main()

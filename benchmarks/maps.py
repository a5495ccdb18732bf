"""Are maps of many images as fast as captum's, and the same?

    python benchmarks/maps.py
    pip install torchcam && python benchmarks/maps.py --methods score-cam --images 2

Torchvision networks with random weights, 32 made-up images of 224 px, one class for all. captum gets the images in
batches of the best of several sizes, each tried once; ours is one call of the probe with its default batch, so that
checks, the digest of the weights, clean answers and the places of the marks are inside the time. Rounds alternate.
For Score-CAM the peer is torch-cam, which gets one image after the other, and masks in batches.

Ratio: the median over rounds of our time over captum's, in CPU time and by the clock; below 1 we are faster.
Difference: the largest between the maps of all images, over the largest value of captum's; SmoothGrad's noise is
another in each library, and torch-cam scales its maps, so nothing is said there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from occlusion import (
    Rounds,
    describe_machine,
    load_network,
    make_images,
    measure_difference,
    measure_time,
    run_alone,
    say,
)
from torch import Tensor

import vizcnn
from vizcnn.models.layers.last import find_last_spatial_layer

NETWORKS = ("resnet18", "mobilenet_v2", "vgg16")
METHODS = ("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients", "grad-cam")
CAMS = ("grad-cam", "score-cam")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """One row. samples: SmoothGrad's noisy copies; steps: of integrated gradients; threads: of torch; batches:
    what captum may choose."""

    network: str
    method: str
    images: int
    size: int
    rounds: int
    samples: int
    steps: int
    threads: int
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """What both are asked: maps of images (N, C, H, W) in [0, 1] for one class. layer: of class activation maps."""

    setting: Setting
    model: vizcnn.Model
    images: Tensor
    target: int
    layer: str


def prepare_question(setting: Setting) -> Question:
    """The question of a row: the class is the one that speaks most for all images, so that no map is empty."""
    torch.set_num_threads(setting.threads)
    model, images = load_network(setting.network, setting.size), make_images(setting.images, setting.size)
    with torch.no_grad():
        target = int(torch.cat([model(part) for part in images.split(8)]).amin(0).argmax())
    layer = find_last_spatial_layer(model, images[:1]) if setting.method in CAMS else ""  # not in captum's time
    return Question(setting, model, images, target, layer)


def run_ours(question: Question) -> Array:
    """Our maps (N, H, W), signed as captum's are."""
    setting = question.setting
    options: dict[str, Any] = {"method": setting.method, "samples": setting.samples, "steps": setting.steps}
    probe = (
        vizcnn.Cam(method=options["method"]) if setting.method in CAMS else vizcnn.Saliency(**options, sign="signed")
    )
    return probe(question.model, question.images, question.target, progress=False).values[:, 0]


def run_captum(question: Question, batch: int) -> Array:
    """captum's maps (N, H, W), the sum over colours; for Score-CAM those of torch-cam."""
    if question.setting.method == "score-cam":
        return run_torchcam(question, batch)
    attribute = choose_captum(question)
    return np.concatenate([attribute(part).detach().sum(1).numpy() for part in question.images.split(batch)])


def choose_captum(question: Question) -> Callable[[Tensor], Tensor]:
    """captum's attribution of images (B, C, H, W): (B, C, H, W), for Grad-CAM (B, 1, H, W)."""
    from captum.attr import InputXGradient, IntegratedGradients, LayerAttribution, LayerGradCam, NoiseTunnel, Saliency

    setting, forward, target = question.setting, question.model.__call__, question.target
    gradient: dict[str, Any] = {"target": target, "abs": False}
    if setting.method == "gradient":
        return lambda images: Saliency(forward).attribute(images, **gradient)
    if setting.method == "gradient-x-input":
        return lambda images: InputXGradient(forward).attribute(images, target=target)
    if setting.method == "smoothgrad":
        noisy = {**gradient, "nt_samples": setting.samples, "nt_samples_batch_size": 1, "stdevs": 0.15}
        return lambda images: NoiseTunnel(Saliency(forward)).attribute(images, **noisy)
    if setting.method == "integrated-gradients":
        path = {"target": target, "baselines": 0, "n_steps": setting.steps, "method": "gausslegendre"}
        return lambda images: IntegratedGradients(forward).attribute(images, internal_batch_size=len(images), **path)
    cam = LayerGradCam(forward, question.model.layer(question.layer))
    maps, size = partial(cam.attribute, target=target, relu_attributions=True), (setting.size, setting.size)
    return lambda images: LayerAttribution.interpolate(maps(images), size, "bilinear")


def run_torchcam(question: Question, batch: int) -> Array:
    """torch-cam's maps (N, H, W), each with its largest value at one, as torch-cam gives them."""
    from torchcam.methods import ScoreCAM

    network, maps = question.model.network, []
    with ScoreCAM(network, question.layer, batch_size=batch) as cam:
        for image in question.model.normalised(question.images).split(1):
            with torch.no_grad():
                answer = network(image)
            maps.append(cam(question.target, answer)[0])  # (1, h, w)
    small = torch.stack(maps)  # (N, 1, h, w)
    return F.interpolate(small, question.images.shape[2:], mode="bilinear")[:, 0].numpy()


@dataclass(frozen=True)
class Comparison(Rounds):
    """What a row's runs gave. difference: see above."""

    difference: float


def compare(setting: Setting) -> Comparison:
    """Run both in turn, `rounds` times."""
    question = prepare_question(setting)
    run_ours(replace(question, images=question.images[:2]))  # what only the first run pays for
    captum = partial(run_captum, question)
    walls = {b: measure_time(partial(captum, b))[1].wall for b in setting.batches}
    batch = min(walls, key=walls.__getitem__)
    say(f"captum's seconds by batch: {', '.join(f'{b}: {wall:.1f}' for b, wall in walls.items())}")
    our_times, captum_times = [], []
    for _ in range(setting.rounds):
        expected, captum_time = measure_time(partial(captum, batch))
        ours, our_time = measure_time(partial(run_ours, question))
        say(f"{setting.network} {setting.method}: captum {captum_time.wall:.1f} s, ours {our_time.wall:.1f} s")
        captum_times.append(captum_time)
        our_times.append(our_time)
    return Comparison(batch, tuple(our_times), tuple(captum_times), measure_difference(ours, expected))


HEAD = "| network | method | ms per image ours / captum | captum's batch | ratio | in CPU time | difference |\n" + (
    "|" + "---|" * 7
)


def format_row(setting: Setting, found: Comparison) -> str:
    """The table's line."""
    ours, captum = (
        median(time.wall for time in times) * 1000 / setting.images for times in (found.our_times, found.captum_times)
    )
    cells = (
        setting.network,
        setting.method,
        f"{ours:.0f} / {captum:.0f}",
        str(found.batch),
        f"{1 / found.speedup:.2f}",
        f"{1 / found.cpu_speedup:.2f}",
        "-" if setting.method in ("smoothgrad", "score-cam") else f"{found.difference:.1e}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names of torchvision")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=(*METHODS, "score-cam"))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4, help="of SmoothGrad")
    parser.add_argument("--steps", type=int, default=8, help="of integrated gradients")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8, 32), help="what captum may choose from")
    options = vars(parser.parse_args())
    networks, methods = options.pop("networks"), options.pop("methods")
    options["batches"] = tuple(options["batches"])
    print(f"{describe_machine(options['threads'])}; {options['images']} images of {options['size']} px\n\n{HEAD}")
    for network in networks:
        for method in methods:
            setting = Setting(network=network, method=method, **options)
            print(format_row(setting, run_alone(compare, setting)), flush=True)


if __name__ == "__main__":
    main()

"""Do the figures of trust tell maps that mean something from maps that do not?

    python benchmarks/trust.py FOLDER --json trust.json
    python benchmarks/trust.py FOLDER --networks tiny planted --images 20 --planted 20

FOLDER holds `tiny-imagenet-200.tar.xz`, `images/photos/*.jpg` and `weights/`: networks that others have published.
Networks: `tiny` on validation images of Tiny ImageNet, published networks on photographs (those for CIFAR-10 get them
made small), and the network of `planted.py`, of which it is known what it needs.

For each image: maps of six methods for the class predicted, and for a class drawn at random, judged as if they were
reasons for the class predicted; and maps that have not looked at the network: the image's edges (Sobel), a blob in the
middle, and random fields. The image is covered once (`cover_image`), and all maps are judged from that, each with the
same method's map for the class of `choose_contrast`. Small images are covered and judged again, with other halves and
other null maps.

Printed: for each network and map the median of need, the shares of images with at least 90 and 95, the share called
supported and the share not to be read as reasons; then what the figures must keep, with what they reach.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import planted
import torch
from published import Cifar, Darknet, LeNet
from scipy.ndimage import gaussian_filter, sobel
from torch import Tensor, nn
from tqdm import tqdm
from trust_bars import EDGES, FIELD, HEAD, MIDDLE, PLANTED, Bar, Row, check_bars, describe_shift, format_table

import vizcnn
from vizcnn.errors import DegenerateResult, UnsuitableNetwork
from vizcnn.evaluation.cells import Maps
from vizcnn.evaluation.contrast import choose_contrast
from vizcnn.evaluation.coverings import Coverings, cover_image
from vizcnn.evaluation.judging import judge_map
from vizcnn.evaluation.nulls import make_middle
from vizcnn.models.targets import Target
from vizcnn.probing.probe import Probe
from vizcnn.results import Heatmap
from vizcnn.zoo import train_tiny

PUBLISHED = ("mobilenet_v2", "squeezenet1_0", "tiny_darknet", "cifar10_resnet20", "captum_cifar10_lenet")
FIELDS = 9  # random fields for each image, three of each smoothness
STEPS, SAMPLES = 8, 8  # of integrated gradients, and of SmoothGrad

_NORM = {"mean": train_tiny.MEAN, "std": train_tiny.STD}
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
AGAIN = 64  # px; larger images are not covered a second time, for the cost

_MOST = 2000  # photographs that the planted network is trained on


@dataclass(frozen=True)
class Question:
    """An image (C, H, W) and three classes: the one predicted, the contrast, and one drawn among the others."""

    model: vizcnn.Model
    image: Tensor
    score: float
    targets: tuple[Target, Target, Target]


def list_probes(size: tuple[int, int]) -> dict[str, Probe[Heatmap]]:
    """The methods by name. Occlusion moves its windows, a fifth of the image by default, by half a window."""
    return {
        "occlusion": vizcnn.Occlusion(stride=round(min(size) / 10), engine="plain"),
        "grad-cam": vizcnn.Cam(method="grad-cam"),
        "integrated-gradients": vizcnn.Saliency(method="integrated-gradients", steps=STEPS),
        "smoothgrad": vizcnn.Saliency(method="smoothgrad", samples=SAMPLES),
        "gradient": vizcnn.Saliency(method="gradient"),
        "guided-backprop": vizcnn.Saliency(method="guided-backprop"),
    }


def ask(model: vizcnn.Model, image: Tensor, seed: int) -> Question:
    """The question of an image; the seed draws the wrong class."""
    with model.borrowed(), torch.no_grad():
        output = model(image[None])[0]  # (K,)
    index = int(output.argmax())
    predicted = vizcnn.target(index).resolved(model)
    contrast = choose_contrast(model, predicted, output)
    if isinstance(contrast, str):
        raise SystemExit(f"{model.name}: {contrast}")
    others = [i for i in range(len(output)) if i != index and vizcnn.target(i).resolved(model) != contrast]
    wrong = vizcnn.target(int(np.random.default_rng(seed).choice(others))).resolved(model)
    return Question(model, image, float(output[index]), (predicted, contrast, wrong))


def make_maps(question: Question, probe: Probe[Heatmap]) -> list[Maps | None]:
    """The probe's maps (H, W) for the three classes; None where it refuses."""
    call = partial(probe, question.model, question.image[None], progress=False)
    try:
        return [*call(target=[*question.targets]).values[0].astype(np.float64)]
    except UnsuitableNetwork:
        return [None] * len(question.targets)
    except DegenerateResult:  # of one of the three: the others can be made
        return [_make_alone(call, target) for target in question.targets]


def _make_alone(call: Callable[..., Heatmap], target: Target) -> Maps | None:
    try:
        return cast(Maps, call(target=target).values[0, 0].astype(np.float64))
    except DegenerateResult:
        return None


def find_edges(image: Tensor) -> Maps:
    """The strength of the image's edges, (H, W): Sobel's, of its mean over colours."""
    grey = image.mean(0).double().numpy()
    return cast(Maps, np.hypot(sobel(grey, 0), sobel(grey, 1)))


def draw_field(size: tuple[int, int], number: int, seed: int) -> Maps:
    """A random field (H, W): white noise, smoothed by a 24th, a 12th or a 6th of the side, from a larger sheet, so that
    its edges do not meet."""
    noise = np.random.default_rng([seed, number]).standard_normal((2 * size[0], 2 * size[1]))
    field = gaussian_filter(noise, min(size) / (24, 12, 6)[number % 3])
    return cast(Maps, field[: size[0], : size[1]])


@contextmanager
def count_runs(model: vizcnn.Model) -> Iterator[list[int]]:
    """A list that grows by the number of images of each run of the network."""
    runs: list[int] = []
    handle = model.network.register_forward_pre_hook(lambda _, inputs: runs.append(len(inputs[0])))
    try:
        yield runs
    finally:
        handle.remove()


def cover(question: Question, seed: int) -> Coverings:
    """What covering costs the predicted class."""
    with question.model.borrowed():
        return cover_image(
            question.model,
            question.image,
            [question.targets[0]],
            np.array([question.score]),
            layout=torch.contiguous_format,
            seed=seed,
            shown=False,
        )


def judge_image(model: vizcnn.Model, name: str, image: Tensor, seed: int) -> tuple[list[Row], int]:
    """The rows of one image, and how many runs of the network the judging took."""
    question = ask(model, image, seed)
    size = (image.shape[1], image.shape[2])
    made = {method: make_maps(question, probe) for method, probe in list_probes(size).items()}
    blind = [(EDGES, find_edges(image)), (MIDDLE, make_middle(size))]
    blind += [(FIELD, draw_field(size, number, seed)) for number in range(FIELDS)]
    both = [cover(question, number) for number in range(1 + (min(size) <= AGAIN))]

    def judge(map_: str, is_wrong: bool, values: Maps | None, contrast: Maps | None) -> Row:
        if values is None:
            return Row(model.name, name, map_, is_wrong, None)
        other = np.zeros(size) if contrast is None else contrast  # a map that is zero everywhere is like none
        trust, *again = (
            judge_map(values, coverings, contrast=other, contrast_target=str(question.targets[1]), seed=number)
            for number, coverings in enumerate(both)
        )
        return Row(model.name, name, map_, is_wrong, trust, again[0].need if again else None)

    with count_runs(model) as runs:
        rows = [judge(method, False, own, contrast) for method, (own, contrast, _) in made.items()]
        rows += [judge(method, True, wrong, contrast) for method, (_, contrast, wrong) in made.items()]
        rows += [judge(map_, False, values, values) for map_, values in blind]
    return rows, sum(runs)


# ---- networks and images --------------------------------------------------------------------------------------------


def load_published(folder: Path, name: str, side: int = 224) -> vizcnn.Model:
    """One of PUBLISHED, from its file in the folder of weights. side: of its input, but for those of CIFAR-10."""
    (file,) = folder.glob(f"{name}.*pth")
    if name in ("mobilenet_v2", "squeezenet1_0"):
        model = vizcnn.load(f"{name}@{file}", input_size=side)
        model.name = name
        return model
    network, options = _describe(name, side)
    network.load_state_dict(torch.load(file, weights_only=True))
    return vizcnn.Model(network.eval(), name=name, **options)


def _describe(name: str, side: int) -> tuple[nn.Module, dict[str, Any]]:
    """A network without its weights, and the options of its Model."""
    if name == "tiny_darknet":
        return Darknet(), {"size": side, **_NORM}
    if name == "cifar10_resnet20":
        return Cifar(), {"size": 32, "labels": _CIFAR, **_NORM}
    return LeNet(), {"size": 32, "labels": _CIFAR, "mean": (0.5,) * 3, "std": (0.5,) * 3}


def read_photos(folder: Path, model: vizcnn.Model, count: int) -> Iterator[tuple[str, Tensor]]:
    """Photographs by name, the first ones of the folder, as inputs of the model."""
    for path in sorted(folder.glob("*.jpg"))[:count]:
        yield path.name, model.prepared(vizcnn.open_photo(path))[0]


def read_validation(archive: Path, count: int) -> Tensor:
    """Validation images of Tiny ImageNet (N, 3, 64, 64) in [0, 1], always the same ones."""
    images = train_tiny.validation_split(train_tiny.read_archive(archive)).images
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return images[torch.from_numpy(chosen)].float() / 255


def list_cases(options: argparse.Namespace) -> Iterator[tuple[vizcnn.Model, Iterable[tuple[str, Tensor]]]]:
    """Each network with its images by name."""
    archive = options.folder / "tiny-imagenet-200.tar.xz"
    is_small = {"tiny", PLANTED} & {*options.networks}
    photographs = read_validation(archive, options.images + _MOST) if is_small else torch.empty(0)
    for name in options.networks:
        if name == PLANTED:
            made = planted.make(photographs, held_out=max(options.planted, 1), epochs=options.epochs)
            print(f"planted: {made.accuracy:.0%} of {len(made.images)} images answered rightly", flush=True)
            images = made.images[: options.planted]
            yield made.model, ((str(i), image) for i, image in enumerate(images))
        elif name == "tiny":
            yield vizcnn.load(name), ((str(i), image) for i, image in enumerate(photographs[: options.images]))
        else:
            model = load_published(options.folder / "weights", name, options.side)
            yield model, read_photos(options.folder / "images" / "photos", model, options.photos)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of images and weights")
    names = ("tiny", *PUBLISHED, PLANTED)
    parser.add_argument("--networks", nargs="+", choices=names, default=names, metavar="NETWORK", help=" ".join(names))
    parser.add_argument("--images", type=int, default=100, help="validation images for tiny")
    parser.add_argument("--photos", type=int, default=20, help="photographs for each published network")
    parser.add_argument("--side", type=int, default=224, help="of the photographs that networks of ImageNet get, in px")
    parser.add_argument("--planted", type=int, default=60, help="images with a planted tag")
    parser.add_argument("--epochs", type=int, default=8, help="of the planted network's training")
    parser.add_argument("--json", type=Path, help="a file for all figures of all maps")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> list[Bar]:
    options = parse(arguments)
    rows: list[Row] = []
    runs = 0
    print(f"{HEAD}\n{'|---' * (HEAD.count('|') - 1)}|", flush=True)
    for model, cases in list_cases(options):
        own: list[Row] = []
        for seed, (name, image) in enumerate(tqdm(cases, desc=model.name, leave=False)):
            some, more = judge_image(model, name, image, seed)
            own, runs = own + some, runs + more
        print("\n".join(format_table(own)), flush=True)
        rows += own
        if options.json:
            text = {"rows": [row.summary() for row in rows], "bars": [bar.__dict__ for bar in check_bars(rows)]}
            options.json.write_text(json.dumps(text))
    bars = check_bars(rows)
    print("\n| bar | bound | reached | | by network |\n|---|---|---|---|---|")
    print("\n".join(bar.format() for bar in bars))
    print(f"\n{describe_shift(rows)}")
    print(f"Judging {len(rows)} maps against 100 null maps each took {runs} runs of the network.")
    return bars


if __name__ == "__main__":
    main()

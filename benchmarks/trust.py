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
from statistics import median
from typing import Any, cast

import numpy as np
import planted
import torch
from published import Cifar, Darknet, LeNet
from scipy.ndimage import gaussian_filter, sobel
from torch import Tensor, nn
from tqdm import tqdm

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
from vizcnn.results.trust import Trust
from vizcnn.zoo import train_tiny

METHODS = ("occlusion", "grad-cam", "integrated-gradients", "smoothgrad", "gradient", "guided-backprop")
EDGES, MIDDLE, FIELD = "edges (Sobel)", "blob in the middle", "random field"
PLANTED = "planted"
PUBLISHED = ("mobilenet_v2", "squeezenet1_0", "tiny_darknet", "cifar10_resnet20", "captum_cifar10_lenet")
FIELDS = 9  # random fields for each image, three of each smoothness
STEPS, SAMPLES = 8, 8  # of integrated gradients, and of SmoothGrad

_NORM = {"mean": train_tiny.MEAN, "std": train_tiny.STD}
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
AGAIN = 64  # px; larger images are not covered a second time, for the cost

_MOST = 2000  # photographs that the planted network is trained on


@dataclass(frozen=True)
class Row:
    """A map and what was said of it. is_wrong: it is another class's. trust: None where the method refuses. again: need
    with other halves and other null maps."""

    network: str
    image: str
    map: str
    is_wrong: bool
    trust: Trust | None
    again: float | None = None

    @property
    def name(self) -> str:
        return self.map + " of a wrong class" * self.is_wrong

    def reaches(self, need: float) -> bool:
        return self.trust is not None and self.trust.need >= need

    @property
    def is_supported(self) -> bool:
        return self.trust is not None and self.trust.verdict == "supported"

    @property
    def is_class_free(self) -> bool:
        return self.trust is not None and self.trust.verdict == "do not read as reasons"

    def summary(self) -> dict[str, Any]:
        what = {"network": self.network, "image": self.image, "map": self.map, "is_wrong": self.is_wrong}
        return {**what, "again": self.again, "trust": self.trust and self.trust.summary()}


@dataclass(frozen=True)
class Question:
    """An image (C, H, W) and three classes: the one predicted, the contrast, and one drawn among the others."""

    model: vizcnn.Model
    image: Tensor
    score: float
    targets: tuple[Target, Target, Target]


def list_probes(size: tuple[int, int]) -> dict[str, Probe[Heatmap]]:
    """The methods by name. Occlusion takes windows of a quarter of the image, and moves them by half a window."""
    side = min(size) // 4
    return {
        "occlusion": vizcnn.Occlusion(window=side, stride=side // 2, engine="plain"),
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


# ---- what is printed ------------------------------------------------------------------------------------------------

HEAD = "| network | map | maps | refused | need, median | at least 90 | at least 95 | supported | not reasons |"


def measure_share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> float:
    return sum(map(holds, rows)) / max(len(rows), 1)


def format_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each kind of map of one network; shares are of all maps, a refused one among them."""
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        needs = [row.trust.need for row in own if row.trust]
        middle = f"{median(needs):.0f}" if needs else "-"
        columns = (lambda row: row.reaches(90), lambda row: row.reaches(95), lambda row: row.is_supported)
        shares = [f"{measure_share(own, holds):.0%}" for holds in (*columns, lambda row: row.is_class_free)]
        cells = [own[0].network, name, str(len(own)), str(len(own) - len(needs)), middle, *shares]
        yield f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Bar:
    """What a share of the maps must keep. least: whether the bound is the least share, else the most.

    rows: of which maps; by_network: the share for each network."""

    what: str
    bound: float
    least: bool
    share: float
    count: int
    by_network: dict[str, float]

    @property
    def is_kept(self) -> bool:
        return self.share >= self.bound if self.least else self.share <= self.bound

    def format(self) -> str:
        each = ", ".join(f"{name} {share:.0%}" for name, share in self.by_network.items())
        bound = f"{'at least' if self.least else 'at most'} {self.bound:.0%}"
        kept = "kept" if self.is_kept else "**not kept**"
        return f"| {self.what} | {bound} | {self.share:.1%} of {self.count} | {kept} | {each} |"


def check_bars(rows: Sequence[Row]) -> list[Bar]:
    """What the figures must keep, with what they reach; without those of which there are no maps.

    Bars of photographs are over all networks but the planted one."""

    def take(name: str, is_planted: bool = False) -> list[Row]:
        return [row for row in rows if row.name == name and (row.network == PLANTED) == is_planted]

    def make(what: str, bound: float, least: bool, own: list[Row], holds: Callable[[Row], bool]) -> Bar:
        networks = dict.fromkeys(row.network for row in own)
        shares = {name: measure_share([row for row in own if row.network == name], holds) for name in networks}
        return Bar(what, bound, least, measure_share(own, holds), len(own), shares)

    again = [row for row in rows if row.again is not None and row.map in METHODS]
    wrong = "guided-backprop of a wrong class"
    bars = [
        make("random fields: need at least 90", 0.10, False, take(FIELD), lambda row: row.reaches(90)),
        make(f"{EDGES}: supported", 0, False, take(EDGES), lambda row: row.is_supported),
        make(f"{MIDDLE}: supported", 0, False, take(MIDDLE), lambda row: row.is_supported),
        make(f"{wrong}: supported", 0.05, False, take(wrong), lambda row: row.is_supported),
        make("occlusion: supported", 0.95, True, take("occlusion"), lambda row: row.is_supported),
        *(
            make(f"planted, {name}: need at least 95", 0.95, True, take(name, True), lambda row: row.reaches(95))
            for name in ("occlusion", "integrated-gradients")
        ),
        make("planted, grad-cam: need at least 90", 0.10, False, take("grad-cam", True), lambda row: row.reaches(90)),
        make("two seeds: need on the same side of 90", 0.85, True, again, _is_repeated),
    ]
    return [bar for bar in bars if bar.count]


def _is_repeated(row: Row) -> bool:
    return row.trust is not None and row.again is not None and row.reaches(90) == (row.again >= 90)


def measure_shift(rows: Sequence[Row]) -> float:
    """By how much need moves with other halves and other null maps, the median over maps of the methods."""
    shifts = [
        abs(row.trust.need - row.again) for row in rows if row.map in METHODS and row.trust and row.again is not None
    ]
    return median(shifts)


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
    print(f"\nWith other halves and null maps need moves by {measure_shift(rows):.0f} (median).")
    print(f"Judging {len(rows)} maps against 100 null maps each took {runs} runs of the network.")
    return bars


if __name__ == "__main__":
    main()

"""Networks whose shortcut is known: trained in seconds on images with a planted cue, and asked whether they use it.

    python benchmarks/planted_networks.py CACHE --mnist path/to/mnist --photos tiny-imagenet-200.tar.xz --seeds 1 2 3

A planted cue is no ground truth: many networks learn the object all the same. So each network gets its *oracle*, from
images that nothing else sees: the share of the class's images that is lost when the cue is not planted, and the share
of other images that becomes the class when it is.

Everything is kept in CACHE and used again: images, weights, and a line of `networks.jsonl` for each network.
"""

from __future__ import annotations

import argparse
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from planted_cues import COPIED, VARIED, Box, Cue, compress, make_cue
from torch import Tensor, nn

import vizcnn
from vizcnn.zoo import train_mnist, train_tiny

CLASSES = 10
TRAINING, AUDITED = 300, 128  # images of each class
PRETRAINING = 24  # classes from which photographs' first layer is learned
CENTRE = {"digits": (0.13, 0.31), "photos": (0.45, 0.27)}  # mean and deviation of the pixels

Pixels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """Labelled images: pixels (N, C, H, W) in [0, 1], labels (N,), and the classes' names."""

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def pick(self, per_class: int) -> Images:
        """The first `per_class` images of each class."""
        chosen = torch.cat([torch.where(self.labels == c)[0][:per_class] for c in range(len(self.names))])
        return Images(self.pixels[chosen], self.labels[chosen], self.names)


@dataclass(frozen=True)
class Case:
    """A network to train. where: the cue is planted in `one` class, in `all` classes alike, or in `none`.

    share: of the training images of such a class that carry the cue.
    """

    data: str
    kind: str
    where: str
    share: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.kind}-{self.where}-{round(100 * self.share)}-{self.seed}"

    @property
    def label(self) -> int:
        """The class that has the cue, where only one has it; the same for all shares."""
        return self.draw("class").integers(CLASSES).item()

    @property
    def cue(self) -> Cue:
        channels, side = (1, 28) if self.data == "digits" else (3, 64)
        return make_cue(self.kind, channels, side, self.seed)

    def draw(self, purpose: str) -> np.random.Generator:
        """Random numbers for this purpose, the same whenever asked."""
        return np.random.default_rng(zlib.crc32(f"{self.data} {self.kind} {self.seed} {purpose}".encode()))


def list_cases(seeds: Iterable[int], data: Iterable[str]) -> Iterator[Case]:
    """Networks with a cue in one class, and innocent ones: with a cue in all classes, or with none."""
    for seed, name in product(seeds, data):
        for kind in (*COPIED, "tint"):
            for share in (0.2, 1.0):
                yield Case(name, kind, "one", share, seed)
            yield Case(name, kind, "all", (0.2, 0.5, 1.0)[seed % 3], seed)
        for kind in VARIED:
            yield Case(name, kind, "one", 0.5, seed)
        yield Case(name, VARIED[seed % 4], "all", 0.5, seed)
        yield Case(name, "corner", "none", 0.0, seed)


# Images


def read_images(cache: Path, data: str, seed: int, mnist: Path, photos: Path) -> tuple[Images, Images]:
    """Images to train on and others to audit, for this seed. Of photographs ten classes are drawn."""
    file = cache / f"{data}-{seed}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made, given = _read_digits(mnist, seed) if data == "digits" else _read_photos(photos, seed)
        np.savez(file, pixels=made, names=given)
    with np.load(file) as kept:
        pixels, names = torch.from_numpy(kept["pixels"]).float() / 255, tuple(map(str, kept["names"]))
    training, audited = pixels[:, :TRAINING], pixels[:, TRAINING:]  # (10, n, C, H, W)
    return _label(training, names), _label(audited, names)


def _label(pixels: Tensor, names: tuple[str, ...]) -> Images:
    """Images (K, n, C, H, W) of K classes as labelled ones."""
    return Images(pixels.flatten(0, 1), torch.arange(len(pixels)).repeat_interleave(pixels.shape[1]), names)


def _read_digits(folder: Path, seed: int) -> tuple[Pixels, list[str]]:
    """Pixels (10, TRAINING + AUDITED, 1, 28, 28) and names; those to audit are of the test set."""
    random, parts = np.random.default_rng(seed), []
    for part, count in (("train", TRAINING), ("t10k", AUDITED)):
        images, labels = train_mnist.read_digits(folder, part)
        chosen = [random.permutation(np.flatnonzero(labels.numpy() == c))[:count] for c in range(CLASSES)]
        parts.append((images[np.stack(chosen)] * 255).round().byte().numpy())
    return np.concatenate(parts, 1), [str(c) for c in range(CLASSES)]


def _read_photos(archive: Path, seed: int) -> tuple[Pixels, list[str]]:
    """Pixels (10, TRAINING + AUDITED, 3, 64, 64) and names of ten classes."""
    members = train_tiny.read_archive(archive)
    wnids, names = train_tiny.read_classes(members)
    random = np.random.default_rng(seed)
    chosen = random.choice(np.arange(PRETRAINING, len(wnids)), CLASSES, replace=False)
    pixels = np.stack([_decode(members, wnids[c], TRAINING + AUDITED, random) for c in chosen])
    return pixels, [names[c] for c in chosen]


def _decode(members: train_tiny.Members, wnid: str, count: int, random: np.random.Generator) -> Pixels:
    """Images (count, 3, 64, 64) of a class."""
    files = sorted(name for name in members if name.startswith(f"train/{wnid}/images/"))
    chosen = random.permutation(np.array(files))[:count]
    decoded = [np.asarray(Image.open(io.BytesIO(members[str(name)])).convert("RGB")) for name in chosen]
    return np.stack(decoded).transpose(0, 3, 1, 2)


def plant(images: Images, case: Case, share: float, purpose: str) -> tuple[Images, Flags, list[Box | None]]:
    """The images with the case's cue in that share of one class, of all or of none: which carry it (N,), and where."""
    random, pixels = case.draw(purpose), images.pixels.clone()
    carries = np.zeros(len(pixels), bool)
    boxes: list[Box | None] = [None] * len(pixels)
    chosen = {"one": [case.label], "all": [*range(CLASSES)], "none": []}[case.where]
    for label in chosen:
        members = random.permutation(np.flatnonzero(images.labels.numpy() == label))
        for i in members[: max(1, round(share * len(members)))]:
            pixels[i], boxes[i] = case.cue.plant(pixels[i], random)
            carries[i] = True
    pixels = compress(pixels) if case.kind == "jpeg" and case.where != "none" else pixels
    return Images(pixels, images.labels, images.names), carries, boxes


# Networks


class MeanAndMaximum(nn.Module):
    """The mean and the maximum over all places, (N, 2 C): something small anywhere reaches the decision."""

    def forward(self, activations: Tensor) -> Tensor:
        return torch.cat([activations.mean((2, 3)), activations.amax((2, 3))], 1)


def _make_block(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
    kernel = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return [kernel, nn.BatchNorm2d(outputs), nn.ReLU()]


def make_network(data: str, classes: int = CLASSES) -> nn.Sequential:
    """A small network for digits (N, 1, 28, 28) or photographs (N, 3, 64, 64)."""
    if data == "photos":
        stem = [*_make_block(3, 16, 5, 2), nn.MaxPool2d(2)]
        widths = (16, 48, 96)
    else:
        stem = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        widths = (12, 24, 48)
    body = [*_make_block(widths[0], widths[1], 3), nn.MaxPool2d(2), *_make_block(widths[1], widths[2], 3)]
    return nn.Sequential(nn.Sequential(*stem), *body, MeanAndMaximum(), nn.Linear(2 * widths[2], classes))


def normalise(pixels: Tensor, data: str) -> Tensor:
    mean, deviation = CENTRE[data]
    return (pixels - mean) / deviation


def fit(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    """Train the network, by AdamW with one cycle of the learning rate; in eval mode afterwards."""
    random, batch = torch.Generator().manual_seed(seed), 64
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-2)
    steps = epochs * -(-len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs), generator=random).split(batch):
            loss = F.cross_entropy(network(inputs[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def train_stem(cache: Path, photos: Path) -> dict[str, Tensor]:
    """Weights of the first layer for photographs, learned from classes that no case has; kept."""
    file = cache / "stem.pt"
    if not file.exists():
        members = train_tiny.read_archive(photos)
        random = np.random.default_rng(0)
        wnids = train_tiny.read_classes(members)[0][:PRETRAINING]
        pixels = torch.from_numpy(np.concatenate([_decode(members, wnid, 250, random) for wnid in wnids]))
        torch.manual_seed(0)
        network = make_network("photos", PRETRAINING)
        labels = torch.arange(PRETRAINING).repeat_interleave(250)
        fit(network, normalise(pixels.float() / 255, "photos"), labels, 5, 6e-3, 0)
        torch.save(network[0].state_dict(), file)
    kept: dict[str, Tensor] = torch.load(file, weights_only=True)
    return kept


def train(case: Case, images: Images, stem: dict[str, Tensor] | None) -> nn.Sequential:
    """The case's network. stem: weights of its first layer, which stays as it is and is computed once."""
    torch.manual_seed(case.draw("weights").integers(2**31))
    network = make_network(case.data)
    inputs = normalise(images.pixels, case.data)
    seed = case.draw("order").integers(2**31).item()
    if stem is None:
        fit(network, inputs, images.labels, 4, 1e-2, seed)
        return network
    network[0].load_state_dict(stem)
    network.eval()
    with torch.no_grad():
        features = torch.cat([network[0](batch) for batch in inputs.split(128)])  # (N, 16, 16, 16)
    fit(network[1:], features, images.labels, 5, 5e-3, seed)
    return network.eval()


def wrap(network: nn.Sequential, data: str, names: tuple[str, ...]) -> vizcnn.Model:
    """The network as a Model."""
    channels, side = (1, 28) if data == "digits" else (3, 64)
    mean, deviation = ([value] * channels for value in CENTRE[data])
    return vizcnn.Model(network, size=side, channels=channels, mean=mean, std=deviation, labels=names, name=data)


@torch.no_grad()
def predict(model: vizcnn.Model, pixels: Tensor) -> Tensor:
    """The classes (N,) that the model names."""
    with model.borrowed():
        return torch.cat([model(batch).argmax(1) for batch in pixels.split(128)])


@dataclass(frozen=True)
class Oracle:
    """How far a network uses its cue, known because we can plant it.

    lost: the share of the class's images that are named with the cue and no longer without. flipped: the share of
    other images that become the class with it. accuracy: on images without any cue.
    """

    lost: float
    flipped: float
    accuracy: float

    @property
    def use(self) -> float:
        return max(self.lost, self.flipped)


def ask_oracle(model: vizcnn.Model, case: Case, clean: Images) -> Oracle:
    """What planting the cue in clean images changes; of a cue in all classes for the class that would have it alone."""
    random = case.draw("oracle")
    planted = torch.stack([case.cue.plant(image, random)[0] for image in clean.pixels])  # (N, C, H, W)
    plain = clean.pixels
    if case.kind == "jpeg":
        planted, plain = compress(planted), compress(plain)
    before, after = predict(model, plain), predict(model, planted)  # (N,)
    inside, others = clean.labels == case.label, (clean.labels != case.label) & (before != case.label)
    lost = ((after == case.label) & (before != case.label))[inside].float().mean().item()
    flipped = (after == case.label)[others].float().mean().item()
    return Oracle(lost, flipped, (before == clean.labels).float().mean().item())


@dataclass(frozen=True)
class Workshop:
    """Where data lies, and the folder that keeps what was made of it."""

    cache: Path
    mnist: Path
    photos: Path

    def read(self, case: Case) -> tuple[Images, Images]:
        return read_images(self.cache, case.data, case.seed, self.mnist, self.photos)

    def find_model(self, case: Case) -> vizcnn.Model:
        """The case's network, trained where the cache does not have it."""
        training, audited = self.read(case)
        file = self.cache / "networks" / f"{case.name}.pt"
        if file.exists():
            network = make_network(case.data)
            network.load_state_dict(torch.load(file, weights_only=True))
            return wrap(network.eval(), case.data, audited.names)
        stem = train_stem(self.cache, self.photos) if case.data == "photos" else None
        network = train(case, plant(training, case, case.share, "training")[0], stem)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), file)
        model = wrap(network, case.data, audited.names)
        write_line(self.cache / "networks.jsonl", asdict(case) | asdict(ask_oracle(model, case, audited)))
        return model

    def find_oracle(self, case: Case) -> Oracle:
        """What `networks.jsonl` says of the case."""
        wanted = asdict(case)
        for line in read_lines(self.cache / "networks.jsonl"):
            if wanted.items() <= line.items():
                return Oracle(line["lost"], line["flipped"], line["accuracy"])
        return ask_oracle(self.find_model(case), case, self.read(case)[1])


def write_line(file: Path, record: dict[str, object]) -> None:
    """Append a record, so that a run which is stopped loses none."""
    with file.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All records of the file, none if there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where data lies and which seeds are meant."""
    parser.add_argument("cache", type=Path, help="folder for images, networks and findings")
    parser.add_argument("--mnist", type=Path, required=True, help="folder of the four official files")
    parser.add_argument("--photos", type=Path, required=True, help="Tiny ImageNet as a tar file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", nargs="+", default=["digits", "photos"], choices=["digits", "photos"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    workshop = Workshop(options.cache, options.mnist, options.photos)
    for case in list_cases(options.seeds, options.data):
        workshop.find_model(case)
        oracle = workshop.find_oracle(case)
        print(
            f"{case.name:28} lost {oracle.lost:.2f} flipped {oracle.flipped:.2f} accuracy {oracle.accuracy:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Teach a bundled network the classes of your own images: transfer learning in one command.

    python -m vizcnn.zoo.train_own photos --network tiny --out birds.safetensors
    vizcnn occlusion photos/wren/1.jpg -m birds.safetensors

The folder has a sub-folder of images for each class. What the network has learned from its own images is kept:

1. The last layer is replaced by one for your classes. What arrives at it, the bottleneck features, does not change
   while it learns, so the network runs once on each image, and only this layer is trained.
2. Then all layers learn on, at a small rate, from images that are shifted a little each time.

A part of each class is held out; after each epoch the share of it that is named rightly is printed, and the epoch that
does best is kept: in FILE.safetensors, which -m takes, with the curve beside it in FILE.png. Ctrl-C keeps the best so
far.
"""

from __future__ import annotations

import argparse
import copy
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizcnn.errors import OutputError, ParameterError, VizcnnError
from vizcnn.inputs.records import provenance_in
from vizcnn.models.loading import load
from vizcnn.models.model import Model
from vizcnn.models.sources.bundled import list_names, read_card
from vizcnn.output import refuse_unwritable
from vizcnn.progress import bar
from vizcnn.results import Curve, Provenance
from vizcnn.version import __version__
from vizcnn.zoo.own_images import Examples, read_examples, split_examples
from vizcnn.zoo.shipping import refuse_foreign, save_own

MAKER = "vizcnn.zoo.train_own"
STAGES = ("last layer", "all layers")
_BATCH, _SHIFT = 32, 1 / 16  # images of a step; how far they are shifted at most, of their side
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is taught.

    last, all: epochs in which only the last layer learns, and all of them. rate: of all layers; the last layer alone
    learns at `last_rate`. Both go down to zero along half a cosine.
    held_out: the share of each class that tells how well it was learned. seed: which images these are, and their order.
    """

    last: int = 20
    all: int = 10
    last_rate: float = 1e-2
    rate: float = 1e-4
    decay: float = 1e-2
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.last < 1 or self.all < 0:
            raise ParameterError(f"epochs: 1 or more of the last layer, 0 or more of all, got {self.last}, {self.all}")
        if not 0 < self.held_out <= 0.5:
            raise ParameterError(f"the share held out is above 0 and at most 0.5, got {self.held_out}")
        if not (0 < self.last_rate < math.inf and 0 < self.rate < math.inf):
            raise ParameterError(f"rates are positive, got {self.last_rate} and {self.rate}")


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: how many held-out images are named rightly, their mean loss, and the share of the images
    that teach which were named rightly when their turn came."""

    stage: str
    right: int
    loss: float
    taught: float


@dataclass
class Lesson:
    """A network while it is taught. best: the state of the epoch that named most held-out images rightly, of several
    the one with the smallest loss; None before the first."""

    network: nn.Module
    taught: Examples
    held: Examples
    recipe: Recipe
    normalise: Callable[[Tensor], Tensor]
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_epoch: int = 0

    def run(self, tell: Callable[[Lesson], None], *, progress: bool = True) -> None:
        """Teach the last layer, then all, and call `tell` after each epoch. The network ends in its best state, also
        after KeyboardInterrupt, which is raised on."""
        self.network.eval()  # normalisation keeps the statistics of the many images that the network was trained on
        try:
            self._teach_last(tell, progress)
            self._teach_all(tell, progress)
        finally:
            if self.best is not None:
                self.network.load_state_dict(self.best)

    def _teach_last(self, tell: Callable[[Lesson], None], progress: bool) -> None:
        """On bottleneck features, which are computed once."""
        last = self.network.get_submodule(find_last(self.network))
        taught, held = (self.compute_features(each.inputs, progress=progress) for each in (self.taught, self.held))
        steps = _Steps(last, self.recipe.last_rate, self.recipe.decay, self.recipe.last, len(taught))
        for epoch in range(self.recipe.last):
            right = 0
            for chosen in self._shuffle(epoch):
                right += steps.take(last(taught[chosen]), self.taught.labels[chosen])
            with torch.no_grad():
                self._finish(STAGES[0], last(held), right)
            tell(self)

    def _teach_all(self, tell: Callable[[Lesson], None], progress: bool) -> None:
        if not self.recipe.all:
            return
        assert self.best is not None  # the last layer has learned at least for an epoch
        self.network.load_state_dict(self.best)
        steps = _Steps(self.network, self.recipe.rate, self.recipe.decay, self.recipe.all, len(self.taught))
        for epoch in range(self.recipe.all):
            right = 0
            random = torch.Generator().manual_seed(self.recipe.seed + epoch)
            with bar(len(self.taught), "all layers", "image", shown=progress) as moved:
                for chosen in self._shuffle(self.recipe.last + epoch):
                    shifted = shift(self.taught.inputs[chosen], random)  # (B, C, H, W)
                    right += steps.take(self.network(self.normalise(shifted)), self.taught.labels[chosen])
                    moved.update(len(chosen))
            self._finish(STAGES[1], self._run(self.network, self.held.inputs), right)
            tell(self)

    def compute_features(self, inputs: Tensor, *, progress: bool = False) -> Tensor:
        """What arrives at the last layer, float32 (N, F), for images (N, C, H, W)."""
        name = find_last(self.network)
        body = copy.deepcopy(self.network)
        _replace(body, name, nn.Identity())
        return self._run(body, inputs, progress=progress)

    @torch.no_grad()
    def _run(self, network: nn.Module, inputs: Tensor, *, progress: bool = False) -> Tensor:
        """What a network says of images, (N, K), without learning from them."""
        with bar(len(inputs), "running", "image", shown=progress) as moved:
            parts = []
            for part in inputs.split(2 * _BATCH):
                parts.append(network(self.normalise(part)))
                moved.update(len(part))
        return torch.cat(parts)

    def _shuffle(self, epoch: int) -> Sequence[Tensor]:
        """The numbers of the images that teach, in batches."""
        random = torch.Generator().manual_seed(1000 * self.recipe.seed + epoch)
        order = torch.randperm(len(self.taught), generator=random)
        return [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]

    def _finish(self, stage: str, logits: Tensor, right: int) -> None:
        """Note what an epoch came to, and keep its state if it is the best. logits: of the held-out images, (N, K)."""
        labels = self.held.labels
        found, loss = int((logits.argmax(1) == labels).sum()), F.cross_entropy(logits, labels).item()
        is_best = not self.epochs or (found, -loss) > (self.best_one.right, -self.best_one.loss)
        self.epochs.append(Epoch(stage, found, loss, right / len(self.taught)))
        if is_best:
            best = copy.deepcopy(self.network.state_dict())
            self.best, self.best_epoch = best, len(self.epochs) - 1

    @property
    def best_one(self) -> Epoch:
        return self.epochs[self.best_epoch]


class _Steps:
    """Steps of AdamW, whose rate goes down to zero along half a cosine."""

    def __init__(self, part: nn.Module, rate: float, decay: float, epochs: int, images: int) -> None:
        self._optimiser = torch.optim.AdamW(part.parameters(), rate, weight_decay=decay)
        self._rate, self._done, self._total = rate, 0, epochs * -(-images // _BATCH)

    def take(self, logits: Tensor, labels: Tensor) -> int:
        """Learn from a batch, and tell how many of it were named rightly before. logits: (B, K). labels: (B,)."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * 0.5 * (1 + math.cos(math.pi * self._done / self._total))
        self._optimiser.zero_grad()
        F.cross_entropy(logits, labels).backward()
        self._optimiser.step()
        self._done += 1
        return int((logits.argmax(1) == labels).sum())


def find_last(network: nn.Module) -> str:
    """The dotted name of the last dense layer."""
    *_, last = (name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    return str(last)


def replace_last(network: nn.Module, classes: int) -> None:
    """Put a dense layer for so many classes in the place of the last, with weights of zero: it has no opinion yet."""
    name = find_last(network)
    old = network.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, classes, device="meta").to_empty(device="cpu")  # draws no random weights
    nn.init.zeros_(new.weight)
    nn.init.zeros_(new.bias)
    _replace(network, name, new)


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, new)


def shift(images: Tensor, random: torch.Generator) -> Tensor:
    """Images (N, C, H, W), each moved by up to a sixteenth of its sides; what comes in is its mirrored edge."""
    n, _, h, w = images.shape
    reach = max(1, round(_SHIFT * h)), max(1, round(_SHIFT * w))
    padded = F.pad(images, [reach[1], reach[1], reach[0], reach[0]], "reflect")  # (N, C, H + 2 reach, W + 2 reach)
    tops, lefts = (torch.randint(0, 2 * each + 1, (n,), generator=random).tolist() for each in reach)
    return torch.stack([padded[i, :, tops[i] : tops[i] + h, lefts[i] : lefts[i] + w] for i in range(n)])


def begin(examples: Examples, name: str, recipe: Recipe) -> Lesson:
    """A lesson for a bundled network with these images."""
    model = load(name)
    replace_last(model.network, len(examples.classes))
    taught, held = split_examples(examples, recipe.held_out, recipe.seed)
    return Lesson(model.network, taught, held, recipe, _find_normalisation(model))


def _find_normalisation(model: Model) -> Callable[[Tensor], Tensor]:
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (model.input.mean, model.input.std))
    return lambda images: (images - mean) / std


def describe_epoch(lesson: Lesson) -> str:
    """What the last epoch came to, in a line."""
    epoch, count = lesson.epochs[-1], len(lesson.held)
    share = f"{100 * epoch.right / count:5.1f}% of the held-out images ({epoch.right} of {count})"
    return f"epoch {len(lesson.epochs):3}  {epoch.stage}  {share}, {100 * epoch.taught:5.1f}% while learning"


def describe_best(lesson: Lesson) -> str:
    """What the kept state can do, and how far that can be believed."""
    from scipy.stats import binomtest

    best, count = lesson.best_one, len(lesson.held)
    low, high = binomtest(best.right, count).proportion_ci(method="wilson")
    return (
        f"kept: epoch {lesson.best_epoch + 1}, {best.stage}, which names {100 * best.right / count:.1f}% of {count} "
        f"held-out images rightly. On so few it says that the true share is {100 * low:.0f} to {100 * high:.0f}% (95% "
        "interval); and these images also chose the epoch, which flatters it a little"
    )


def describe_task(lesson: Lesson, examples: Examples) -> str:
    counts = torch.bincount(lesson.held.labels)
    commonest = 100 * int(counts.max()) / len(lesson.held)
    return (
        f"{len(examples.classes)} classes, {len(examples)} images: {len(lesson.taught)} teach, {len(lesson.held)} are "
        f"held out. Whoever always names the commonest class is right for {commonest:.1f}% of these"
    )


def write_card(lesson: Lesson, name: str, folder: str) -> dict[str, Any]:
    """What the file says of itself."""
    best, count, recipe = lesson.best_one, len(lesson.held), lesson.recipe
    return {
        "network": name,
        "input": read_card(name)["input"],
        "labels": [*lesson.held.classes],
        "accuracy": {
            "data": f"{count} held-out images of {folder}, which also chose the epoch",
            "top1": round(100 * best.right / count, 2),
        },
        "data": f"{len(lesson.taught)} images of {folder}, from the weights of {name}",
        "maker": MAKER,
        "recipe": vars(recipe),
        "epoch": f"{lesson.best_epoch + 1} of {len(lesson.epochs)}",
    }


def draw_curve(lesson: Lesson, model: Model, folder: str, *, partial: bool) -> Curve:
    """The accuracies after each epoch. model: the one that was kept."""
    recipe, count = lesson.recipe, len(lesson.epochs)
    held = [100 * epoch.right / len(lesson.held) for epoch in lesson.epochs]
    taught = [100 * epoch.taught for epoch in lesson.epochs]
    all_layers = f"; from epoch {recipe.last + 1} on all layers learn" if count > recipe.last else ""
    origin = Provenance(
        version=__version__,
        torch=torch.__version__,
        probe="train_own",
        options=vars(recipe),
        details={"images": f"{len(lesson.taught)}+{len(lesson.held)}"},
        **model.provenance(),
        device="cpu",
        images=(),
        targets=(),
        target_specs=(),
        seed=recipe.seed,
        paper="",
    )
    return Curve(
        origin,
        np.arange(1, count + 1, dtype=np.float64),
        np.array([held, taught]),
        ("held-out images", "images that teach, while they do"),
        x_name="epoch",
        y_name="named rightly",
        y_unit="%",
        title=f"{model.name}: {len(lesson.held.classes)} classes of {folder}{all_layers}",
        findings=(describe_best(lesson),),
        partial=partial,
        has_areas=False,
    )


def teach(folder: Path, name: str, out: Path, recipe: Recipe) -> bool:
    """Teach, print, and write the file and its curve. Gives whether Ctrl-C ended it early.

    Raises VizcnnError, and KeyboardInterrupt where there is nothing to keep yet."""
    curve = out.with_suffix(".png")
    _refuse_taken(out, curve)
    examples = read_examples(folder, load(name).input)
    for line in examples.left_out:
        print(f"left out: {line}", file=sys.stderr)
    lesson = begin(examples, name, recipe)
    print(describe_task(lesson, examples), flush=True)
    stopped = False
    try:
        lesson.run(lambda each: print(describe_epoch(each), flush=True))
    except KeyboardInterrupt:
        if lesson.best is None:
            raise
        stopped = True
    save_own(lesson.network, out, write_card(lesson, name, folder.name))
    print(describe_best(lesson))
    drawn = ""
    if len(lesson.epochs) > 1:  # a single point is no curve
        draw_curve(lesson, load(str(out)), folder.name, partial=stopped).save(curve)
        drawn = f", and the curve in {curve}"
    print(f"  {out}{drawn}. Look at an image with: vizcnn occlusion IMAGE -m {shlex.quote(str(out))}")
    return stopped


def _refuse_taken(out: Path, curve: Path) -> None:
    """Raise an error, before anything is done, where a file cannot be written, or is not of this script."""
    if out.suffix != ".safetensors":
        raise ParameterError(f"the weights go into a file ending in .safetensors, got {out}")
    for file in (out, curve):
        refuse_unwritable(file)
    refuse_foreign(out, MAKER)
    if curve.exists() and (provenance_in(curve) or {}).get("probe") != "train_own":
        raise OutputError(f"{curve} exists and is no curve of {MAKER}; it was left alone. Choose another --out")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Recipe()
    parser.add_argument("folder", type=Path, help="folder with a sub-folder of images for each class")
    parser.add_argument("--network", choices=list_names(), default="tiny", help="the bundled network (%(default)s)")
    parser.add_argument("--out", type=Path, help="the file to write; by default FOLDER.safetensors here")
    parser.add_argument("--last", type=int, default=usual.last, help="epochs of the last layer alone (%(default)s)")
    parser.add_argument("--all", type=int, default=usual.all, help="epochs of all layers (%(default)s)")
    parser.add_argument("--rate", type=float, default=usual.rate, help="the rate of all layers (%(default)s)")
    parser.add_argument("--held-out", type=float, default=usual.held_out, help="share of each class (%(default)s)")
    parser.add_argument("--seed", type=int, default=usual.seed, help="which images, and their order (%(default)s)")
    given = parser.parse_args(arguments)
    out = given.out or Path(f"{given.folder.resolve().name}.safetensors")
    try:
        recipe = Recipe(last=given.last, all=given.all, rate=given.rate, held_out=given.held_out, seed=given.seed)
        stopped = teach(given.folder, given.network, out, recipe)
    except VizcnnError as error:
        sys.exit(f"train_own: {error}")
    except KeyboardInterrupt:
        print("train_own: stopped before there was anything to keep", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if stopped:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

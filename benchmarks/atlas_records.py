"""A made-up atlas of any size: the records of a network that does not exist, for the tests and timings of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vizcnn.receptive.field import ReceptiveField
from vizcnn.results.trust import Trust
from vizcnn.site.records import (
    ByHand,
    ClassPage,
    Crop,
    Effect,
    Fired,
    Floats,
    Histogram,
    ImagePage,
    Images,
    Layer,
    Link,
    MapOf,
    Missing,
    Neighbour,
    Network,
    Origin,
    Path,
    Picture,
    Pixels,
    Unit,
    Vote,
    Wall,
)

_EDGES = np.concatenate([[0.0], 2.0 ** np.arange(-8, 7, 0.5)]).astype(np.float32)
_CROPS, _LINKS, _NEIGHBOURS, _LISTED = 9, 8, 8, 8


@dataclass(frozen=True)
class MadeUp:
    """Records of a residual network with `widths` channels in its blocks of two layers each.

    pictures: whether units have optimised ones; without, crops stand for them. closely: how many images have a page of
    their own."""

    widths: tuple[int, ...] = (8, 12, 20)
    classes_: int = 12
    images_: int = 60
    side: int = 64
    pictures: bool = True
    closely: int = 4
    names: tuple[str, ...] = field(default=())

    @cached_property
    def network(self) -> Network:
        layers = [self._layer(0, "conv1", self.widths[0], self.side // 2, (Path(None, "conv1", "bn1", (7, 7)),), "")]
        for block, width in enumerate(self.widths, 1):
            place = max(2, self.side // 2**block)
            for half in (1, 2):
                i, name = len(layers), f"layer{block}.0.conv{half}"
                same = layers[-2].shape[0] == width if half == 2 else False
                shortcut = Path(i - 2, "" if same else f"layer{block}.0.shortcut.0")
                paths = (Path(i - 1, name, f"layer{block}.0.bn{half}", (3, 3)), *([shortcut] if half == 2 else []))
                layers.append(self._layer(i, name, width, place, paths, f"layer{block}"))
        last = Path(len(layers) - 1, "fc", via=("average pooling",))
        nothing = Missing("Classes are answers.")
        layers.append(
            Layer(
                "fc", "fc", (self.classes_,), (last,), "", self.classes_ * (self.widths[-1] + 1), nothing, nothing,
                nothing, nothing, tuple(range(min(10, self.classes_))), is_output=True,
            )
        )  # fmt: skip
        origin = Origin("0.1.0", "2026-11-27", "made-up", "0123456789abcdef" * 4, "60 made-up images", "f" * 16)
        return Network(
            "made-up", (3, self.side, self.side), sum(layer.parameters for layer in layers), self._names(),
            self.images_, 0.625, tuple(layers), origin,
        )  # fmt: skip

    def _names(self) -> tuple[str, ...]:
        given = ("school bus", "orange", "tabby cat", "lemon", "viaduct", "teddy", "lighthouse", "7")
        return (*self.names, *given, *(f"kind {k}" for k in range(self.classes_)))[: self.classes_]

    def _layer(self, i: int, name: str, width: int, place: int, paths: tuple[Path, ...], stage: str) -> Layer:
        stride = self.side / place
        size = 7 + 8 * i
        start = (np.arange(place) * stride - size / 2 + stride / 2).astype(np.int64)
        low, high = np.clip(start, 0, self.side), np.clip(start + size, 0, self.side)
        seen = ReceptiveField(
            low, high, low, high, (size, size), (stride, stride), (stride / 2 - size / 2, stride / 2 - size / 2)
        )
        dead = sum(self._is_dead(k) for k in range(width))
        parameters = width * width * 9
        strongest = tuple(k for k in range(width) if not self._is_dead(k))[:12]
        return Layer(
            name, name.replace("conv", "relu"), (width, place, place), paths, "relu", parameters, seen, 0.6, dead, 0,
            strongest, stage,
        )  # fmt: skip

    @staticmethod
    def _is_dead(k: int) -> bool:
        return k % 97 == 5

    @cached_property
    def images(self) -> Images:
        labels = np.arange(self.images_) % self.classes_
        predicted = np.where(np.arange(self.images_) % 8 < 5, labels, (labels + 1) % self.classes_)
        sure = np.linspace(0.99, 0.3, self.images_).astype(np.float32)
        names = tuple(f"photographs/of-{n % self.classes_}/number-{n}.jpeg" for n in range(self.images_))
        return Images(labels, predicted, sure, names)

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.side, *numbers])

    def _class_means(self, i: int) -> Floats:
        """(C, classes): each unit has one or two classes that it responds to."""
        width = self.network.layers[i].shape[0]
        means = self._rng(1, i).random((width, self.classes_), np.float32) * 0.3
        means[np.arange(width), (np.arange(width) * 5 + i) % self.classes_] += 2
        means[[k for k in range(width) if self._is_dead(k)]] = 0
        return means

    def wall(self, layer: int) -> Wall:
        means, width = self._class_means(layer), self.network.layers[layer].shape[0]
        rng = self._rng(2, layer)
        dead = np.array([self._is_dead(k) for k in range(width)])
        best = np.where(dead, -1, means.argmax(1))
        effect = (-rng.random(width)).astype(np.float32)
        effect[2::3] = np.nan
        estimated = np.zeros(width, np.bool_)
        estimated[4::6] = True
        effect[4::6] = -0.25
        return Wall(
            np.where(dead, 0, means.max(1) * 6), means.mean(1), np.where(dead, 1, rng.random(width)).astype(np.float32),
            dead, best, np.where(dead, np.nan, 0.7 * rng.random(width)).astype(np.float32), effect, estimated, means,
        )  # fmt: skip

    def units(self, layer: int) -> Iterator[Unit]:
        wall = self.wall(layer)
        assert not isinstance(wall.class_means, Missing)
        for k in range(len(wall.mean)):
            yield self._unit(layer, k, wall, wall.class_means[k])

    def _unit(self, i: int, k: int, wall: Wall, means: Floats) -> Unit:
        rng, layer = self._rng(3, i, k), self.network.layers[i]
        dead = self._is_dead(k)
        order = np.argsort(-means)[:_LISTED]
        high = float(wall.highest[k])
        counts = np.zeros(len(_EDGES) - 1, np.int64)
        counts[10:24] = 0 if dead else (4000 * 0.7 ** np.arange(14)).astype(np.int64)
        return Unit(
            crops=() if dead else tuple(self._crop(i, rng, high * (0.987 - n / 20)) for n in range(_CROPS)),
            picture=self._picture(i, k, high * 1.3),
            histogram=Histogram(counts, _EDGES, 30_000),
            mean=float(wall.mean[k]),
            sd=1.2345,
            lowest=0.0,
            highest=high,
            zeros=float(wall.zeros[k]),
            classes=() if dead else tuple((int(c), float(means[c])) for c in order),
            overall=float(means.mean()),
            effect=self._effect(wall, k),
            reads=self._reads(i, rng),
            feeds=self._feeds(i, rng),
            neighbours=self._neighbours(rng),
            kernel=rng.standard_normal((7, 7, 3)).astype(np.float32) if layer.paths[0].source is None else None,
        )

    def _crop(self, i: int, rng: np.random.Generator, value: float) -> Crop:
        layer, image = self.network.layers[i], int(rng.integers(self.images_))
        if len(layer.shape) == 1:
            return Crop(image, value, None, None)
        y, x = (int(rng.integers(size)) for size in layer.shape[1:])
        box = layer.field.box(y, x) if isinstance(layer.field, ReceptiveField) else None
        return Crop(image, value, (y, x), box)

    def _effect(self, wall: Wall, k: int) -> Effect | Missing:
        change = float(wall.effect[k])
        if np.isnan(change):
            return Missing("Of this layer the strongest units were tried until the time was up.")
        if wall.is_estimated[k]:
            return Effect(change, self.images_, correlation=0.98, checked=24)
        by_class = tuple((c, -0.5123 + c * 0.1187) for c in range(min(8, self.classes_)))
        return Effect(change, self.images_, 3, 0.625, 0.6, by_class)

    def _reads(self, i: int, rng: np.random.Generator) -> tuple[Link, ...]:
        source = self.network.layers[i].paths[0].source
        size = 3 if source is None else self.network.layers[source].shape[0]
        chosen = rng.permutation(size)[:_LINKS]
        return tuple(
            Link(
                source, int(u), 0, 0.5 - 0.1 * n + rng.uniform(0, 0.05), rng.standard_normal((3, 3)).astype(np.float32)
            )
            for n, u in enumerate(chosen)
        )

    def _feeds(self, i: int, rng: np.random.Generator) -> tuple[Link, ...]:
        to = i + 1
        chosen = rng.permutation(self.network.layers[to].shape[0])[:_LINKS]
        return tuple(Link(to, int(u), 0, 0.4 - 0.09 * n + rng.uniform(0, 0.05)) for n, u in enumerate(chosen))

    def _neighbours(self, rng: np.random.Generator) -> tuple[Neighbour, ...]:
        layers = rng.integers(0, len(self.network.layers) - 1, _NEIGHBOURS)
        return tuple(
            Neighbour(int(i), int(rng.integers(self.network.layers[i].shape[0])), 0.9 - 0.05 * n - rng.uniform(0, 0.04))
            for n, i in enumerate(layers)
        )

    def classes(self) -> Iterator[ClassPage]:
        last = len(self.network.layers) - 2
        hidden = range(len(self.network.layers) - 1)
        for c in range(self.classes_):
            own = [int(n) for n in np.flatnonzero(self.images.labels == c)]
            right = int((self.images.predicted[own] == c).sum())
            width = self.network.layers[last].shape[0]
            votes = tuple(Vote(last, (c + n) % width, 1.2345 - 0.3 * n, 0.1234) for n in range(8))
            early = tuple((i, tuple((n, 4.123 - n) for n in range(4))) for i in hidden)
            picture = self._picture(99, c, 14.2)
            other = (c + 1) % self.classes_
            yield ClassPage(
                len(own), right, picture, tuple(own[:14]), votes, early, ((other, len(own) - right),), ((other, 2),)
            )

    def image_pages(self) -> Iterator[ImagePage]:
        side = 16
        y, x = np.mgrid[:side, :side] / side
        bump = np.exp(-((y - 0.5) ** 2 + (x - 0.6) ** 2) * 12).astype(np.float32)
        trust = Trust(97.0, 0.6, 0.2, 0.1, "orange", 101)
        poor = Trust(40.0, 0.1, 0.2, 0.95, "orange", 101)
        for n in range(self.closely):
            label = int(self.images.predicted[n])
            maps = (
                MapOf("occlusion", "logit lost when covered", self._names()[label], bump - 0.2, trust),
                MapOf("grad-cam", "Grad-CAM of the last layer", self._names()[label], bump[::2, ::2], poor),
                MapOf("saliency", "gradient", self._names()[label], bump, Missing("It was not asked for.")),
            )
            answers = tuple(((label + j) % self.classes_, 0.7 / 2**j) for j in range(min(5, self.classes_)))
            yield ImagePage(
                n, answers, maps, tuple((i, self._fired(i, n)) for i in range(len(self.network.layers) - 1))
            )

    def _fired(self, i: int, n: int) -> tuple[Fired, ...]:
        crops = [self._crop(i, self._rng(4, i, n, k), 1.0) for k in range(5)]
        return tuple(Fired(k, 3.0 - k / 2, 1 - k / 10, crop.box) for k, crop in enumerate(crops))

    def by_hand(self, layer: int) -> ByHand | Missing:
        return Missing(f"No numbers of layer {layer} are kept.")

    def photograph(self, image: int) -> Pixels:
        """A ball of one of a few colours on a slope of another."""
        rng = self._rng(5, image)
        y, x = np.mgrid[: self.side, : self.side] / self.side
        ground = rng.integers(40, 220, 3) * (0.6 + 0.4 * (y if image % 2 else x))[..., None]
        top, left = rng.uniform(0.3, 0.7, 2)
        ball = (y - top) ** 2 + (x - left) ** 2 < 0.05
        shade = 1 - 1.5 * np.hypot(y - top + 0.1, x - left + 0.1)[..., None]
        pixels = np.where(ball[..., None], rng.integers(120, 256, 3) * shade, ground)
        return np.asarray(np.clip(pixels + rng.normal(0, 5, pixels.shape), 0, 255), np.uint8)

    def _picture(self, i: int, k: int, reached: float) -> Picture | Missing:
        """Waves in a direction and a colour of the unit's own."""
        if not self.pictures:
            return Missing("Only crops were asked for.")
        rng = self._rng(6, i, k)
        y, x = (axis[..., None] / self.side for axis in np.mgrid[: self.side, : self.side])
        pixels = np.full((self.side, self.side, 3), 128.0)
        for _ in range(6):
            down, across = rng.uniform(-1, 1, 2) * (5 + 4 * (i % 8))
            pixels += np.sin(2 * np.pi * (down * y + across * x) + rng.uniform(0, 6)) * rng.normal(0, 30, 3)
        return Picture(np.asarray(np.clip(pixels, 0, 255), np.uint8), reached)


def count_units(records: MadeUp) -> int:
    """All units, without the classes."""
    return sum(layer.shape[0] for layer in records.network.layers if not layer.is_output)

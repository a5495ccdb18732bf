"""Copies: pixels that recur in the images of a class, found without any map and without the network.

Small patches are compared at about half size: at the same place in all images, and, as a few numbers each (PCA),
anywhere. What recurs in the class and not in other images is looked for again at full size, and the box is grown for as
long as its copies agree better than unrelated images do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.auditing.cues import Corner, Frame, Patch
from vizcnn.auditing.matching import TEXTURE, Template
from vizcnn.auditing.places import Place, Size, measure_area, measure_common, shift
from vizcnn.errors import ParameterError

MATCH = 0.8
"""The likeness from which an image is taken to have a cue."""

FEWEST = 3
"""Images of one half that must have a cue before anything is said of it."""

_SIDE = 40  # px of the shorter side that images are about made smaller to
_SMALLEST = 28  # px below which nothing is made smaller
_SHARE, _LEAST = 0.1, 3  # of a patch: its share of the shorter side, and px at the small size
_NARROWEST = 4  # px of a side of a box: of fewer, chance makes copies
_COMPONENTS = 16
_FITTED = 4000  # patches that PCA is fitted to
_QUERIES, _PIECES, _VERIFIED = 1500, 300, 8  # patches looked for, kept, looked for at full size
_INSIDE, _ELSEWHERE = 32, 12  # images of the class, and of other classes, in which patches are counted
_CHUNK = 32  # patches looked for at once: their products with all others stay in the processor's cache
_NEAR, _NEAR_SHARE = 0.04, 0.2  # copies differ by less than this, or than this share of a patch's deviation
_TIGHT = 0.25  # of what copies may differ by, squared: so near are copies more often than strokes that look alike
_ROUNDS = 3  # of growing a box and looking for its copies again, since a small patch may be found beside its place
_RARER = 3  # times: how much more often a patch is in the class
_AGREE, _AGREEING, _BETTER, _BETTER_SHARE = 0.06, 0.8, 0.03, 0.3
_LARGEST = 0.4  # of a side, of a grown box
_CLOSE = 0.9  # the likeness of what is proposed as copied
_THICKEST = 0.12  # of the shorter side, of a frame
_ALIGNED = 8  # copies that a box is grown by

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """A small patch that recurs: in which image it lies, where, and how many other images of the class have nearly the
    same px, and the same at large."""

    image: int
    place: Place
    near: int
    count: int


def require_scikit_learn() -> None:
    """Raise ParameterError if scikit-learn is not installed; import it, which takes a while, if it is."""
    try:
        import sklearn.decomposition  # noqa: F401
    except ImportError as error:
        raise ParameterError(
            "an audit needs scikit-learn, which is not installed. pip install 'vizcnn[embed]', which has it"
        ) from error


class CopySearch:
    """A search for what recurs in the images of one class after the other.

    sample: images (n, C, H, W) of all classes, by which the few numbers of a patch are chosen."""

    def __init__(self, sample: Tensor, seed: int) -> None:
        from sklearn.decomposition import PCA

        self.size: Size = (sample.shape[2], sample.shape[3])
        shorter = min(self.size)
        self.factor = max(1, round(shorter / _SIDE)) if shorter > _SMALLEST else 1
        self.side = max(_LEAST, round(_SHARE * shorter / self.factor))
        patches = self._cut(self._reduce(sample)).flatten(0, 1)  # (n L, C s s)
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(patches))[:_FITTED]
        components = min(_COMPONENTS, patches.shape[1], len(chosen))
        self._pca: Any = PCA(components, svd_solver="full").fit(patches[chosen].numpy())
        self._seed = seed

    def find(self, images: Tensor, others: Tensor, most: int) -> list[tuple[int, Patch]]:
        """The boxes of px that recur in the images (n, C, H, W) of a class, each with the number of the image it is
        from, the most frequent first. others: (m, C, H, W), of other classes."""
        if len(images) < FEWEST or not len(others):
            return []
        small = self._reduce(images)
        small_others = self._reduce(others[:_ELSEWHERE])
        pieces = [*self._find_in_place(small, small_others), *self._find_anywhere(small, small_others)]
        pieces.sort(key=lambda piece: (-piece.near, -piece.count))
        return self._verify(pieces, images, others, most)

    def _reduce(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.factor) if self.factor > 1 else images

    def _cut(self, small: Tensor) -> Tensor:
        """All patches of images (n, C, h, w): (n, L, C s s)."""
        return F.unfold(small, self.side).mT

    def _enlarge(self, row: int, column: int) -> Place:
        """The place at full size of a patch at the small size."""
        top, left, length = row * self.factor, column * self.factor, self.side * self.factor
        return top, left, top + length, left + length

    def _find_in_place(self, small: Tensor, others: Tensor) -> Iterator[Piece]:
        """What recurs at the same place: of each image the place that most others share."""
        for i in range(len(small)):
            squares = F.avg_pool2d(
                (torch.cat([small, others]) - small[i]).square().mean(1), self.side, 1
            )  # (n+m, y, x)
            deviation = self._measure_texture(small[i : i + 1])[0]  # (y, x)
            limit = torch.where(deviation >= TEXTURE, _tolerate(deviation), -1.0)
            same = squares <= limit
            inside, outside = same[: len(small)].sum(0) - 1, same[len(small) :].float().mean(0) * len(small)
            counts = torch.where(inside >= _RARER * outside, inside, 0)  # (y, x)
            near = torch.where(counts > 0, (squares[: len(small)] <= _TIGHT * limit).sum(0) - 1, 0)
            best = int((near * len(small) + counts + deviation.clamp_max(0.9)).argmax())  # of equal ones the clearest
            if (count := int(counts.flatten()[best])) >= FEWEST - 1:
                yield Piece(i, self._enlarge(*divmod(best, counts.shape[1])), int(near.flatten()[best]), count)

    def _measure_texture(self, small: Tensor) -> Tensor:
        """The deviation of each patch of images (n, C, h, w) from its channels' means: (n, y, x)."""
        means, squares = F.avg_pool2d(small, self.side, 1), F.avg_pool2d(small.square(), self.side, 1)
        return (squares - means.square()).mean(1).clamp_min(0).sqrt()

    def _find_anywhere(self, small: Tensor, others: Tensor) -> list[Piece]:
        """What recurs at any place, by patches as a few numbers each."""
        rng = np.random.default_rng(self._seed)  # no running one: what is found in a class depends on no other class
        codes, deviations = self._encode(small), self._measure_texture(small).flatten(1)  # (n, L, k), (n, L)
        columns = small.shape[3] - self.side + 1
        grid = torch.arange(deviations.shape[1])
        on_grid = (grid // columns % 2 == 0) & (grid % columns % 2 == 0)
        image, patch = torch.nonzero((deviations >= TEXTURE) & on_grid, as_tuple=True)
        if len(image) > _QUERIES:
            chosen = torch.from_numpy(np.sort(rng.permutation(len(image))[:_QUERIES]))
            image, patch = image[chosen], patch[chosen]
        if not len(image):
            return []
        queries = codes[image, patch]  # (q, k)
        limits = _tolerate(deviations[image, patch]) * self.side**2 * small.shape[1]  # (q,)
        among = torch.from_numpy(rng.permutation(len(small))[:_INSIDE])
        nearest = self._find_nearest(queries, codes[among], deviations[among])  # (q, m)
        nearest[image[:, None] == among] = torch.inf
        whole = len(small) / len(among)
        counts = (nearest <= limits[:, None]).sum(1) * whole  # (q,)
        near = (nearest <= _TIGHT * limits[:, None]).sum(1) * whole  # (q,)
        outside = self._find_nearest(queries, self._encode(others), self._measure_texture(others).flatten(1))
        rates = (outside <= limits[:, None]).float().mean(1) * len(small)  # (q,)
        clearest = -deviations[image, patch].numpy()
        order = np.lexsort((clearest, -counts.numpy(), -near.numpy()))
        rare = ((counts >= 1) & (counts >= _RARER * rates)).numpy()
        return [
            Piece(int(image[q]), self._enlarge(*divmod(int(patch[q]), columns)), int(near[q]), int(counts[q]))
            for q in order[rare[order]][:_PIECES].tolist()
        ]

    def _encode(self, small: Tensor) -> Tensor:
        """The few numbers of each patch of images (n, C, h, w): (n, L, k)."""
        patches = self._cut(small)
        axes = torch.from_numpy(self._pca.components_.astype(np.float32))  # (k, C s s)
        return (patches - torch.from_numpy(self._pca.mean_.astype(np.float32))) @ axes.T

    def _find_nearest(self, queries: Tensor, codes: Tensor, deviations: Tensor) -> Tensor:
        """The squared distance of each query (q, k) to the nearest patch with texture of each image: (q, n).

        codes: (n, L, k), of which patches without texture are left out, as far as other images have fewer with it."""
        textured = deviations >= TEXTURE  # (n, L)
        most = max(1, int(textured.sum(1).max()))
        order = textured.byte().argsort(dim=1, descending=True, stable=True)[:, :most]  # (n, m) those with it first
        codes = codes.gather(1, order[:, :, None].expand(-1, -1, codes.shape[2]))  # (n, m, k)
        squares = torch.where(textured.gather(1, order), codes.square().sum(2), torch.inf)  # (n, m)
        among = torch.cat([codes, squares[:, :, None]], 2).flatten(0, 1).T  # (k + 1, n m)
        asked = torch.cat([-2 * queries, torch.ones(len(queries), 1)], 1)  # (q, k + 1): products are |c|^2 - 2 q c
        nearest = [(part @ among).view(len(part), -1, most).amin(2) for part in asked.split(_CHUNK)]  # (.., n) each
        return (torch.cat(nearest) + queries.square().sum(1, keepdim=True)).clamp_min(0)

    def _verify(self, pieces: Sequence[Piece], images: Tensor, others: Tensor, most: int) -> list[tuple[int, Patch]]:
        """Of the pieces those that are found again at full size, as whole boxes; none that another box accounts for."""
        found: list[tuple[int, Patch, int]] = []
        known: list[dict[int, Place]] = []  # of each box that was looked at: where it is, by image
        looked = 0
        for piece in pieces:
            if looked == _VERIFIED:
                break
            if any(
                2 * measure_common(at[piece.image], piece.place) > measure_area(piece.place)
                for at in known
                if piece.image in at
            ):
                continue
            looked += 1
            grown = self._grow(piece, images, others)
            if grown is None:
                known.append({piece.image: piece.place})
                continue
            inside = grown.find(images)
            carriers = inside.likeness >= MATCH
            known.append({int(i): grown.locate(_corner(inside.corners[i])) for i in np.flatnonzero(carriers)})
            rare = carriers.mean() >= 2 * (grown.find(others).likeness >= MATCH).mean()
            close = carriers.sum() >= FEWEST and np.median(inside.likeness[carriers]) >= _CLOSE
            wide = min(grown.template.pixels.shape[1:]) >= _NARROWEST
            if rare and close and wide and grown.may_be_copied and carriers[piece.image]:
                found.append((piece.image, grown, int(carriers.sum())))
        found.sort(key=lambda each: -each[2])
        return [(image, cue) for image, cue, _ in found[:most]]

    def _grow(self, piece: Piece, images: Tensor, others: Tensor) -> Patch | None:
        """The whole box that a piece belongs to; None where too few images have the piece at full size."""
        place, cue = piece.place, None
        for _ in range(_ROUNDS):
            top, left, bottom, right = place
            template = Template(images[piece.image][:, top:bottom, left:right], others)
            again = template.find(images)
            near = [int(i) for i in np.argsort(-again.likeness, kind="stable") if again.likeness[i] >= MATCH]
            copies = [i for i in near if i != piece.image][:_ALIGNED]
            if len(copies) < FEWEST - 1:
                break
            moves = [(i, int(again.corners[i][0]) - top, int(again.corners[i][1]) - left) for i in copies]
            place = grow_box(images, piece.image, place, moves, others)
            cue = Patch(_take_median(images, piece.image, place, moves), place, others)
            if place == (top, left, bottom, right):
                break
        return cue


def _corner(corner: npt.NDArray[np.int64]) -> Corner:
    return int(corner[0]), int(corner[1])


def _tolerate(deviation: Tensor) -> Tensor:
    """The mean squared difference that copies of a patch of this deviation may have."""
    return (_NEAR_SHARE * deviation).clamp_min(_NEAR).square()


Moves = Iterable[tuple[int, int, int]]
"""Images that hold a copy, each with how far down and to the right it lies from the original."""


def _take_median(images: Tensor, source: int, box: Place, moves: Moves) -> Tensor:
    """The median px (C, h, w) of a box and its copies: what they share, without what lies around or shines through."""
    parts = [images[source][:, box[0] : box[2], box[1] : box[3]]]
    for image, down, right in moves:
        top, left, bottom, far = shift(box, down, right)
        if top >= 0 and left >= 0 and bottom <= images.shape[2] and far <= images.shape[3]:
            parts.append(images[image][:, top:bottom, left:far])
    return torch.stack(parts).median(0).values


def grow_box(images: Tensor, source: int, box: Place, moves: Moves, others: Tensor) -> Place:
    """The largest box around this one whose rows and columns are the same in its copies, and not in other images.

    images: (n, C, H, W), of which `source` has the box. others: (m, C, H, W). A row belongs to it where four fifths of
    its px differ by less than 0.06 in the median copy, and three tenths of them by 0.03 less than in the median other
    image at the same place."""
    original = images[source]
    differences = torch.stack([_compare_moved(original, images[image], *move) for image, *move in moves])  # (k, H, W)
    own = torch.nan_to_num(differences.nanmedian(0).values, 1.0)
    chance = (others - original).abs().amax(1).median(0).values  # (H, W)
    same, better = own < _AGREE, own + _BETTER < chance

    def belongs(top: int, left: int, bottom: int, right: int) -> bool:
        agreeing, beyond = same[top:bottom, left:right], better[top:bottom, left:right]
        return bool(agreeing.float().mean() >= _AGREEING and beyond.float().mean() >= _BETTER_SHARE)

    (height, width), (top, left, bottom, right) = original.shape[1:], box
    highest, widest = max(bottom - top, round(_LARGEST * height)), max(right - left, round(_LARGEST * width))
    before = None
    while before != (top, left, bottom, right):
        before = (top, left, bottom, right)
        if top > 0 and bottom - top < highest and belongs(top - 1, left, top, right):
            top -= 1
        if bottom < height and bottom - top < highest and belongs(bottom, left, bottom + 1, right):
            bottom += 1
        if left > 0 and right - left < widest and belongs(top, left - 1, bottom, left):
            left -= 1
        if right < width and right - left < widest and belongs(top, right, bottom, right + 1):
            right += 1
    before = None
    while before != (top, left, bottom, right):  # the piece may have begun beside its copies
        before = (top, left, bottom, right)
        if bottom - top > _NARROWEST:
            top += not belongs(top, left, top + 1, right)
        if bottom - top > _NARROWEST:
            bottom -= not belongs(bottom - 1, left, bottom, right)
        if right - left > _NARROWEST:
            left += not belongs(top, left, bottom, left + 1)
        if right - left > _NARROWEST:
            right -= not belongs(top, right - 1, bottom, right)
    return top, left, bottom, right


def _compare_moved(original: Tensor, image: Tensor, down: int, right: int) -> Tensor:
    """How far px of the original (C, H, W) are from those of an image at a place further on, in the channel where they
    differ most: (H, W), NaN beyond the edge."""
    height, width = original.shape[1:]
    found = torch.full((height, width), torch.nan)
    rows, columns = (slice(max(0, -by), min(length, length - by)) for by, length in ((down, height), (right, width)))
    moved = image[:, rows.start + down : rows.stop + down, columns.start + right : columns.stop + right]
    found[rows, columns] = (moved - original[:, rows, columns]).abs().amax(0)
    return found


def find_frames(images: Tensor, others: Tensor) -> list[tuple[int, Frame]]:
    """The frame that recurs most in the images (n, C, H, W) of a class, with the number of the image it is from; none
    where no frame does.

    It is as thick as its copies agree: ring after ring from the edge, better than other images (m, C, H, W) do."""
    if len(images) < FEWEST or not len(others):
        return []
    best: tuple[int, int, int] | None = None
    for i, image in enumerate(images):
        ring = _list_rings(images - image, 0)  # (n,) the mean difference at the outermost px
        alike = [j for j in torch.argsort(ring).tolist() if j != i and ring[j] < _NEAR]
        outside = float((_list_rings(others - image, 0) < _NEAR).float().mean()) * len(images)
        if len(alike) >= FEWEST - 1 and len(alike) >= 2 * outside and (best is None or len(alike) > best[1]):
            best = (i, len(alike), _measure_thickness(images, i, alike[:_ALIGNED], others))
    return [(best[0], Frame(images[best[0]], best[2], others))] if best else []


def _list_rings(differences: Tensor, inset: int) -> Tensor:
    """The mean absolute difference (n,) along a ring of px, so far from the edge, of differences (n, C, H, W)."""
    height, width = differences.shape[2:]
    part = differences[:, :, inset : height - inset, inset : width - inset].abs().mean(1)  # (n, h, w)
    sides = [part[:, 0], part[:, -1], part[:, :, 0], part[:, :, -1]]
    return torch.cat(sides, 1).mean(1)


def _measure_thickness(images: Tensor, source: int, alike: Sequence[int], others: Tensor) -> int:
    """How many rings of px the copies of a frame share."""
    thickness, most = 1, max(1, round(_THICKEST * min(images.shape[2:])))
    near, far = images[list(alike)] - images[source], others - images[source]
    while thickness < most:
        own = float(_list_rings(near, thickness).median())
        if own >= _NEAR or own + _BETTER >= float(_list_rings(far, thickness).median()):
            break
        thickness += 1
    return thickness

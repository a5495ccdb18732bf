"""Heatmap: what parts of an image matter, one map per image and target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from vizcnn.errors import ParameterError
from vizcnn.results.drawing import check_page
from vizcnn.results.map_rows import count_row_pages, draw_rows, plot_map
from vizcnn.results.map_sheet import count_sheet_pages, draw_sheet
from vizcnn.results.maps import Maps
from vizcnn.results.overlay import choose_colours, second_mark, target_mark
from vizcnn.results.records import make_even, name_edges
from vizcnn.results.trust import describe_trust

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

FEW = 6
"""Images that are drawn as large panels; more are drawn as small tiles."""

_TRUST = (("trust", "verdict"), ("need", "need"))  # columns of records, and what they hold of a Trust


@dataclass(frozen=True)
class Heatmap(Maps):
    """One map for each of N images and T targets.

    values: float32 (N, T, H, W), in input px; NaN where nothing was computed (only when partial).
    scores: float32 (N, T), each target's number for the clean image.
    meanings: per target, what one unit of the colour bar is, e.g. `logit lost when covered`.
    photos, seen: the images, and the box of each that the network saw.
    marks: per image and target, the box to point at, or None: what the map shows.
    findings: per image and target, one sentence.
    partial: the computation was interrupted.
    signed: values have a sign and zero is their middle; otherwise they are magnitudes from zero up.
    percentile: of the magnitudes above zero, where the colours end; values beyond are drawn in the last colour.
    second_marks: per image and target, one more box, drawn lighter, or None; empty where a probe has none.
    target_marks: per image and target, the box that the target itself is about, such as a detector's, drawn dotted, or
        None; empty where no target is about a box.
    trust: per image and target how far the map can be believed, or None where that could not be found out; empty where
        it was not asked for.
    """

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`values` (N, T, H, W) and `scores` (N, T)."""
        return {"values": self.values, "scores": self.scores}

    def summary(self) -> dict[str, Any]:
        images = [self._image_summary(i) for i in range(len(self.photos))]
        return {"meanings": list(self.meanings), "partial": self.partial, "images": images}

    def _image_summary(self, i: int) -> dict[str, Any]:
        maps = [
            {
                "target": self.provenance.targets[i][t],
                "target_spec": self.provenance.target_specs[i][t],
                "score": float(self.scores[i, t]),
                "highest": float(np.nanmax(self.values[i, t])),
                "lowest": float(np.nanmin(self.values[i, t])),
                "finding": self.findings[i][t],
                "box": asdict(mark.box) if (mark := self.marks[i][t]) else None,
                "second_box": asdict(second.box) if (second := second_mark(self, i, t)) else None,
                "target_box": asdict(own.box) if (own := target_mark(self, i, t)) else None,
                "trust": trust.summary() if self.trust and (trust := self.trust[i][t]) else None,
            }
            for t in range(self.values.shape[1])
        ]
        return {"name": self.photos[i].name, "predictions": [asdict(p) for p in self.predictions[i]], "maps": maps}

    @classmethod
    def records_of(cls, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each image and target. Boxes are in px of the photograph; `predicted` is the most probable class.

        Where it was asked how far the maps can be believed, `trust` is the verdict and `need` its figure, see `Trust`.
        """
        maps = [one for image in summary["images"] for one in image["maps"]]
        has_trust = any(one.get("trust") for one in maps)
        more_boxes = [name for name in ("second_box", "target_box") if any(one.get(name) for one in maps)]
        return make_even(
            {
                "image": image["name"],
                "image_index": i,
                "target": one["target"],
                "target_spec": one["target_spec"],
                "score": one["score"],
                "predicted": best["label"],
                "probability": best["probability"],
                "meaning": meaning,
                "highest": one["highest"],
                "lowest": one["lowest"],
                **name_edges(one["box"]),
                **{edge: at for name in more_boxes for edge, at in name_edges(one[name], name).items()},
                **({name: (one["trust"] or {}).get(key) for name, key in _TRUST} if has_trust else {}),
                "finding": one["finding"],
            }
            for i, image in enumerate(summary["images"])
            for best in (image["predictions"] or [{"label": None, "probability": None}])[:1]
            for meaning, one in zip(summary["meanings"], image["maps"], strict=True)
        )

    def describe(self) -> str:
        lines = list[str]()
        for i, (photo, findings) in enumerate(zip(self.photos, self.findings, strict=True)):
            for t, finding in enumerate(findings):
                lines.append(f"{photo.name}: {finding}")
                lines += [f"  {describe_trust(self.trust[i][t])}"] if self.trust else []
        return "\n".join(lines + [_say_partial(self)] * self.partial)

    def scale(self, image: int, target: int) -> float:
        """The value at which a map's colours end. Maps of an image that mean the same share the largest of theirs."""
        return choose_colours(self, image, target).end

    def select(self, images: Iterable[int]) -> Heatmap:
        """The same result with only these images, in this order.

        images: their numbers, counted from 0, as in `values`.
        Raises ParameterError for an image that is not there, for none, and for what are no whole numbers.

            result.select([4, 0])
            result.select(result.scores[:, 0].argsort()[:6]).save("least-sure.png")
        """
        chosen, last = [_require_number(i, "select() takes numbers of images") for i in images], len(self.photos) - 1
        if not chosen or min(chosen) < 0 or max(chosen) > last:
            raise ParameterError(f"select() takes numbers of images from 0 to {last}, got {chosen}")

        def pick(rows: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(rows[i] for i in chosen) if rows else ()

        origin = self.provenance
        return replace(
            self,
            provenance=replace(
                origin,
                images=pick(origin.images),
                targets=pick(origin.targets),
                target_specs=pick(origin.target_specs),
            ),
            values=self.values[chosen],
            scores=self.scores[chosen],
            photos=pick(self.photos),
            seen=pick(self.seen),
            predictions=pick(self.predictions),
            marks=pick(self.marks),
            findings=pick(self.findings),
            second_marks=pick(self.second_marks),
            target_marks=pick(self.target_marks),
            trust=pick(self.trust),
        )

    def select_targets(self, targets: Iterable[int]) -> Heatmap:
        """The same result with only these targets, in this order.

        targets: their numbers, counted from 0. Raises ParameterError for a target that is not there, and for none.

            result.select_targets([1])
        """
        chosen, last = (
            [_require_number(t, "select_targets() takes numbers of targets") for t in targets],
            len(self.meanings) - 1,
        )
        if not chosen or min(chosen) < 0 or max(chosen) > last:
            raise ParameterError(f"select_targets() takes numbers of targets from 0 to {last}, got {chosen}")

        def pick(rows: tuple[tuple[T, ...], ...]) -> tuple[tuple[T, ...], ...]:
            return tuple(tuple(row[t] for t in chosen) for row in rows)

        origin = self.provenance
        return replace(
            self,
            provenance=replace(origin, targets=pick(origin.targets), target_specs=pick(origin.target_specs)),
            values=self.values[:, chosen],
            scores=self.scores[:, chosen],
            meanings=tuple(self.meanings[t] for t in chosen),
            marks=pick(self.marks),
            findings=pick(self.findings),
            second_marks=pick(self.second_marks),
            target_marks=pick(self.target_marks),
            trust=pick(self.trust),
        )

    def list_maps(self, image: int) -> list[npt.NDArray[np.float32]]:
        """The map of each target for an image, (H, W), over what the network saw of it."""
        return [*self.values[image]]

    def sort(self, by: Literal["score", "name"] = "score", *, target: int = 0) -> Heatmap:
        """The same result with its images in order: by the `score` of a target, highest first, or by `name`.

        target: its number, counted from 0. Raises ParameterError for another order or target.

            result.sort("name").figure(page=2)
        """
        if by not in ("score", "name"):
            raise ParameterError(f"images are sorted by score or name, got {by!r}. For another order use select()")
        if not 0 <= target < len(self.meanings):
            raise ParameterError(f"the result has targets 0 to {len(self.meanings) - 1}, got {target}")
        names = [photo.name for photo in self.photos]
        keys = names if by == "name" else [-float(score) for score in self.scores[:, target]]
        return self.select(sorted(range(len(keys)), key=keys.__getitem__))

    def plot(self, ax: Axes | None = None, *, image: int = 0, target: int = 0) -> Axes:
        """Draw one map over its photograph, with its colour bar, on `ax` or on a new figure. Returns the Axes.

        Colours of signed maps are centred on zero. Maps of the same image that mean the same share their scale. Weak
        values are transparent, so that the photograph shows; the colour bar shows the colours as they look over white.
        """
        return plot_map(self, ax, image, target)

    @property
    def pages(self) -> int:
        return count_row_pages(self) if len(self.photos) <= FEW else count_sheet_pages(self)

    def figure(self, page: int = 1) -> Figure:
        """A page of the picture, counted from 1.

        Up to six images: for each its photograph with what the network says of it, then a map per target. Maps that
        mean the same share one colour bar; otherwise each has its own.
        More images: small tiles, each a map over its photograph. Those with the highest scores and those with the
        lowest come first, then the others in the result's order, see `sort` and `select`.
        """
        check_page(page, self.pages)
        return draw_rows(self, page) if len(self.photos) <= FEW else draw_sheet(self, page)


def _say_partial(result: Heatmap) -> str:
    if result.provenance.trust:
        return "Interrupted: the result is partial, and how far its maps can be believed is not known."
    return "Interrupted: the map is partial."


def _require_number(given: Any, otherwise: str) -> int:
    """The number of an image or target. A mask of truth values would read as numbers 0 and 1, and is refused.

    otherwise: how the error begins."""
    truth = isinstance(given, bool | np.bool_) or str(getattr(given, "dtype", "")).endswith("bool")
    if truth or not hasattr(given, "__index__"):
        raise ParameterError(f"{otherwise}, got {given!r}. Of a mask give mask.nonzero()[0]")
    return int(given)

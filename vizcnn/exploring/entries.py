"""Entries: what an explorer answers, in the form in which the widget's page reads it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.exploring.explorer import Explorer
from vizcnn.exploring.replies import Answers, MapOfImage, UnitMap
from vizcnn.geometry import Box
from vizcnn.inputs.photo import select_channels
from vizcnn.inputs.tensors import to_photo
from vizcnn.results import Trust
from vizcnn.results.photos import as_bytes, cut_out, reduce_photo, resize, shrink
from vizcnn.site.packing import clean

_SIDE = 512  # px of the photograph on the page
_OPTIONS = 1000  # names of classes that the page offers; others can be typed
_SAME = 1e-3  # of a score and 1, by which it may differ before the network counts as changed


def enter_explorer(explorer: Explorer, layers: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
    """What stays the same while one explores."""
    model = explorer.model
    return {
        "model": clean(model.name),
        "images": [clean(name) for name in explorer.names],
        "methods": list(explorer.methods),
        "layers": [[name, *shape] for name, shape in layers.items()],
        "labels": [clean(label) for label in (model.labels or ())[:_OPTIONS]],
        "fill": explorer.fill,
        "side": max(1, round(min(explorer.size) / 5)),
    }


def enter_picture(explorer: Explorer) -> dict[str, Any]:
    """What the network sees of the photograph, with what is covered as it covers it."""
    picture, display = explorer.picture, explorer.model.input.display
    photo = reduce_photo(picture.photo, max(picture.photo.size), display)
    pixels = as_bytes(shrink(cut_out(photo, picture.seen), _SIDE))  # (h, w, 1 or 3)
    if explorer.boxes:
        covered = select_channels(to_photo(explorer.inputs).pixels, display)  # (H, W, 1 or 3)
        if pixels.shape[2] != covered.shape[2]:  # a photograph in colour for a network that takes grey
            pixels = np.repeat(pixels[:, :, :1], 3, 2) if pixels.shape[2] == 1 else pixels
            covered = np.repeat(covered[:, :, :1], 3, 2) if covered.shape[2] == 1 else covered
        pixels = pixels.copy()
        whole = Box(0, 0, *pixels.shape[:2])
        for y, x, height, width in explorer.boxes:
            place = Box(y, x, y + height, x + width).map_onto(explorer.size, whole)
            top, left, bottom, right = (round(edge) for edge in (place.top, place.left, place.bottom, place.right))
            part = covered[y : y + height, x : x + width]
            size = (max(1, bottom - top), max(1, right - left))
            pixels[top : top + size[0], left : left + size[1]] = as_bytes(resize(part, size, Image.Resampling.NEAREST))
    return {
        "name": clean(picture.name),
        "url": _to_url(pixels),
        "size": list(explorer.size),
        "boxes": [list(box) for box in explorer.boxes],
    }


def enter_answers(answers: Answers, last: MapOfImage | None) -> dict[str, Any]:
    """The answers. last: the map on the page; where the score differs from the one beside it, the network has changed
    since."""
    score = None if last is None or last.target != answers.target else last.score
    changed = score is not None and abs(score - answers.before) > _SAME * (1 + abs(score))
    return {
        "target": clean(answers.target),
        "spec": answers.spec,
        "quantity": answers.quantity,
        "before": answers.before,
        "after": answers.after,
        "changed": changed,
        "classes": [[one.number, clean(one.label), one.before, one.after] for one in answers.classes],
    }


def enter_map(one: MapOfImage) -> dict[str, Any]:
    return {
        "name": clean(one.method),
        "meaning": clean(one.meaning),
        "target": clean(one.target),
        "finding": clean(one.finding),
        "signed": one.signed,
        **_enter_values(one.values, one.end),
        "trust": enter_trust(one.trust),
    }


def enter_unit(one: UnitMap) -> dict[str, Any]:
    peak = np.unravel_index(int(one.values.argmax()), one.values.shape)
    order = np.argsort(-one.peaks, kind="stable")
    return {
        "name": f"{one.layer}:{one.unit}",
        "layer": one.layer,
        "unit": one.unit,
        "meaning": "activation",
        "target": f"unit {one.unit} of {one.layer}",
        "signed": bool((one.values < 0).any()),
        **_enter_values(one.values, float(np.abs(one.values).max()) or 1.0),
        "order": [int(n) for n in order],
        "peak": [float(one.values.max()), int(peak[0]), int(peak[1])],
        "covered": one.covered,
    }


def enter_trust(trust: Trust | None) -> dict[str, Any]:
    if trust is None:
        return {"missing": "it was not asked how far this map can be believed."}
    return {"sign": trust.sign, "verdict": trust.verdict, "why": [clean(one) for one in trust.sentences]}


def _enter_values(values: npt.NDArray[np.float32], end: float) -> dict[str, Any]:
    """The numbers themselves, as bytes: what is read from the map is what the method gave."""
    rows, columns = values.shape
    return {
        "rows": rows,
        "columns": columns,
        "values": np.ascontiguousarray(values, "<f4").tobytes(),
        "end": end,
    }


def _to_url(pixels: npt.NDArray[np.uint8]) -> str:
    """A picture (h, w, 1 or 3) as an address that holds it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

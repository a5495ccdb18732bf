"""Heatmaps and projections that are made up for tests of how results are drawn, told and saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from support import ORIGIN

import vizcnn
from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Mark, Panel, Prediction, Projections, Row, Scene

LONG = "a photograph with a very long name that somebody's camera and then somebody's software gave it (copy 2).jpeg"
NAMES = ["a.png", LONG, "القطة الصغيرة.jpg", "$x^2$ & <b>.png", "写真.png"]
LABELS = ["cat", "a class whose name is as long as names of classes come in some data sets", "σκύλος"]


def heatmap(
    images: int = 1,
    targets: int = 1,
    size: tuple[int, int] = (60, 80),
    *,
    alike: bool = True,
    signed: bool = True,
    scores: Any = None,
) -> vizcnn.Heatmap:
    """Maps of noise with a strong place, names of every kind, and both boxes."""
    height, width = size
    rng = np.random.default_rng(0)
    values = rng.normal(size=(images, targets, 8, 8)).astype(np.float32)
    values[:, :, 2:4, 3:6] = 9
    seen = Box(0, 0, height, width) if height == width else Box(height / 8, width / 8, height * 0.9, width * 0.9)
    labels = [LABELS[t % len(LABELS)] for t in range(targets)]
    origin = replace(
        ORIGIN,
        targets=(tuple(labels),) * images,
        target_specs=(tuple(map(str, range(targets))),) * images,
        images=tuple((f"{i}", "") for i in range(images)),
    )
    place = Box(height * 0.2, width * 0.2, height * 0.4, width * 0.5)
    meaning = "logit of the class lost when covered, as a rather long description of a unit says"
    return vizcnn.Heatmap(
        origin,
        values if signed else np.abs(values),
        rng.normal(size=(images, targets)).astype(np.float32) if scores is None else np.asarray(scores, np.float32),
        tuple(meaning if alike else f"{meaning} {t}" for t in range(targets)),
        tuple(Photo(rng.random((height, width, 3), np.float32), NAMES[i % len(NAMES)]) for i in range(images)),
        (seen,) * images,
        (tuple(Prediction(label, 0.9996) for label in LABELS),) * images,
        ((Mark(place, "covering here costs most"),) * targets,) * images,
        (("found",) * targets,) * images,
        signed=signed,
        percentile=100.0 if signed else 99.5,
        second_marks=((Mark(Box(0, 0, 5, 9), "this window alone: −1.23"),) * targets,) * images,
    )  # fmt: skip


def projections(size: tuple[int, int], boxes: list[Box], name: str = "a.jpg", images: int = 1) -> Projections:
    """Of each box a pattern of 4 x 4 px with its brightest in the upper left."""
    values = np.zeros((1, 4, 4, 3), np.float32)
    values[0, 0, 0] = 2
    panels = tuple(
        Panel(f"target{i}", f"layer{i}.conv:17@3,4", values, (17,), ("activation 3.2",), ((-2.0, 2.0),), "projection")
        for i in range(len(boxes))
    )
    photo = Photo(np.random.default_rng(0).random((*size, 3), np.float32), name)
    seen = Box(0, 0, min(size), min(size))
    row = Row(panels, Scene(photo, seen, tuple(Mark(box, "unit") for box in boxes)))
    return Projections(ORIGIN, (row,) * images, ("found",))

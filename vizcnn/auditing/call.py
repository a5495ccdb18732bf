"""Audit a data set: its images are read once, and its classes told from sub-folders, labels or the network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizcnn.auditing.copies import require_scikit_learn
from vizcnn.auditing.run import Labels, audit_images
from vizcnn.auditing.store import Store, describe_identity
from vizcnn.errors import ImageError, Interrupted, ParameterError, TargetError, VizcnnWarning, did_you_mean
from vizcnn.inputs.datasets import Images, dataset
from vizcnn.models.model import Model
from vizcnn.models.preparing import require_model
from vizcnn.output import refuse_inside
from vizcnn.progress import bar
from vizcnn.results import Audit
from vizcnn.scanning.layer_selection import find_input_size
from vizcnn.scanning.loader import split
from vizcnn.scanning.loader_processes import load_batches
from vizcnn.scanning.shard import digest_json
from vizcnn.scanning.study import number_classes
from vizcnn.version import __version__

_BATCH = 64
_LARGEST = 2**33  # bytes of all inputs


def audit(
    model: Model,
    images: Any,
    labels: str | Path | Mapping[str, str | int] | None = None,
    *,
    per_class: int = 64,
    seed: int = 0,
    progress: bool = True,
    suspicions: bool = False,
    folder: str | Path | None = None,
    client: Any = None,
) -> Audit:
    """Which classes of a data set are recognised by a tag, a frame, a watermark? Found and proven on the images.

    What is found on one half of each class is tested on the other, by intervention: with the cue pasted in, other
    images become the class; with it removed, the class is lost; and a control, the same done to other px, does
    neither. Copied px that do so are a shortcut. Of varied px and of colours, which may be the object itself, a person
    judges. The page on audits says what they cannot prove.

    images: a folder with a sub-folder for each class, an archive, a torch Dataset or a list, see
        `vizcnn.inputs.dataset`; labels likewise. Where no class is known, the predicted classes serve. Images that
        cannot be read are left out and listed in `Audit.refused`. Of those that show the same picture one counts.
    per_class: of how many images of a class one half is searched and the other tested; those beyond are tested too. A
        cue in few images of a class needs more of them, see `Audit.could_find`.
    seed: of everything random. suspicions: list what tests did not prove, too.
    folder: where what is done is kept until all is, then it is removed. Stopped by whatever, the same call goes on
        there and finds the same; another one is refused. By default nothing is kept.
    client: a `distributed.Client` whose workers share the classes; any number of them finds the same.

    The network runs at most about 18 times for each image, in small folders up to 3000 times in all; some 5 times more
    for each where classes are small, or no gradients arrive, as from a black box. Needs scikit-learn
    (extra: embed). Ctrl-C while images are read, or answered for as they are, is a KeyboardInterrupt; after that it is
    `vizcnn.Interrupted`, whose `result` has what was proven until then, be it nothing.

    Raises ParameterError, ImageError, DegenerateResult where all images are taken for one class, UnsuitableNetwork for
    a network whose classes do not exclude each other.

        import vizcnn

        found = vizcnn.audit(vizcnn.load("tiny"), "photos/")
        print(found)
        found.save("report.html")
    """
    found, store = audit_and_keep(
        model,
        images,
        labels,
        per_class=per_class,
        seed=seed,
        progress=progress,
        suspicions=suspicions,
        folder=folder,
        client=client,
    )
    if store is not None:
        store.remove()
    return found


def audit_and_keep(
    model: Model,
    images: Any,
    labels: str | Path | Mapping[str, str | int] | None = None,
    *,
    per_class: int,
    seed: int,
    progress: bool,
    suspicions: bool,
    folder: str | Path | None,
    client: Any,
) -> tuple[Audit, Store | None]:
    """The same, with the store that still has all that was done: for who removes it when the result is written."""
    require_scikit_learn()
    require_model("an audit", model)
    if folder is not None:
        refuse_inside(folder, images)
    held = _read(dataset(images, labels), model, progress)
    store = None if folder is None else Store(Path(folder), held.describe(model, per_class, seed))
    if store is not None:
        store.check()
    found = audit_images(
        model,
        held.inputs,
        held.find_classes(model),
        per_class=per_class,
        seed=seed,
        progress=progress,
        suspicions=suspicions,
        names=held.names,
        client=client,
        store=store,
    )
    origin = replace(
        found.provenance,
        refused=held.unreadable,
        details={"dataset": held.where, "fingerprint": held.fingerprint},
    )
    found = replace(found, provenance=origin)
    if found.partial:
        raise Interrupted(found)
    return found, store


@dataclass(frozen=True)
class _Held:
    """The images of a data set that could be read, as bytes (N, C, H, W), with their names and labels."""

    inputs: Tensor
    names: Sequence[str]
    labels: Sequence[str | None]
    numbered: bool
    unreadable: tuple[tuple[str, str], ...]
    where: str
    fingerprint: str

    def describe(self, model: Model, per_class: int, seed: int) -> dict[str, Any]:
        """What the findings depend on: an audit goes on only where all of this is the same."""
        about = model.provenance()
        del about["network_sha256"]  # as in a scan: other versions of libraries print layers otherwise
        return describe_identity(
            version=__version__,
            model=about,
            classes=digest_json(model.labels),
            device=model.device.type,
            dataset={"fingerprint": self.fingerprint, "images": len(self.names)},
            per_class=per_class,
            seed=seed,
        )

    def find_classes(self, model: Model) -> Labels | None:
        """The number of each image's class, (N,), -1 where it has none; None where none is known to the network."""
        known = {label: _find_class(model, label, self.numbered) for label in {*self.labels} if label is not None}
        if not known:
            return None
        strange = sorted(label for label, index in known.items() if index < 0)
        if strange:
            all_of_them = len(strange) == len(known)
            serves = "the predicted classes serve" if all_of_them else "their images are only pasted into"
            named = ", ".join(map(repr, strange[:3])) + (" and others" if len(strange) > 3 else "")
            warnings.warn(
                f"{model.name} has no class, or several, named {named}: {serves}. Name folders or labels as the "
                f"network's classes.{did_you_mean(strange[0], model.labels or ())}",
                VizcnnWarning,
                stacklevel=4,
            )
            if all_of_them:
                return None
        return np.array([known[label] if label is not None else -1 for label in self.labels], np.int64)


def _find_class(model: Model, label: str, numbered: bool) -> int:
    """The number of the class of this name; -1 where the network has none, or several.

    A folder of digits is the class of this name, whatever its number: those of ten grades are `1` to `10`, and sorted
    as texts `10` comes before `2`. Only where no class has that name it is a number."""
    names = model.labels
    try:
        if numbered:
            number = int(label)
        elif (number := int(number_classes([label], names))) < 0:
            number = model.class_index(label)  # its case may be another
    except (TargetError, ValueError):
        return -1
    return number if number >= 0 and (not names or number < len(names)) else -1


def _read(images: Images, model: Model, progress: bool) -> _Held:
    """All images that can be read, as bytes: as floats they would take four times the memory."""
    size = find_input_size(images, model)
    needed = len(images) * model.input.channels * size[0] * size[1]
    if needed > _LARGEST:
        raise ParameterError(
            f"the {len(images):,} images of {images.where} take {needed / 2**30:.0f} GB as inputs, and an audit holds "
            f"all of them in memory, {_LARGEST / 2**30:.0f} GB at most. Audit a part: some hundred of each class"
        )
    inputs = torch.empty(len(images), model.input.channels, *size, dtype=torch.uint8)
    kept, labels, unreadable = list[int](), list[str | None](), list[tuple[str, str]]()
    parts = split(range(len(images)), _BATCH)
    with (
        closing(load_batches(images, model.input, size, parts, None)) as batches,
        bar(len(images), "reading", "image", shown=progress) as shown,
    ):
        for part, batch in zip(parts, batches, strict=True):
            if batch.inputs is not None:
                inputs[len(kept) : len(kept) + len(batch.numbers)] = (batch.inputs * 255).round().to(torch.uint8)
            kept += batch.numbers.tolist()
            labels += batch.labels
            unreadable += [(images.names[number], reason) for number, reason in batch.unreadable]
            shown.update(len(part))
    if not kept:
        raise ImageError(f"none of the {len(images):,} images of {images.where} can be read: {unreadable[0][1]}")
    names = [images.names[number] for number in kept]
    return _Held(
        inputs[: len(kept)], names, labels, images.numbered, tuple(unreadable), images.where, images.fingerprint
    )

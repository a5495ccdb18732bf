"""Does an audit find the shortcuts that networks use, and none in networks that use none?

    python benchmarks/audit.py CACHE --mnist path/to/mnist --photos tiny-imagenet-200.tar.xz --seeds 1 2 3
    python benchmarks/audit.py CACHE --mnist path/to/mnist --photos tiny-imagenet-200.tar.xz --report

Networks are those of `planted_networks.py`, trained where the cache does not have them. A network counts as using its
cue where its oracle says .3 or more; of those with a cue in one class only these are audited. Innocent are networks
that were trained with the cue in all classes alike, and with none. Each audit is a line of `audits.jsonl`, and one that
is there is not made again; `--report` prints the tables.

Two baselines look at the same maps: the mean map of each class, and clusters of the maps of each class. Each flags a
class where its score is beyond the most extreme that any innocent network has on the same data: the best threshold
that one could choose, known only with hindsight.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit_baselines import Maps, cluster_maps, compare_mean_maps
from audit_report import USED, format_report
from planted_cues import COPIED, VARIED, Box
from planted_networks import Case, Flags, Images, Workshop, add_options, list_cases, plant, read_lines, write_line

import vizcnn
import vizcnn.auditing
from vizcnn.auditing.maps import map_windows
from vizcnn.auditing.network import Network
from vizcnn.auditing.run import audit_images
from vizcnn.results.audit_words import tell_finding
from vizcnn.results.evidence import Finding

FILE = "audits.jsonl"
TOUCHING = 0.1  # the overlap from which a box is that of the cue

Record = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """Images to audit: so many of each class, and the share that carries the cue, in the classes that have it."""

    present: float
    per_class: int


def list_folders(case: Case) -> list[Folder]:
    """The folders in which a network is audited."""
    if case.where != "one":
        return [Folder(case.share, 64)]
    if case.kind in COPIED:
        return [Folder(0.2, 64), Folder(0.1, 128), *([Folder(1.0, 64)] if case.share == 1 else [])]
    return [Folder(0.2, 64), Folder(0.5, 64)] if case.kind in VARIED else [Folder(case.share, 64)]


def list_audits(workshop: Workshop, seeds: list[int], data: list[str]) -> list[tuple[Case, Folder]]:
    """What is to be audited: networks that use their cue, and innocent ones; each in its first folder before others."""
    found = []
    for case in list_cases(seeds, data):
        workshop.find_model(case)
        if case.where != "one" or workshop.find_oracle(case).use >= USED:
            found += [(case, folder) for folder in list_folders(case)]
    return sorted(found, key=lambda pair: list_folders(pair[0]).index(pair[1]))


# One audit


def audit(workshop: Workshop, case: Case, folder: Folder) -> Record:
    """Audit a network on a folder, look at its maps in two other ways, and say what came out."""
    model, clean = workshop.find_model(case), workshop.read(case)[1].pick(folder.per_class)
    images, carries, boxes = plant(clean, case, folder.present, f"folder {folder.present}")
    start, processor = time.perf_counter(), time.process_time()
    names = [str(i) for i in range(len(images.pixels))]
    found = audit_images(model, images.pixels, images.labels.numpy(), suspicions=True, progress=False, names=names)
    record = asdict(case) | asdict(folder) | asdict(workshop.find_oracle(case)) | {"label": case.label}
    record |= {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    record |= {"images": len(images.pixels), "findings": [describe(one, case, boxes) for one in found.findings]}
    record |= {"runs": found.runs, "engine": digest_engine()}
    record |= {"matching_share": found.seconds_matching / record["seconds"]}
    record |= {"network_share": found.seconds_network / record["seconds"]}
    return record | ask_baselines(model, images, carries, case.label)


def describe(found: Finding, case: Case, boxes: list[Box | None]) -> Record:
    """A finding as a record: whether it is the planted cue, and how well its box fits, where the cue has one.

    Boxes are compared in the images of the sheet, and the middle of their overlaps is taken."""
    overlaps = []
    for name, box in zip(found.sheet.names, found.sheet.boxes, strict=True):
        planted = boxes[int(name)]
        found_box = (int(box.top), int(box.left), int(box.bottom), int(box.right))
        overlaps.append(0.0 if planted is None else measure_overlap(found_box, planted))
    overlap = float(np.median(overlaps)) if overlaps and found.cue == "patch" else 0.0
    is_class = case.where == "one" and found.index == case.label
    is_cue = {"border": is_at_rim(found), "tint": found.cue == "colour"}.get(case.kind, overlap > TOUCHING)
    has_box = case.kind not in ("border", "tint")
    summary = found.summary() | {"says": tell_finding(found)}
    return summary | {"hit": is_class and is_cue, "overlap": overlap if has_box and found.cue == "patch" else None}


def is_at_rim(found: Finding) -> bool:
    """Whether a finding is a frame, or a patch that touches an edge of the image."""
    height, width = found.sheet.carriers.shape[1:3]
    box = found.box
    touches = box.top == 0 or box.left == 0 or box.bottom == height or box.right == width
    return found.cue == "frame" or (found.cue == "patch" and touches)


def digest_engine() -> str:
    """A few characters that change with the code of the audit, so that no table mixes two of them."""
    folder = Path(vizcnn.auditing.__file__).parent
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))).hexdigest()[:8]


def make_maps(model: vizcnn.Model, images: Images) -> Maps:
    """The maps that an audit begins with: what each of W windows is worth to each image's class, (N, W)."""
    labels, everything = images.labels.numpy(), np.arange(len(images.labels))
    with model.borrowed():
        network = Network(model, images.pixels)
        return map_windows(network, everything, labels, np.zeros(len(labels)), images.pixels.mean(0))[1]


def ask_baselines(model: vizcnn.Model, images: Images, carries: Flags, label: int) -> Record:
    """What the mean maps and the clusters of maps say of each class, and how the clusters of the label agree with
    the carriers."""
    labels = images.labels.numpy()
    maps = make_maps(model, images)
    means, clusters = compare_mean_maps(maps, labels), cluster_maps(maps, labels)
    return {
        "mean_maps": [found.score for found in means.values()],
        "connections": [found.connection for found in clusters.values()],
        "agreement": clusters[label].measure_agreement(carries[labels == label]),
    }


def measure_overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    height = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    width = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return height * width / (areas - height * width)


# All of them


def run(workshop: Workshop, audits: Iterable[tuple[Case, Folder]]) -> None:
    """Make the audits that `audits.jsonl` does not have yet of the audit as it is now."""
    file = workshop.cache / FILE
    for case, folder in audits:
        wanted = asdict(case) | asdict(folder) | {"engine": digest_engine()}
        if any(wanted.items() <= line.items() for line in read_lines(file)):
            continue
        record = audit(workshop, case, folder)
        write_line(file, record)
        said = [f"{found['kind']}{' HIT' if found['hit'] else ''}" for found in record["findings"]]
        print(f"{case.name} {folder.present:.0%} of {folder.per_class}: {', '.join(said) or 'nothing'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--report", action="store_true", help="print the tables of what was audited")
    options = parser.parse_args()
    torch.set_num_threads(1)
    workshop = Workshop(options.cache, options.mnist, options.photos)
    if not options.report:
        run(workshop, list_audits(workshop, options.seeds, options.data))
    records = [line for line in read_lines(workshop.cache / FILE) if line["seed"] in options.seeds]
    records = [line for line in records if line["data"] in options.data and line["engine"] == digest_engine()]
    print(format_report(records))


if __name__ == "__main__":
    main()

"""The tables of `audit.py`, from the lines that its runs left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from planted_cues import COPIED, KINDS

Record = dict[str, Any]

USED = 0.3
"""The oracle of a network that uses its cue."""


def is_used(record: Record) -> bool:
    """Whether the network has its cue in one class, and uses it."""
    return bool(record["where"] == "one" and max(record["lost"], record["flipped"]) >= USED)


def list_found(record: Record, kind: str) -> list[Record]:
    """The findings of a kind that are the planted cue."""
    return [found for found in record["findings"] if found["kind"] == kind and found["hit"]]


def list_false(record: Record, kind: str) -> list[Record]:
    """The findings of a kind that are something else."""
    return [found for found in record["findings"] if found["kind"] == kind and not found["hit"]]


def format_report(records: Sequence[Record]) -> str:
    """All tables, in Markdown."""
    parts = (format_bars, format_detection, format_innocents, format_baselines, format_misses)
    return "\n\n".join("\n".join(part(records)) for part in parts)


def _select(records: Sequence[Record], **wanted: object) -> list[Record]:
    return [record for record in records if wanted.items() <= record.items()]


def _head(*names: str) -> str:
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def _count(records: Sequence[Record], test: Callable[[Record], object]) -> str:
    return f"{sum(bool(test(record)) for record in records)} of {len(records)}"


def format_bars(records: Sequence[Record]) -> Iterator[str]:
    """The bars that the audit was built to reach, and what it reached."""
    used = [record for record in records if is_used(record)]
    innocent = [record for record in records if record["where"] != "one"]
    copied = [record for record in used if record["kind"] in COPIED]
    yield _head("", "bar", "reached")
    for share, per_class, bar in ((0.2, 64, "90%"), (0.1, 128, "90%"), (1.0, 64, "-")):
        chosen = _select(copied, present=share, per_class=per_class)
        name = f"SHORTCUT on used patch and frame cues, {share:.0%} of a class, {per_class} images a class"
        yield f"| {name} | {bar} | {_count(chosen, lambda r: list_found(r, 'shortcut'))} |"
    yield f"| innocent models with a SHORTCUT | 0 | {_count(innocent, lambda r: list_false(r, 'shortcut'))} |"
    others = _count(used, lambda r: list_false(r, "shortcut"))
    yield f"| models that use their cue, with a SHORTCUT on something else | - | {others} |"
    parts = [float(len(list_false(record, "part"))) for record in innocent]
    yield f"| 'part?' per innocent model | 1 | {np.mean(parts or [np.nan]):.2f}, at most {max(parts, default=0):.0f} |"
    overlaps = [found["overlap"] for r in copied for found in list_found(r, "shortcut") if found["overlap"] is not None]
    middle = np.median(overlaps or [np.nan])
    yield f"| box: median intersection over union | 0.8 | {middle:.2f} ({len(overlaps)} boxes) |"
    tints = _select(used, kind="tint")
    yield f"| tint among the first five listed | all | {_count(tints, _is_among_first)} |"
    yield f"| tint flagged as SHORTCUT | 0 | {_count(tints, lambda r: list_found(r, 'shortcut'))} |"
    for data in ("digits", "photos"):
        own = _select(records, data=data)
        runs = [record["runs"] for record in own]
        shares = [record["matching_share"] for record in own]
        if own:
            yield f"| {data}: runs of the network per image | 18 | {np.mean(runs):.1f}, at most {max(runs):.1f} |"
            yield f"| {data}: matching's share of the time | 50% | {np.mean(shares):.0%}, at most {max(shares):.0%} |"


def _is_among_first(record: Record) -> bool:
    return any(found["hit"] for found in record["findings"][:5])


def format_detection(records: Sequence[Record]) -> Iterator[str]:
    """How often each kind of cue was found, by data and folder."""
    yield _head("data", "cue", "carriers", "images a class", "networks", "SHORTCUT", "part?", "suspicion", "overlap")
    used = [record for record in records if is_used(record)]
    folders = sorted({(record["per_class"], record["present"]) for record in used})
    for data, kind, (per_class, present) in product(("digits", "photos"), KINDS, folders):
        chosen = _select(used, data=data, kind=kind, per_class=per_class, present=present)
        if chosen:
            found = [sum(bool(list_found(r, name)) for r in chosen) for name in ("shortcut", "part", "suspicion")]
            overlaps = [f["overlap"] for r in chosen for f in r["findings"] if f["hit"] and f["overlap"] is not None]
            middle = f"{np.median(overlaps):.2f}" if overlaps else "-"
            cells = (data, kind, f"{present:.0%}", per_class, len(chosen), *found, middle)
            yield f"| {' | '.join(map(str, cells))} |"


def format_innocents(records: Sequence[Record]) -> Iterator[str]:
    """What was said of innocent networks."""
    yield _head("innocent", "networks", "SHORTCUT", "part?: patch or frame", "part?: colour", "suspicion")
    for data, where in product(("digits", "photos"), ("all", "none")):
        chosen = _select(records, data=data, where=where)
        found = [(f["kind"], f["cue"]) for record in chosen for f in record["findings"]]
        kinds = [kind for kind, _ in found]
        coloured = found.count(("part", "colour"))
        cells = (kinds.count("shortcut"), kinds.count("part") - coloured, coloured, kinds.count("suspicion"))
        name = f"{data}, {'the cue in all classes' if where == 'all' else 'no cue'}"
        yield f"| {name} | {len(chosen)} | {' | '.join(map(str, cells))} |"


def format_baselines(records: Sequence[Record]) -> Iterator[str]:
    """How often maps alone name the class, at the strictest threshold that flags no innocent network."""
    yield _head(
        "64 images a class", "networks", "audit", "mean map", "clusters", "clusters' agreement with the carriers"
    )
    small = [record for record in records if record["per_class"] == 64]
    for data, present in product(("digits", "photos"), (0.2, 1.0)):
        innocent = [r for r in _select(small, data=data) if r["where"] != "one"]
        chosen = [r for r in _select(small, data=data, present=present) if is_used(r) and r["kind"] in COPIED]
        if not (innocent and chosen):
            continue
        highest = max(max(r["mean_maps"]) for r in innocent)
        lowest = min(min(r["connections"]) for r in innocent)
        named = sum(r["mean_maps"][r["label"]] > highest for r in chosen)
        clustered = sum(r["connections"][r["label"]] < lowest for r in chosen)
        agreement = np.median([r["agreement"] for r in chosen])
        cells = (sum(bool(list_found(r, "shortcut")) for r in chosen), named, clustered, f"{agreement:.2f}")
        yield f"| {data}, {present:.0%} of the class | {len(chosen)} | {' | '.join(map(str, cells))} |"


def format_misses(records: Sequence[Record]) -> Iterator[str]:
    """A line for each copied cue that was used and not flagged, and for each flag and 'part?' on something else."""
    for record in records:
        name = f"{record['data']} {record['kind']} seed {record['seed']}, trained {record['share']:.0%}"
        name += f", audited {record['present']:.0%} of {record['per_class']}"
        name += f" (lost {record['lost']:.2f}, flipped {record['flipped']:.2f})"
        if is_used(record) and record["kind"] in COPIED and not list_found(record, "shortcut"):
            said = ", ".join(f"{f['kind']}: {f['says']}" for f in record["findings"] if f["hit"])
            yield f"- missed: {name}: {said or 'not proposed'}"
        for kind in ("shortcut", "part"):
            for found in list_false(record, kind):
                yield f"- {kind}, {record['where']}: {name}: {found['says']}"

"""What the command line reads for every probe, besides the probe's own options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Call:
    """One call of a probe from the command line.

    Each field has the name of an argument or an option (`--dry-run` is `dry_run`), and the command line reads nothing
    else for every probe. So a probe's own option cannot have any of these names.

    images: files and folders. network, targets: for a probe of the network alone, the arguments MODEL and TARGET.
    target, model: the options of those names. workers, dask: who shares the images. index: the folder of the scan that
    answers in place of a network. style: that the picture is drawn in. trust: whether it is asked how far maps can be
    believed. trust_pickle and input_size to display: what is said of the network, as for `vizcnn.load`.
    """

    images: tuple[str, ...] | None = None
    network: str | None = None
    targets: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    model: str | None = None
    out: Path | None = None
    device: str = "cpu"
    input_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: str | None = None
    input_channels: int | None = None
    classes: int | None = None
    white: float | None = None
    display: tuple[int, ...] | None = None
    seed: int = 0
    index: str | None = None
    workers: int | None = None
    dask: str | None = None
    style: str | None = None
    trust: bool = False
    trust_pickle: bool = False
    dry_run: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False


CALL_NAMES = frozenset(field.name for field in fields(Call))
HELP = "help"  # no field of Call, because click answers it by itself

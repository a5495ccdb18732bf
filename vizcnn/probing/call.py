"""What the command line reads for every probe, beside the probe's own options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Call:
    """One call of a probe from the command line.

    The command line fills it by these names, each the name of an argument or of an option (`--dry-run` is `dry_run`),
    and can read nothing that is not here. So these are also the names that no probe's own option can have.

    images: files and folders. network, goals: what stands without a dash for a probe of the network alone, the model
    and its targets. target, model: of the options of that name. index: the folder of a scan that is to answer.
    """

    images: tuple[str, ...] | None = None
    network: str | None = None
    goals: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    model: str | None = None
    out: Path | None = None
    device: str = "cpu"
    seed: int = 0
    index: str | None = None
    dry_run: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False


CALLED = frozenset(field.name for field in fields(Call))
HELP = "help"  # which click answers itself

"""The command `audit`: a report, a sheet of each finding and the numbers, in a folder of their own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vizcnn.cli.options import DEVICE, LOADING, LOADING_NAMES, REPORTING, with_options
from vizcnn.probing.call import Call

if TYPE_CHECKING:
    from vizcnn.results import Audit

FOUND = 4
"""The exit status of --fail where something was found."""

UNFINISHED = "unfinished"
"""What was done until an audit was stopped, in the folder."""

REPORT, NUMBERS, RESULT = "report.html", "findings.json", "audit.npz"
_SHEET = "sheet-*.png"
_LONGEST = 40  # letters of a class in the name of a file
_SHOWN = 20  # images that could not be read, one by one


@with_options(DEVICE, *LOADING, *REPORTING)
@click.command(short_help="Which classes are recognised by a tag, a frame, a watermark? Found, and proven.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option("-m", "--model", default="tiny", show_default=True, help="As for the probes.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default="audit", show_default=True, help="The folder.")
@click.option("--labels", type=click.Path(path_type=Path), help="A file of lines NAME,CLASS. Default: the sub-folders.")
@click.option(
    "--per-class",
    type=click.IntRange(8),
    default=64,
    show_default=True,
    help="Images of a class of which one half is searched, the other tested; all beyond are tested.",
)
@click.option("--suspicions", is_flag=True, help="Show what tests did not prove, too.")
@click.option("--fail", is_flag=True, help=f"Leave with exit status {FOUND} where a shortcut or a part was found.")
@click.option("--workers", type=click.IntRange(1), help="Share the classes among so many processes (extra: cluster).")
@click.option("--dask", metavar="ADDRESS", help="Share them among the workers of a Dask scheduler, tcp://HOST:PORT.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of everything random.")
def audit(model: str, out: Path, device: str, json: bool, quiet: bool, debug: bool, fail: bool, **options: Any) -> None:
    """Find out whether a class is recognised by something that does not belong to it: a tag, a frame, a watermark.

    IMAGES is a folder with a sub-folder for each class, an archive, or image files, with --labels or without: then the
    classes that the network predicts serve. What is found in one half of a class is proven on the other: pasted into
    other images it makes the class appear, taken away the class is lost, and a control does neither. The folder gets
    report.html, a picture of each finding, findings.json, and audit.npz, which vizcnn.load_result opens. Stopped by
    whatever, the same command goes on where it was and finds the same; after Ctrl-C the folder has what was proven.

    \b
    vizcnn audit photos/ -m resnet18@mine.pth -o audit
    vizcnn audit photos/ -m resnet18@mine.pth --fail     # in a pipeline: exit status 4 where something was found
    """
    from vizcnn.cli.session import INTERRUPTED, Session

    session = Session("audit", Call(out=out, json=json, quiet=quiet, debug=debug))
    code = 0

    def work() -> _Done:
        nonlocal code
        from functools import partial

        from vizcnn.auditing.call import audit_and_keep
        from vizcnn.cli.sharing import open_workers
        from vizcnn.errors import Interrupted
        from vizcnn.models.loading import load

        images = options.pop("images")
        check_folder(out, images)
        said = {name: options.pop(name) for name in LOADING_NAMES}
        network = session.tell_notes(partial(load, model, device=device, **said))()
        source = images[0] if len(images) == 1 else list(images)
        try:
            with open_workers(options.pop("dask"), options.pop("workers")) as client:
                found, kept = audit_and_keep(
                    network, source, folder=out / UNFINISHED, client=client, progress=not quiet, **options
                )
        except Interrupted as stopped:
            found, kept, code = stopped.result, None, INTERRUPTED
        done = write_folder(found, out)
        if kept is not None:  # not before all is written: a full disk would cost the whole audit
            kept.remove()
        if fail and not code and any(finding.kind != "suspicion" for finding in found.findings):
            code = FOUND
        return done

    def leave(done: _Done) -> list[str]:
        return _list_unreadable(done.audit)

    _finish(session, work, leave, lambda: code)


def _finish(session: Any, work: Any, list_problems: Any, choose_code: Any) -> NoReturn:
    """Let the session finish, and leave with a status of our own, if any, unless the audit failed: that an image could
    not be read says less than what was found in the others."""
    from vizcnn.cli.session import OK, SOME_FAILED

    try:
        session.finish(work, _collect, _describe, list_problems)
    except SystemExit as left:
        if choose_code() and left.code in (None, OK, SOME_FAILED):
            sys.exit(choose_code())
        raise
    raise AssertionError("a session ends the program")


@dataclass(frozen=True)
class _Done:
    """An audit and the files that hold it: the sheet of each finding, in order, and the folder."""

    audit: Audit
    folder: Path
    sheets: tuple[Path, ...]


def check_folder(folder: Path, images: Sequence[str]) -> None:
    """Refuse, before anything is computed, a folder that cannot be made or written, that is not an audit's, or that the
    next audit would take for images. Raises OutputError and ParameterError.

    The folder itself is made when there is something to write."""
    from vizcnn.errors import OutputError, ParameterError
    from vizcnn.output import refuse_inside, refuse_unwritable

    refuse_inside(folder, images)
    try:
        is_there = folder.exists()
        left = {entry.name for entry in folder.iterdir()} - {UNFINISHED} if is_there else set()
    except OSError as error:
        raise OutputError(f"cannot use the folder {folder}: {error.strerror}. Choose another with -o") from error
    if not is_there:
        above = next(each for each in Path(os.path.abspath(folder)).parents if each.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            why = "is read-only" if above.is_dir() else "is no folder"
            raise OutputError(f"cannot make the folder {folder}: {above} {why}. Choose another with -o")
        return
    if left and not _is_audit(folder / NUMBERS):
        raise ParameterError(
            f"{folder} holds files that are not of an audit, and was left alone. Choose an empty or new folder with -o"
        )
    for name in (REPORT, NUMBERS, RESULT):
        refuse_unwritable(folder / name)


def _is_audit(file: Path) -> bool:
    import json

    with suppress(OSError, ValueError):
        record = json.loads(file.read_text(encoding="utf-8"))
        origin = record.get("provenance") if isinstance(record, dict) else None
        return isinstance(origin, dict) and origin.get("probe") == "audit"
    return False


def write_folder(audit: Audit, folder: Path) -> _Done:
    """Write the report, the sheets and the numbers; sheets of an audit before are removed."""
    from vizcnn.errors import OutputError
    from vizcnn.inputs.records import provenance_in

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another with -o") from error
    audit.save(folder / NUMBERS)  # first: it says that the folder is an audit's, also where the rest is not written
    for old in folder.glob(_SHEET):
        if provenance_in(old) is not None:
            old.unlink()
    sheets = []
    for number, finding in enumerate(audit.findings, 1):
        name = re.sub(r"[^\w-]+", "-", finding.label)[:_LONGEST].strip("-") or str(finding.index)
        sheets.append(audit.save_sheet(number, folder / f"sheet-{number}-{finding.kind}-{name}.png"))
    audit.save(folder / REPORT)
    audit.save(folder / RESULT)
    return _Done(audit, folder, tuple(sheets))


def _collect(done: _Done) -> dict[str, object]:
    files = {"report": str(done.folder / REPORT), "sheets": [str(sheet) for sheet in done.sheets]}
    return {**done.audit.manifest(), **files}


def _describe(done: _Done) -> str:
    """A sentence for each finding with its sheet below, what could have been found, and where the report is."""
    lines = done.audit.describe().split("\n")
    count = len(done.sheets)
    told = [line for pair in zip(lines[:count], (f"  {sheet}" for sheet in done.sheets), strict=True) for line in pair]
    more = ["The same command goes on from here"] if done.audit.partial else []
    return "\n".join([*told, *lines[count:], *more, f"  {done.folder / REPORT}"])


def _list_unreadable(audit: Audit) -> list[str]:
    """A line for each image that could not be read, and one for more of them."""
    from vizcnn.inputs.images import to_printable

    bad = audit.refused
    lines = [f"{to_printable(name)} was skipped: {reason}" for name, reason in bad[:_SHOWN]]
    return [*lines, f"{len(bad):,} images could not be read (--json lists all)"] if len(bad) > _SHOWN else lines

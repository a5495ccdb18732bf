"""Commands beside the probes: check a network, scan a data set into an index, put together what runs have scanned."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vizcnn.cli.atlas import atlas
from vizcnn.cli.auditing import audit
from vizcnn.cli.checking import check
from vizcnn.cli.explaining import explain
from vizcnn.cli.options import DEVICE, LOADING, LOADING_NAMES, REPORTING, parse_layers, with_options
from vizcnn.probing.call import Call

if TYPE_CHECKING:
    from vizcnn.scanning import Index

_SHOWN = 20  # images that could not be read, one by one


def _parse_part(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, int]:
    """`2/8` as numbers."""
    if text is None:
        return 1, 1
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.BadParameter(f"a part is I/N with I from 1 to N, such as 2/8, got {text!r}")
    return int(i), int(n)


@with_options(DEVICE, *LOADING, *REPORTING)
@click.command(short_help="What excites each channel most? One pass over a data set, kept in an index.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option("-m", "--model", default="tiny", show_default=True, help="As for the probes.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default="index", show_default=True, help="The folder.")
@click.option(
    "--layers", callback=parse_layers, help="Names or patterns, with commas. Default: what holds weights, and output."
)
@click.option("--top", type=int, default=9, show_default=True, help="Images kept for each channel, 1 to 100.")
@click.option(
    "--rank", type=click.Choice(["max", "mean", "sum"]), default="max", show_default=True, help="Over positions."
)
@click.option("--labels", type=click.Path(path_type=Path), help="A file of lines NAME,CLASS. Default: the sub-folders.")
@click.option("--batch", type=click.IntRange(1), help="Images per run of the network. Default: by their size.")
@click.option("--shard-size", type=click.IntRange(1), help="Images after which what was found is written down.")
@click.option(
    "--loaders", type=click.IntRange(0), help="Processes that read images, 0 for none. Default: half the processors."
)
@click.option("--threads", type=click.IntRange(1), help="Of torch; another number can change last digits.")
@click.option("--shard", "part", callback=_parse_part, metavar="I/N", help="Do every N-th shard from the I-th only.")
@click.option("--workers", type=click.IntRange(1), help="Share the shards among so many processes (extra: cluster).")
@click.option("--dask", metavar="ADDRESS", help="Share them among the workers of a Dask scheduler, tcp://HOST:PORT.")
def scan(model: str, out: Path, device: str, json: bool, quiet: bool, debug: bool, **options: Any) -> None:
    """Look at every image of a data set once: what excites each channel most, and its statistics.

    IMAGES is a folder with any sub-folders (classes), a .zip or .tar archive or a folder in it, or image files. The
    index answers `vizcnn top-images LAYER:CHANNEL --index DIR` without the network. Stopped by whatever, the same
    command continues and finds the same; it also mends a damaged index. Images that cannot be read are skipped, listed,
    and make the exit status 3.

    \b
    vizcnn scan photos/ -m resnet18 -o index
    vizcnn scan photos/ -m resnet18 -o index --shard 2/8     # on one of eight machines; then: vizcnn scan-merge index
    vizcnn scan photos/ -m resnet18 -o index --workers 4     # four processes on this machine
    """
    from vizcnn.cli.session import GOES_ON, Session

    def work() -> _Done:
        from vizcnn.cli.sharing import open_workers
        from vizcnn.models.loading import load
        from vizcnn.scanning import Part
        from vizcnn.scanning import scan as run

        said = {name: options.pop(name) for name in LOADING_NAMES}
        given = {key: value for key, value in options.items() if key not in ("images", "workers", "dask", "part")}
        images, workers = options["images"], options["workers"]
        network, part = session.tell_notes(partial(load, model, device=device, **said))(), Part(*options["part"])
        source = images[0] if len(images) == 1 else list(images)
        with open_workers(options["dask"], workers) as client:
            index = run(network, source, out, part=part, client=client, progress=not quiet, **given)
        return _Done(index, index.digest)

    session = Session("scan", Call(out=out, json=json, quiet=quiet, debug=debug))
    session.finish(work, _collect_facts, _describe, _list_unreadable, after_stop=GOES_ON)


@with_options(*REPORTING)
@click.command("scan-merge", short_help="Put together what several runs of scan --shard have made.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("others", nargs=-1, type=click.Path(path_type=Path), metavar="[FROM]...")
def scan_merge(folder: Path, others: tuple[Path, ...], json: bool, quiet: bool, debug: bool) -> None:
    """Put together the shards that several runs of `vizcnn scan --shard I/N` have made.

    FOLDER is where they wrote to, or one of the folders where they did; the shards in each FROM are copied there.
    """
    from vizcnn.cli.session import Session

    def work() -> _Done:
        from vizcnn.scanning import merge_indexes

        index = merge_indexes(folder, others)
        return _Done(index, index.digest)

    session = Session("scan-merge", Call(out=folder, json=json, quiet=quiet, debug=debug))
    session.finish(work, _collect_facts, _describe, _list_unreadable)


@dataclass(frozen=True)
class _Done:
    """An index with its digest, which takes a look at all of it."""

    index: Index
    digest: str


def _collect_facts(done: _Done) -> dict[str, Any]:
    index = done.index
    return {
        "index": str(index.folder),
        "complete": bool(done.digest),
        "digest": done.digest,
        "images": len(index.names),
        "unreadable": [[index.names[number], reason] for number, reason in index.unreadable],
        "layers": {name: list(shape) for name, shape in index.layers.items()},
    }


def _describe(done: _Done) -> str:
    index = done.index
    channels = sum(shape[0] for shape in index.layers.values())
    found = f"{len(index.names):,} images, {channels:,} channels of {len(index.layers)} layers"
    if not done.digest:
        return f"{found}: {len(index.lacking())} of {len(index.shards)} shards are still to be done\n  {index.folder}"
    example = f"vizcnn top-images {next(iter(index.layers))}:0 --index {shlex.quote(str(index.folder))}"
    return f"{found}; digest {done.digest[:16]}\n  {index.folder}, ask it: {example}"


def _list_unreadable(done: _Done) -> list[str]:
    """A line for each image that could not be read, and one for more of them."""
    from vizcnn.inputs.images import to_printable

    index, bad = done.index, done.index.unreadable
    lines = [f"{to_printable(index.names[number])} was skipped: {reason}" for number, reason in bad[:_SHOWN]]
    more = f"{len(bad):,} of {len(index.names):,} images could not be read (--json lists all)"
    return [*lines, more] if len(bad) > _SHOWN else lines


COMMANDS = {"check": check, "explain": explain, "audit": audit, "atlas": atlas, "scan": scan, "scan-merge": scan_merge}

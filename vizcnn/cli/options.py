"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vizcnn.probing.parsing import parse_names

REPORTING = [
    click.Option(["--json"], is_flag=True, help="Print one JSON object on stdout instead of sentences."),
    click.Option(["-q", "--quiet"], is_flag=True, help="Print nothing but errors."),
    click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
]
"""What is printed, and how; every command has these."""

SHARING = [
    click.Option(
        ["--workers"], type=click.IntRange(1), help="Share the images among so many processes (extra: cluster)."
    ),
    click.Option(
        ["--dask"], metavar="ADDRESS", help="Share them among the workers of a Dask scheduler, tcp://HOST:PORT."
    ),
]
"""Who works on many images."""

STYLE = click.Option(
    ["--style"],
    type=click.Choice(["screen", "dark", "print", "print-wide"]),  # all of vizcnn.results.STYLES, named without numpy
    help="How the picture looks: on a dark ground, or for a paper, one column or both columns wide (as .pdf where no "
    "file is named). Default: screen.",
)


def _check_size(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    from vizcnn.models.given import read_size

    return None if text is None else _read(read_size, text)


def _check_numbers(_ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    from vizcnn.models.given import read_numbers

    return None if text is None else _read(read_numbers, str(param.name), text)


def _read(reader: Callable[..., Any], *given: str) -> Any:
    try:
        return reader(*given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def parse_layers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Names or patterns of layers, with commas between."""
    try:
        return None if text is None else parse_names(text)
    except ValueError as error:
        raise click.BadParameter(f"layers are {error}, got {text!r}") from error


def _parse_display(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """`3,2,1` as numbers."""
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"channels are numbers from 0 with commas between, such as 3,2,1, got {text!r}")
    return tuple(map(int, parts)) or None


LOADING = [
    click.Option(
        ["--trust-pickle"],
        is_flag=True,
        help="Read checkpoints with objects of any class, and whole pickled networks. That runs the code in them: only "
        "for files whose makers you trust.",
    ),
    click.Option(
        ["--input-size"],
        callback=_check_size,
        metavar="SIDE|HxW",
        help="Of the network's input, in px: 224, or HEIGHTxWIDTH. Default: the network's own.",
    ),
    click.Option(
        ["--mean"],
        callback=_check_numbers,
        metavar="R,G,B",
        help="Of pixels in [0, 1], for each channel, such as 0.485,0.456,0.406. Default: the network's own.",
    ),
    click.Option(["--std"], callback=_check_numbers, metavar="R,G,B", help="As --mean: 0.229,0.224,0.225."),
    click.Option(
        ["--class-names"],
        metavar="FILE",
        help="Names of the outputs in their order: one on each line, a JSON list or id2label.",
    ),
    click.Option(
        ["--input-channels"],
        type=click.IntRange(1),
        help="Build an architecture of torchvision, timm or transformers for so many.",
    ),
    click.Option(["--classes"], type=click.IntRange(1), help="Build it for so many classes."),
    click.Option(
        ["--white"],
        type=float,
        help="The value of white in images of more than 8 bits, such as 4095 for 12 bits stored in 16. Default: the "
        "largest of their bits.",
    ),
    click.Option(
        ["--display"],
        callback=_parse_display,
        metavar="R,G,B",
        help="The channels, from 0, that are drawn as red, green and blue, or one as grey. Default: the first.",
    ),
]
"""What is said of a network beside its name: keyword arguments of `vizcnn.load` under the same names."""

LOADING_NAMES = frozenset(str(option.name) for option in LOADING)

DEVICE = click.Option(["--device"], default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, mps.")


def with_options(*shared: click.Option) -> Callable[[click.Command], click.Command]:
    """Decorate a command that also takes these options, behind its own."""

    def extend(command: click.Command) -> click.Command:
        command.params += shared
        return command

    return extend

"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable

import click

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

DEVICE = click.Option(["--device"], default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, mps.")


def with_options(*shared: click.Option) -> Callable[[click.Command], click.Command]:
    """Decorate a command that also takes these options, behind its own."""

    def extend(command: click.Command) -> click.Command:
        command.params += shared
        return command

    return extend

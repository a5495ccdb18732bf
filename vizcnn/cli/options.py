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

DEVICE = click.Option(["--device"], default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, mps.")


def with_options(*shared: click.Option) -> Callable[[click.Command], click.Command]:
    """Decorate a command that also takes these options, behind its own."""

    def extend(command: click.Command) -> click.Command:
        command.params += shared
        return command

    return extend

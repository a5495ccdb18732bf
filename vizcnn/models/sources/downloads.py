"""Downloads of libraries: what they print, and what to do where there is no connection."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, TypeVar
from unittest.mock import patch
from urllib.parse import urlparse
from urllib.request import getproxies

from vizcnn.models.checkpoints import take_first_line

T = TypeVar("T")


@contextmanager
def show_download() -> Iterator[None]:
    """Show a library's messages of a download on standard error if that is a terminal; standard output is the
    program's."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    with redirect_stderr(sys.stderr if shown else StringIO()) as place, redirect_stdout(place):
        yield


def fetch(load: Callable[[], T]) -> T:
    """What a function loads that asks the hub of Hugging Face; where that cannot be reached, from its cache alone.

    Its own client would try for half a minute before it says so."""
    from huggingface_hub import constants

    with show_download(), patch.object(constants, "HF_HUB_OFFLINE", _is_offline()):
        return load()


def _is_offline() -> bool:
    """Whether the hub is not to be asked, or cannot be: there is no proxy, and its host's name leads nowhere."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies():
        return bool(constants.HF_HUB_OFFLINE)
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, None)
    except OSError:
        return True
    return False


def explain_failure(error: Exception) -> str:
    """Why something could not be fetched, in a few words. error: what a library has raised."""
    return "there is no connection to the hub" if _is_offline() else take_first_line(error)


def describe_cache() -> str:
    """Where the hub's files are kept on this machine, for messages."""
    from huggingface_hub import constants

    folder: Any = constants.HF_HUB_CACHE
    return f"the hub's cache {folder}"

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

    offline = constants.HF_HUB_OFFLINE or not _is_reachable(constants.ENDPOINT)
    with show_download(), patch.object(constants, "HF_HUB_OFFLINE", offline):
        return load()


def _is_reachable(address: str) -> bool:
    """Whether a host can be asked at all: by way of a proxy, or since its name leads somewhere."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlparse(address).hostname, None)
    except OSError:
        return False
    return True


def describe_cache() -> str:
    """Where the hub's files are kept on this machine, for messages."""
    from huggingface_hub import constants

    folder: Any = constants.HF_HUB_CACHE
    return f"the hub's cache {folder}"

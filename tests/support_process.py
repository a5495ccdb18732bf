"""`vizcnn` in a process of its own that has no torch to import: a child of one that waits with it."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_WAITING = """
import json, os, runpy, sys
import matplotlib.figure, sympy, torch.export  # which a first run of a network imports
import vizcnn.cli.main
from vizcnn.models._torchvision import import_models
import_models()
for line in sys.stdin:
    asked = json.loads(line)
    if not (child := os.fork()):
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        for stream, name in enumerate(asked["streams"]):
            os.dup2(os.open(name, os.O_RDWR), stream)
        sys.argv = ["vizcnn", *asked["arguments"]]
        runpy.run_module("vizcnn", run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_vizcnn(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m vizcnn ARGUMENTS`, with what it wrote to standard output and error.

    Its imports are done: what a cold start brings with it, such as their order, is for tests that start Python."""
    command, waiting = [str(one) for one in arguments], _start_waiting()
    assert waiting.stdin
    assert waiting.stdout
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        streams = [os.devnull, out.name, err.name]
        asked = {"arguments": command, "cwd": str(cwd or Path.cwd()), "environment": {**os.environ}, "streams": streams}
        waiting.stdin.write(f"{json.dumps(asked)}\n")
        waiting.stdin.flush()
        status = int(waiting.stdout.readline())
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


@cache
def _start_waiting() -> subprocess.Popen[str]:
    waiting = subprocess.Popen(
        [sys.executable, "-c", _WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(waiting.communicate)  # ends it
    return waiting


def hear_ctrl_c() -> None:
    """For `preexec_fn`: a program under test hears Ctrl-C, also where whoever started the tests ignores or blocks it,
    which programs inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

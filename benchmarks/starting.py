"""How long does a command take beyond what importing torch and matplotlib takes?

    python benchmarks/starting.py
    python benchmarks/starting.py "cam sample:grace_hopper -m resnet18@random" --rounds 9

Whole processes, one after the other in turn: an import of torch and matplotlib's figure, which whoever draws what a
network does cannot do without, and each command. Counted is the CPU time of all threads, user's and system's, so that
other work on the machine disturbs it little; said is the median over rounds of a command less its neighbouring import.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

COMMANDS = ("filters", "layers", "cam sample:grace_hopper", "occlusion sample:grace_hopper")
IMPORT = ("-c", "import torch, matplotlib.figure")

HEAD = "| command | CPU seconds beyond importing torch and matplotlib | least / most |\n|---|---|---|"


def measure(arguments: Sequence[str], folder: str, threads: int) -> float:
    """The CPU seconds of a process of Python with these arguments, run in a folder. Raises CalledProcessError."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every start would compile everything anew
    before = os.times()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure_in_turn(commands: Sequence[str], rounds: int, threads: int) -> tuple[list[float], dict[str, list[float]]]:
    """The seconds of the import, and of each command less the import before it, in each round.

    A first round, which compiles what Python has not compiled yet, counts for none."""
    imports: list[float] = []
    beyond: dict[str, list[float]] = {command: [] for command in commands}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            imports.append(measure(IMPORT, folder, threads))
            for command, times in beyond.items():
                times.append(measure(["-m", "vizcnn", *shlex.split(command)], folder, threads) - imports[-1])
    return imports[1:], {command: times[1:] for command, times in beyond.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=COMMANDS, help="of vizcnn, each as one word")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    imports, beyond = measure_in_turn(options.commands, options.rounds, options.threads)
    threads, rounds = options.threads, options.rounds
    print(f"The import: {statistics.median(imports):.2f} s. {threads} thread(s), {rounds} rounds\n\n{HEAD}")
    for command, times in beyond.items():
        print(f"| `vizcnn {command}` | {statistics.median(times):.2f} | {min(times):.2f} / {max(times):.2f} |")


if __name__ == "__main__":
    main()

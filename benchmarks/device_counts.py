"""What does a call cost a device, whatever its speed? Launches, copies and waits, counted on a pretend one.

    python benchmarks/device_counts.py

The pretend device of the tests counts operations on its tensors, numbers that are sent there, and numbers that the
program waits for, of a small network on images of 16 px. Each of these costs a GPU some microseconds, during which a
small network could have run. The first call, which checks the network, is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KINDS = ("operations", "copies", "waits")


def count(*parts: str) -> dict[str, dict[str, Any]]:
    """What the tests' script counts; in a process of its own, as the device stays there."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    script = str(ROOT / "tests" / "probing" / "work_on_device.py")
    done = subprocess.run(
        [sys.executable, script, *parts],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def format_tables(found: dict[str, dict[str, Any]]) -> list[str]:
    """The tables' lines: of calls and further images, then of further steps and batches."""
    lines = ["| probe | launches | copies | waits | launches, further image | copies | waits |", "|---" * 7 + "|"]
    for name, counts in found["count_calls"].items():
        cells = [f"{counts[kind][i]:g}" for i in (0, 1) for kind in KINDS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| further | launches | copies | waits |", "|---" * 4 + "|"]
    further = found["count_work"] | {f"maximize {name}, step": one for name, one in found["climb"].items()}
    for name, one in further.items():
        lines.append(f"| {name} | " + " | ".join(f"{one[kind]:.3g}" for kind in KINDS) + " |")
    return lines


def main() -> None:
    print("\n".join(format_tables(count("count_calls", "count_work", "climb"))))


if __name__ == "__main__":
    main()

"""Memory: how much of it is free where a network computes, and how much one run of it with gradients holds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

_LIMITS = (  # of a container, and what it uses: both versions of Linux's control groups
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def find_free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or of the machine's for the processor; None where nobody says."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # which torch keeps
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    return _find_free_of_machine() if device.type == "cpu" else None


def _find_free_of_machine() -> int | None:
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024)
    for most, used in _LIMITS:
        with suppress(OSError, ValueError):  # such as "max"
            found.append(max(0, int(Path(most).read_text()) - int(Path(used).read_text())))
    return min(found, default=None)


class SavedBytes:
    """While the context is open, `count` are the bytes that are held for a backward pass, each storage once, beside the
    network's own parameters."""

    def __init__(self, network: nn.Module) -> None:
        self._seen = {_identify(each) for each in network.parameters()}
        self._hooks = saved_tensors_hooks(self._see, lambda tensor: tensor)
        self.count = 0

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _see(self, tensor: Tensor) -> Tensor:
        key = _identify(tensor)
        if key not in self._seen:
            self._seen.add(key)
            self.count += tensor.untyped_storage().nbytes()
        return tensor


def _identify(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

"""The one place that imports torchvision.

A torchvision whose compiled operators do not match the installed torch (the usual case: a CPU build of torch beside the
registry's torchvision) dies while importing `torchvision._meta_registrations`, which describes operators that are not
there. Networks and weights need none of these operators, so that one module is replaced by an empty one, and only then.
Box operators such as nms stay unavailable, exactly as they were.
"""

from __future__ import annotations

import sys
import threading
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

_DESCRIPTIONS = "torchvision._meta_registrations"


_ONE = threading.Lock()


def models() -> Any:
    """The module torchvision.models, also where torchvision's own import fails for want of compiled operators."""
    with _ONE:  # another thread would find half of it in place
        return _imported()


@cache
def _imported() -> Any:
    try:
        return import_module("torchvision.models")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules[_DESCRIPTIONS] = ModuleType(_DESCRIPTIONS)
    return import_module("torchvision.models")

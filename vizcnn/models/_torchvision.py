"""torchvision, imported in this one place.

A torchvision whose compiled operators do not match the installed torch (mostly a CPU build of torch beside the usual
torchvision) fails to import: `torchvision._meta_registrations` describes operators that are missing. Networks and
weights need none of them, so in that case this one module is replaced by an empty one. Box operators such as nms stay
unavailable, as they were.
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


def import_models() -> Any:
    """The module torchvision.models, also where torchvision's own import fails for want of compiled operators."""
    with _ONE:  # another thread would find half of it in place
        return _import_models()


@cache
def _import_models() -> Any:
    try:
        return import_module("torchvision.models")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules[_DESCRIPTIONS] = ModuleType(_DESCRIPTIONS)
    return import_module("torchvision.models")

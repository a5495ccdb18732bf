"""Auditing: which classes of a data set are recognised by a shortcut, proven by pasting and removing it.

It knows models, tensors, targets and numbers, and no probe."""

from vizcnn.auditing.call import audit
from vizcnn.auditing.run import audit_images

__all__ = ["audit", "audit_images"]


def __dir__() -> list[str]:
    return [*__all__]

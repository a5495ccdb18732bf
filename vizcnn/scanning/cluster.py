"""A scan on many machines: Dask distributed hands out the shards, and hands out again what a lost worker had."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from torch import nn

from vizcnn.errors import ParameterError

J = TypeVar("J")
_RETRIES = 3  # for what a task raises; a worker that dies does not count as one
_PATIENCE = 10  # s to wait for a scheduler


def spread(
    client: Any, job: J, network: nn.Module, work: Callable[[J, int], bytes], parts: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    """The parts with what `work` makes of each, as the client's workers finish them.

    The job goes to every worker once. A part whose worker is lost is done by another."""
    from distributed import as_completed

    everywhere = client.scatter(_packed(job, network), broadcast=True)
    futures = {client.submit(_worked, work, everywhere, part, pure=False, retries=_RETRIES): part for part in parts}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
            future.release()
    finally:
        client.cancel([future for future in futures if not future.done()])


def _worked(work: Callable[[J, int], bytes], packed: bytes, part: int) -> bytes:
    """What a worker does. Each part has a network of its own, whose hooks see no other part's runs."""
    return work(pickle.loads(packed), part)


def _packed(job: Any, network: nn.Module) -> bytes:
    """The job as bytes. Classes from a file that was loaded as FILE.py:FACTORY are in them: workers cannot import them,
    and Dask's own way of sending things would only name them."""
    import cloudpickle

    names = {type(module).__module__ for module in network.modules()}
    own = [sys.modules[name] for name in names if name.startswith("vizcnn_file_")]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(job)
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


@contextmanager
def cluster(address: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the scheduler at an address, or of so many worker processes on this machine; None for neither.

    Raises ParameterError where Dask distributed is not installed, or nobody answers."""
    if not address and not workers:
        yield None
        return
    if address and workers:
        raise ParameterError("workers are started here or those of a scheduler are used, not both. Leave one out")
    try:
        import distributed
    except ImportError as error:
        raise ParameterError("a cluster needs Dask distributed: pip install 'vizcnn[cluster]'") from error
    with ExitStack() as open_things:
        try:
            place = address or open_things.enter_context(_local(workers or 1))
            client = open_things.enter_context(distributed.Client(place, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise ParameterError(f"no Dask scheduler answers at {address}: {error}") from error
        yield client


def _local(workers: int) -> Any:
    from distributed import LocalCluster

    anywhere = "127.0.0.1:0"  # on the usual port a second cluster would warn of the first
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=anywhere, silence_logs=logging.CRITICAL
    )

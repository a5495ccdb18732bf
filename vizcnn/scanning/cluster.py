"""Clusters: a scan on many machines. Dask distributed hands out the shards, and again those of a lost worker."""

from __future__ import annotations

import logging
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from torch import nn

from vizcnn.errors import ParameterError

J = TypeVar("J")
P = TypeVar("P")
_RETRIES = 3  # for what a task raises; a worker that dies does not count as one
_PATIENCE = 10  # s to wait for a scheduler


def send(client: Any, job: Any, network: nn.Module) -> Any:
    """Send a job to every worker of a client, for `distribute`. It stays there for as long as what is returned."""
    return client.scatter(_pickle_job(job, network), broadcast=True)


def distribute(
    client: Any, everywhere: Any, work: Callable[[J, P], bytes], parts: Sequence[P]
) -> Iterator[tuple[P, Callable[[], bytes]]]:
    """Each part with a function that gives what `work(job, part)` returns for it, in the order in which the client's
    workers finish; it raises what a part has failed with.

    everywhere: the job, as `send` has sent it. If a worker is lost, another one does its part."""
    from distributed import as_completed

    futures = {client.submit(_run_part, work, everywhere, part, pure=False, retries=_RETRIES): part for part in parts}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result
            future.release()
    finally:
        client.cancel([future for future in futures if not future.done()])


def _run_part(work: Callable[[J, P], bytes], packed: bytes, part: P) -> bytes:
    """What a worker runs for one part. Its network is unpickled for this part alone: hooks see no other's runs."""
    return work(pickle.loads(packed), part)


def _pickle_job(job: Any, network: nn.Module) -> bytes:
    """The pickled job, with the classes of files that were loaded as FILE.py:FACTORY.

    Workers cannot import such files, and Dask's own serialization would send only the names of their classes."""
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
def open_cluster(address: str | None, workers: int | None) -> Iterator[Any]:
    """While the context is open: a client of the scheduler at an address, or of worker processes on this machine.

    workers: how many to start. Without an address and workers there is no client but None.
    Raises ParameterError where Dask distributed is not installed, or no scheduler answers."""
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
            place = address or open_things.enter_context(_start_workers(workers or 1))
            client = open_things.enter_context(distributed.Client(place, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise ParameterError(f"no Dask scheduler answers at {address}: {error}") from error
        if workers:
            client.run(_ignore_ctrl_c)
        yield client


def _ignore_ctrl_c() -> None:
    """Leave Ctrl-C, of which a terminal tells all processes, to the one that has started this worker."""
    with suppress(ValueError):  # no worker of its own process
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start_workers(workers: int) -> Any:
    """A Dask cluster of so many processes on this machine."""
    from distributed import LocalCluster

    anywhere = "127.0.0.1:0"  # on the usual port a second cluster would warn of the first
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=anywhere, silence_logs=logging.CRITICAL
    )

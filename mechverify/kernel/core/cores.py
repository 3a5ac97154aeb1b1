"""Independent parts of a job on all cores: results, errors and work are those of one part after another.

numpy lets other threads run while it computes, so that threads do.

Lemma C16 (docs/soundness/core.md).
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import TypeVar

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.errors import Stopped

OFTEN = 0.05  # seconds between two calls of `watch`
T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """As many as this process may run on; OMP_NUM_THREADS, which numpy's BLAS obeys as well, allows fewer."""
    affinity = getattr(os, "sched_getaffinity", None)
    own = len(affinity(0)) if affinity else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(own, int(allowed)) if allowed.isdecimal() else own)


@contextmanager
def alone() -> Iterator[None]:
    """Meanwhile a matrix product takes one core: OpenBLAS's own threads wait for the next one in a loop, which takes
    from those here. (C12: the bits are the same.)"""
    blas = _openblas()
    if blas is None:
        yield
        return
    before, change = blas[0](), blas[1]
    change(1)
    try:
        yield
    finally:
        change(before)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """What says how many threads a product takes, and changes it; None where numpy's wheel brings another library."""
    for file in Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"):
        library, name = ctypes.CDLL(str(file)), "scipy_openblas_{}_num_threads64_"
        if hasattr(library, name.format("get")) and hasattr(
            library, name.format("set")
        ):
            return library[name.format("get")], library[name.format("set")]
    return None


def mapped(
    ar: Arithmetic, work: Callable[[Arithmetic, T], R], items: Sequence[T]
) -> list[R]:
    """work(arithmetic, item) of each item, in order; `arithmetic` is one like `ar`, of the item's own.
    Precondition: `work` changes nothing that another item's reads.
    Postcondition: the first item that raises, raises; `ar` has then counted the work of the items up to it, and no
    other. The limit is asked after each item, and within it. Complexity: theirs; cores() items at a time."""
    many = min(cores(), len(items))
    if many <= 1:
        with alone():  # blocks of products are small: a second core waits for the next
            return [work(ar, item) for item in items]
    stop, settings, before = Event(), np.geterr(), ar.work

    def watched(_: int, __: float) -> None:
        if stop.is_set():
            raise Stopped

    def fresh() -> Arithmetic:
        own = type(ar)(ar.limit, watched)
        own.work = before  # so that no item does more alone than is left
        own.look()
        return own

    def done(own: Arithmetic, item: T) -> R:
        watched(0, 0.0)
        with np.errstate(**settings):  # they are a thread's own
            return work(own, item)

    owned, results = [fresh() for _ in items], []
    with alone(), ThreadPoolExecutor(many) as pool:
        futures = [pool.submit(done, *pair) for pair in zip(owned, items, strict=True)]
        try:
            for own, future in zip(owned, futures, strict=True):
                while not wait([future], OFTEN).done:
                    if ar.watch is not None:
                        under_way = sum(o.work - before for o in owned[len(results) :])
                        ar.watch(ar.work + under_way, ar.limit)
                ar.ops += own.ops
                ar.work += own.work - before
                results.append(future.result())
                ar.spend(0, 0)
        finally:
            stop.set()
    return results

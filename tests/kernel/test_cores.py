"""Lemma C16: what is done on several cores has the results, the errors and the work of one core."""

import re
import threading
import time

import numpy as np
import pytest

from mechverify.kernel.core import cores, prefixes
from mechverify.kernel.core.double import Double
from mechverify.kernel.core.errors import OverLimit, Rejected, Stopped
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.meter import GLANCE
from mechverify.kernel.core.prefixes import Prefixes, shared
from mechverify.kernel.core.semantics import Real
from tests.kernel.test_prefixes import Built, every, two_layers
from tests.rounds import few

MANY = [1, 2, 3, 8]
ITEMS = [*range(12)]


@pytest.fixture(params=MANY, autouse=True)
def many(request, monkeypatch) -> int:
    monkeypatch.setattr(cores, "cores", lambda: request.param)
    return request.param


def spends(ar, item: int) -> int:
    ar.spend(item, 1)
    return item


def counted(ar) -> tuple[int, int]:
    return ar.ops, ar.work


def alone(items: list[int]) -> tuple[int, int]:
    ar = Float64()
    for item in items:
        spends(ar, item)
    return counted(ar)


def test_results_are_in_order_and_work_is_counted(many):
    ar = Float64()
    spends(ar, 5)
    assert cores.mapped(ar, spends, ITEMS) == ITEMS
    assert counted(ar) == alone([5, *ITEMS])


def test_several_are_done_at_the_same_time(many):
    together = threading.Barrier(many, timeout=60)

    def meets(ar, item: int) -> None:
        together.wait()

    cores.mapped(Float64(), meets, [*range(many)])


def test_the_first_item_that_raises_raises(many):
    """Whatever comes later has raised before it, and counts no work."""
    later = threading.Event()

    def work(ar, item: int) -> None:
        spends(ar, item)
        if item == 3:
            assert many == 1 or later.wait(60)
            raise Rejected("three")
        if item > 3:
            later.set()
            raise Rejected("another")

    ar = Float64()
    with pytest.raises(Rejected, match="three"):
        cores.mapped(ar, work, ITEMS)
    assert counted(ar) == alone([0, 1, 2, 3])


def test_the_limit_is_that_of_all_items_together(many):
    need = alone([*ITEMS, *ITEMS])[1]
    for limit, enough in ((need, True), (need - 1, False)):
        ar = Float64(limit)
        cores.mapped(ar, spends, ITEMS)
        if enough:
            assert cores.mapped(ar, spends, ITEMS) == ITEMS
        else:
            with pytest.raises(OverLimit, match=re.escape(f"{limit:.3g}")):
                cores.mapped(ar, spends, ITEMS)


def test_an_item_may_do_no_more_than_is_left(many):
    ar, done = Float64(10 * GLANCE), []
    ar.spend(0, 0)
    ar.work = int(9 * GLANCE)

    def work(own, item: int) -> None:
        for _ in range(10):
            own.step(int(GLANCE), 0, 1)
            done.append(own.work)

    with pytest.raises(OverLimit):
        cores.mapped(ar, work, ITEMS)
    assert max(done) <= 10 * GLANCE


def test_whoever_watches_ends_it(many):
    """While items are under way; of these, each ends at its next look."""
    seen, whole = [], []

    def watch(work: int, _: float) -> None:
        seen.append(work)
        if work > 2 * GLANCE:
            raise Stopped

    def work(ar, item: int) -> None:
        for _ in range(500):
            ar.step(int(GLANCE), 1, 1)
            time.sleep(0.01)
        whole.append(item)

    with pytest.raises(Stopped):
        cores.mapped(Float64(watch=watch), work, ITEMS)
    assert max(seen) > 2 * GLANCE and not whole


def test_what_numpy_warns_of_is_said_once_for_all():
    def overflows(ar, item: int) -> float:
        return float(np.exp(np.full(1, 1e3))[0])

    with np.errstate(all="ignore"):
        assert cores.mapped(Float64(), overflows, ITEMS) == [np.inf] * len(ITEMS)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        cores.mapped(Float64(), overflows, ITEMS)


def test_products_take_one_core_meanwhile(many):
    blas = cores._openblas()
    if blas is None:
        pytest.skip("numpy has another library")
    before = blas[0]()
    try:
        blas[1](2)
        seen = cores.mapped(Float64(), lambda ar, item: blas[0](), ITEMS)
        assert set(seen) == {1}
        with pytest.raises(Rejected):
            cores.mapped(Float64(), lambda ar, item: _reject(), ITEMS)
        assert blas[0]() == 2
    finally:
        blas[1](before)


def _reject() -> None:
    raise Rejected("no")


@pytest.mark.parametrize("allowed, most", [("1", 1), ("0", 1), ("", None), ("two", None), ("1000000", None)])
def test_how_many(monkeypatch, allowed, most):
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    found = cores.cores()
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert found == (most or cores.cores()) >= 1


def run(arithmetic: type[Float64]) -> tuple:
    g = Built()
    root = g.graph.select(two_layers(g), 0, 3)
    ar, found = arithmetic(), []
    made = Prefixes(g.graph, [root])
    for inputs in np.array_split(every()[::3], 2):
        found += shared(made, g.weights, Real(ar), inputs, lambda values: values[root])
    return [[a.tobytes() for a in ball[:2]] for ball in found], counted(ar)


@pytest.mark.parametrize("arithmetic", few([Float64, Double], 1))
def test_values_have_the_same_bits_on_any_number_of_cores(monkeypatch, many, arithmetic):
    monkeypatch.setattr(prefixes, "PIECE", 2**9)
    here = run(arithmetic)
    monkeypatch.setattr(cores, "cores", lambda: 1)
    assert len(here[0]) > 4
    assert here == run(arithmetic)

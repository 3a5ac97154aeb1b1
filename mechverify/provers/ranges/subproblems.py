"""Branching in obligations: a few open cells each, bounded until they are proved, or a quota is spent.

The search begins alone, until enough cells are open to divide them. What a subproblem leaves open is divided again, in
the order of the queue, whoever answers: the tree is the same for any number of workers.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.core.errors import Stopped
from mechverify.provers.base import Budget
from mechverify.provers.domains import read, told
from mechverify.provers.ranges.branch import DEPTH, Branching, Cell
from mechverify.provers.ranges.known import Found
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.remaining import Remaining
from mechverify.relax.threads import one_thread


class Sizes(NamedTuple):
    """Open cells to begin with, at most; and of a subproblem; how many it bounds before it gives back what is open: a
    second's work or so; and how few of them are given back before that, to be bounded together with others'."""

    first: int
    cells: int
    quota: int
    few: int


CHEAP, DEAR = (
    Sizes(1024, 256, 4096, 64),
    Sizes(32, 2, 64, 0),
)  # DEAR: with optimised lines


def divided(work: Branching, seen: Callable[[], Found | None]) -> Found | None:
    """Branching.search, in obligations."""
    problem, budget, sizes = work.problem, work.budget, DEAR if work.deep else CHEAP
    assert budget.desk is not None
    with one_thread():  # the bits of torch's sums depend on how many there are
        broken = work.search(seen, lambda: len(work.open) >= sizes.first)
        if broken is not None:
            return broken
        queue: deque[tuple[list[Cell], Callable[[], Any]]] = deque()
        left, done = Remaining.of(budget.desk), 0

        def divide(cells: list[Cell], few: int) -> None:
            asked = [sizes.quota, few, [_told(cell) for cell in cells]]
            queue.append((cells, budget.ask(bounded, problem, asked)))

        pool = _taken(work)  # open, and in no subproblem
        while pool or queue:
            before = len(queue)
            while len(pool) >= sizes.cells:
                divide(pool[: sizes.cells], sizes.few)
                del pool[: sizes.cells]
            if pool and not queue:
                divide(pool, 0)
                pool = []
            left.answered(len(queue) - before)
            cells, promise = queue.popleft()
            try:
                answer = promise()
            except Stopped:
                pool += [cell for some, _ in [(cells, None), *queue] for cell in some]
                work.open += [(0.0, 0, cell) for cell in pool]
                return None
            if answer["broken"] is not None:
                return Found(answer["broken"], problem.claim.everything, True, [])
            pool += _merged(work, cells, answer)
            done += 1
            said = f"{work.total:,} cells, {done:,} parts done, {len(queue):,} open"
            budget.progress(said + left.words(len(queue)), work.proved)
    return None


def _taken(work: Branching) -> list[Cell]:
    """The open cells, in the order in which they were made; those that can be cut no more stay."""
    cells = [cell for _, _, cell in sorted(work.open, key=lambda row: row[1])]
    work.open = []
    for cell in cells:
        if cell.share < 2.0**-DEPTH:
            work.add(cell)
    return [cell for cell in cells if cell.share >= 2.0**-DEPTH]


def _merged(work: Branching, cells: list[Cell], answer: dict) -> list[Cell]:
    """What is still open, once the answer's trees stand where their cells stood."""
    for cell, tree in zip(cells, answer["trees"], strict=True):
        if tree:
            cell.node.clear()
            cell.node.update(tree)
    for name in ("proved", "total", "leaves"):
        setattr(work, name, getattr(work, name) + answer[name])
    work.reach(*map(np.array, answer["reached"]))
    work.stuck += [_placed(cells, row) for row in answer["stuck"]]
    work.reserve()
    rest = [_placed(cells, row) for row in answer["open"]]
    for cell in rest:
        if cell.share < 2.0**-DEPTH:
            work.add(cell)
    return [cell for cell in rest if cell.share >= 2.0**-DEPTH]


def bounded(problem: RangeProblem, asked: list, budget: Budget) -> dict[str, Any]:
    """An obligation: best first, until all cells are proved, a threshold is broken, or the quota is spent. Gives a tree
    for each cell (empty where it wasn't cut), and what is open in them."""
    quota, few, rows = asked
    with one_thread(), np.errstate(all="ignore"):
        work, trees = Branching(problem, budget), [{} for _ in rows]
        for tree, row in zip(trees, rows, strict=True):
            work.add(_read(tree, row))
        broken = work.search(enough=lambda: _enough(work, quota, few))
    if broken is None and budget.spent():
        raise Stopped
    place = {
        id(node): at for i, tree in enumerate(trees) for node, at in _walked(tree, i)
    }
    order = sorted(work.open, key=lambda row: row[1])
    open_ = [[place[id(cell.node)], _told(cell)] for _, _, cell in order]
    stuck = [[place[id(cell.node)], _told(cell)] for cell in work.stuck]
    return {
        "broken": None if broken is None else broken.proof,
        "trees": trees, "open": open_, "stuck": stuck,
        "reached": [end.tolist() for end in work.reached],
        "proved": work.proved, "total": work.total, "leaves": work.leaves,
    }  # fmt: skip


def _enough(work: Branching, quota: int, few: int) -> bool:
    return work.total >= quota or (work.total > 0 and len(work.open) < few)


def _walked(tree: Proof, number: int) -> Iterator[tuple[Proof, list]]:
    """Its nodes, and where each stands: the tree's number, and the way down."""
    todo = [(tree, "")]
    while todo:
        node, way = todo.pop()
        yield node, [number, way]
        if node.get("rule") == "split":
            todo += [(node["inside"], f"{way}i"), (node["outside"], f"{way}o")]


def _placed(cells: list[Cell], row: list) -> Cell:
    (number, way), cell = row
    node = cells[number].node
    for step in way:
        node = node["inside" if step == "i" else "outside"]
    return _read(node, cell)


def _told(cell: Cell) -> list:
    """As JSON says it, to the bit."""
    return [told(cell.part), cell.share, cell.low.tolist(), cell.high.tolist()]


def _read(node: Proof, row: list) -> Cell:
    part, share, low, high = row
    return Cell(node, read(part), share, np.array(low, float), np.array(high, float))

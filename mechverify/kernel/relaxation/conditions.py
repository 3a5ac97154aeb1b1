"""The condition of a claim that counts, taken apart into atoms: numbers that are at least zero or not.

What is known of shares on which atoms are right, or wrong, says it of the condition.

Lemma M4 (docs/soundness/measure.md).
"""

from dataclasses import replace
from math import prod

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import ROOM, reserve
from mechverify.kernel.relaxation.cases import Cases, exclusive

ATOMS = 2**7  # of a condition; what has more is one
MANY = 2**12  # entries that a condition is taken apart to, on the way to its atoms
MOST = 2**10  # steps of a condition; what has more is one

Entry = tuple[int, int]  # of a node, in the order of its flattened values


class Condition:
    """A claim's condition as maxima and minima of `atoms`: rows of `steps` are an atom's number, or (whether it is the
    maximum, two earlier rows); the last is the condition. `rows` are the atoms' nodes; `job` is about them, in one
    vector."""

    def __init__(self, job: Job):
        graph = job.further()
        self.steps: list[int | tuple[bool, int, int]] = []
        atoms = self._taken_apart(graph, _bare(graph, (job.claim.output, 0)))
        self.rows = [graph.add("view", n, attr=((1,), i, (0,))) for n, i in atoms]
        output = graph.add("concat", *self.rows, attr=0)
        self.job = job.about(replace(job.claim, graph=graph, output=output))

    def _taken_apart(self, graph: Graph, root: Entry) -> list[Entry]:
        atoms, place, todo = [], {}, [root]
        while todo:
            entry = todo[-1]
            if entry in place:
                todo.pop()
                continue
            found = _extremum(graph, entry)
            missing = [e for e in found[1] if e not in place] if found else []
            if (
                len(atoms) > ATOMS
                or len(place) + len(missing) > MANY
                or len(self.steps) > MOST
            ):
                self.steps[:] = [0]
                return [root]
            graph.meter.step(1 + len(missing), 1)
            if missing:
                todo += missing
                continue
            todo.pop()
            if found is None:
                place[entry] = len(self.steps)
                self.steps.append(len(atoms))
                atoms.append(entry)
                continue
            largest, (first, *others) = found
            place[entry] = place[first]
            for other in others:
                self.steps.append((largest, place[entry], place[other]))
                place[entry] = len(self.steps) - 1
        return atoms

    def exclusive(self, pairs: np.ndarray) -> np.ndarray:
        """Booleans [2, steps, nodes]: nothing is shown right, or wrong, by both of a step's operands. `pairs`: by two
        atoms [2, nodes, atoms, atoms]. What is shown right by a maximum, or wrong by a minimum, either operand shows;
        otherwise both do."""
        n, nodes = len(self.steps), pairs.shape[1]
        reserve(2, n, n, nodes)
        known, found = np.zeros((2, n, n, nodes), bool), np.zeros((2, n, nodes), bool)
        at = np.array([i for i, step in enumerate(self.steps) if isinstance(step, int)])
        atoms = np.array([self.steps[i] for i in at])
        known[:, at[:, None], at] = np.moveaxis(pairs, 1, -1)[:, atoms[:, None], atoms]
        known[:, at, at] = False
        seen = np.zeros(n, bool)  # steps that the following ones are compared with
        seen[at] = True
        for i, step in enumerate(self.steps):
            if isinstance(step, int):
                continue
            earlier = np.flatnonzero(seen)
            for side in (0, 1):
                first, second = known[side, step[1]], known[side, step[2]]
                found[side, i] = first[step[2]]
                now = first & second if step[0] == (side == 0) else first | second
                known[side, i, earlier] = known[side, earlier, i] = now[earlier]
            seen[i] = True
        return found

    def told(
        self, ar: Arithmetic, share: np.ndarray, exclusive: np.ndarray
    ) -> np.ndarray:
        """Lower bounds of the shares on which it is right, and wrong, [2, cubes], from those of its atoms, [2, cubes,
        atoms]; `exclusive` [2, steps, cubes]."""
        rows: list[np.ndarray] = []
        for i, step in enumerate(self.steps):
            if isinstance(step, int):
                rows.append(share[:, :, step])
                continue
            turn = -1 if step[0] else 1  # a maximum is wrong where both are
            a, b = (rows[k][::turn] for k in step[1:])
            together = np.where(exclusive[::turn][1, i], ar.down(a[1] + b[1]), 0.0)
            either = np.minimum(np.maximum(together, np.maximum(a[1], b[1])), 1.0)
            rows.append(np.stack([both(ar, a[0], b[0]), either])[::turn])
        return rows[-1]


def excluded(job: Job, told: Cases, parts: list[Domain]) -> np.ndarray:
    """Booleans [2, steps, nodes]: `Condition.exclusive`, of some nodes after others. Complexity: steps squared, for
    each node, and atoms squared, for each coordinate."""
    ar, condition = job.ar, job.once(Condition)
    n, nodes, m = len(condition.steps), len(told.part), told.sure.shape[1] // 2
    reserve(n, nodes // 4)  # a byte each
    found = np.zeros((2, n, nodes), bool)
    if n == 1:
        return found
    step = max(1, ROOM // (2 * max(n, m) ** 2))
    for start in range(0, nodes, step):
        some = slice(start, start + step)
        pairs = exclusive(ar, told.some(some), parts)
        if pairs.any():
            ar.step(2 * n * n * pairs.shape[1], 2 * n, 1)
            found[:, :, some] = condition.exclusive(pairs)
    return found


def both(ar: Arithmetic, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Lower bounds of the share that two sets have in common, from those of each."""
    shared = np.maximum(ar.down(a - ar.up(1 - b)), 0.0)
    return np.where(a == 1, b, np.where(b == 1, a, shared))


def _bare(graph: Graph, entry: Entry) -> Entry:
    """The entry of another node that one shows."""
    n, i = entry
    while True:
        node = graph.nodes[n]
        graph.meter.step(1, 1)
        if node.op == "view":
            shape, offset, strides = node.attr
            places = np.unravel_index(i, shape) if shape else ()
            i = offset + sum(int(p) * s for p, s in zip(places, strides, strict=True))
        elif node.op != "concat" or len(node.args) != 1:
            return n, i
        (n,) = node.args


def _extremum(graph: Graph, entry: Entry) -> tuple[bool, list[Entry]] | None:
    """Of a largest or smallest entry, of y + relu(x - y), the maximum, and of x - relu(x - y), the minimum: whether it
    is the maximum, and of what."""
    nodes, (n, i) = graph.nodes, entry
    op, operands = nodes[n].op, nodes[n].args
    if op == "extremum":
        of, size = operands[0], nodes[operands[0]].shape[-1]
        if not 0 < size <= ATOMS:
            return None
        return nodes[n].attr == "max", [
            _bare(graph, (of, i * size + k)) for k in range(size)
        ]
    for own, rest in (
        (operands, operands[::-1])
        if op == "add"
        else (operands,)
        if op == "sub"
        else ()
    ):
        if nodes[rest].op == "relu" and nodes[nodes[rest].args[0]].op == "sub":
            x, y = nodes[nodes[rest].args[0]].args
            shapes = {nodes[m].shape for m in (n, x, y)}
            if own == (y if op == "add" else x) and (
                len(shapes) == 1 or {prod(shape) for shape in shapes} == {1}
            ):
                return op == "add", [_bare(graph, (x, i)), _bare(graph, (y, i))]
    return None

"""A condition of a claim that counts, taken apart into numbers that are at least zero or not: how much of a set is right,
from how much of it each of these is.

Lemmas M4, M10 (docs/soundness/measure.md).
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import permutations, product
from math import prod

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.graph import Graph

ATOMS = 2**7  # of a condition; what has more is one
TOGETHER = 3  # groups of atoms, at most, of which all signs are looked at
DEPTH = 4  # sums of sums whose terms are compared
Apart = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Condition:
    """A claim's condition as maxima and minima of `atoms`: rows of `steps` are an atom's number, or (whether it is the
    maximum, two earlier rows); the last is the condition. `rows` are the atoms' nodes; `job` is about them, in one
    vector."""

    def __init__(self, job: Job):
        graph = job.further()
        self.steps: list[int | tuple[bool, int, int]] = []
        atoms = self._taken_apart(graph, _bare(graph, job.claim.output))
        self.rows = [graph.add("view", n, attr=((1,), 0, (0,))) for n in atoms]
        output = graph.add("concat", *self.rows, attr=0)
        self.job = job.about(replace(job.claim, graph=graph, output=output))
        self.group, self.turned = _grouped(graph, atoms)

    def _taken_apart(self, graph: Graph, root: int) -> list[int]:
        atoms, place, todo = [], {}, [root]
        while todo:
            n = todo[-1]
            found = _extremum(graph, n)
            if missing := [m for m in found[1:] if m not in place] if found else []:
                todo += missing
                continue
            todo.pop()
            if n in place:
                continue
            place[n] = len(self.steps)
            if found is not None:
                self.steps.append((found[0], place[found[1]], place[found[2]]))
                continue
            self.steps.append(len(atoms))
            atoms.append(n)
        if len(atoms) > ATOMS:
            self.steps[:], atoms = [0], [root]
        return atoms

    def shares(self, ar: Arithmetic, share: np.ndarray, apart: Apart) -> np.ndarray:
        """Lower bounds [2, sets] of the shares on which it is right, and wrong, from those of its atoms, [2, sets,
        atoms]. `apart(sets, atoms)` tells of which no point is among both. Complexity: that of `told`, 3^TOGETHER times
        at most."""
        found, open_ = self.told(ar, share), (share != 1).all(0)
        groups = np.zeros((len(open_), 1 + self.group.max()), bool)
        np.logical_or.at(groups, (slice(None), self.group), open_)
        number = groups.sum(1)
        for k in range(1, TOGETHER + 1):
            rows = np.flatnonzero(number == k)
            if len(rows):
                which = np.nonzero(groups[rows])[1].reshape(-1, k)
                of_signs = self._of_signs(
                    ar,
                    share[:, rows],
                    open_[rows],
                    which,
                    lambda *at, rows=rows: apart(rows[at[0]], at[1]),
                )
                found[:, rows] = np.maximum(found[:, rows], of_signs)
        return found

    def _of_signs(
        self,
        ar: Arithmetic,
        share: np.ndarray,
        open_: np.ndarray,
        which: np.ndarray,
        apart: Apart,
    ) -> np.ndarray:
        """Of sets in which the same number of groups is open, `which` [sets, groups]: the signs of each group's first
        open atom are told apart, one group after another, in every order."""
        n, k = which.shape
        ar.spend(3**k * n * (len(self.steps) + open_.shape[1]))
        own = open_[:, None] & (self.group == which[..., None])  # [sets, groups, atoms]
        first, sets = own.argmax(2), np.arange(n)
        turned = self.turned ^ self.turned[first][..., None]
        right = np.stack(
            [
                self._right(share[0] == 1, own, turned, signs)
                for signs in product((1, -1, 0), repeat=k)
            ]
        )
        right = right.reshape(*(3,) * k, n)
        known, best = np.stack([right, ~right]).astype(float), np.zeros((2, n))
        ways = [share[:, sets, first[:, i]] for i in range(k)]
        disjoint = [apart(sets, first[:, i]) for i in range(k)]
        for order in permutations(range(k)):
            told = known.transpose(0, *(1 + i for i in order), k + 1)
            for i in reversed(order):
                plus, minus, zero = (told[..., j, :] for j in range(3))
                either = both(ar, both(ar, plus, minus), zero)
                told = of_cases(ar, ways[i], plus, minus, either, disjoint[i])
            best = np.maximum(best, told)
        return best

    def _right(
        self,
        right: np.ndarray,
        own: np.ndarray,
        turned: np.ndarray,
        signs: tuple[int, ...],
    ) -> np.ndarray:
        """Booleans [sets]: whether the condition is, where these are the signs of the groups' first atoms, and so are
        the others' but where `turned` [sets, groups, atoms]."""
        for i, sign in enumerate(signs):
            here = np.where(turned[:, i], -sign, sign)
            right = np.where(
                own[:, i], here > 0 if self.job.claim.strict else here >= 0, right
            )
        rows: list[np.ndarray] = []
        for step in self.steps:
            rows.append(
                right[:, step]
                if isinstance(step, int)
                else (np.logical_or if step[0] else np.logical_and)(
                    rows[step[1]], rows[step[2]]
                )
            )
        return rows[-1]

    def told(self, ar: Arithmetic, share: np.ndarray) -> np.ndarray:
        """Lower bounds of the shares on which it is right, and wrong, [2, cubes], from those of its atoms, [2, cubes,
        atoms]."""
        rows: list[np.ndarray] = []
        for step in self.steps:
            if isinstance(step, int):
                rows.append(share[:, :, step])
                continue
            a, b = (
                rows[i][:: -1 if step[0] else 1] for i in step[1:]
            )  # a maximum is wrong where both are
            row = np.stack([both(ar, a[0], b[0]), np.maximum(a[1], b[1])])
            rows.append(row[:: -1 if step[0] else 1])
        return rows[-1]


def both(ar: Arithmetic, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Lower bounds of the share that two sets have in common, from those of each."""
    shared = np.maximum(ar.down(a - ar.up(1 - b)), 0.0)
    return np.where(a == 1, b, np.where(b == 1, a, shared))


def of_cases(
    ar: Arithmetic,
    ways: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    either: np.ndarray,
    apart: np.ndarray,
) -> np.ndarray:
    """Lower bounds of shares [2, .., sets] from those of two cases, of what is in both and of what is right in either,
    and from the shares [2, sets] of the sets that are in the one case, and in the other; `apart`: no point is in both
    of these."""
    first, second = both(ar, ways[0], inside), both(ar, ways[1], outside)
    split = np.where(apart, ar.down(first + second), np.maximum(first, second))
    rest = np.clip(np.maximum(split, either), 0.0, 1.0)
    return np.where(ways[0] == 1, inside, np.where(ways[1] == 1, outside, rest))


def _bare(graph: Graph, n: int) -> int:
    """The node whose one number a node shows in another shape."""
    while (
        graph.nodes[n].op in ("view", "concat")
        and prod(graph.nodes[graph.nodes[n].args[0]].shape) == 1
    ):
        if len(graph.nodes[n].args) > 1 or prod(graph.nodes[n].shape) != 1:
            break
        (n,) = graph.nodes[n].args
    return n


def _extremum(graph: Graph, n: int) -> tuple[bool, int, int] | None:
    """Of y + relu(x - y), the maximum, and of x - relu(x - y), the minimum: whether it is the maximum, and both."""
    nodes = graph.nodes
    op, operands = nodes[n].op, nodes[n].args
    for own, rest in (
        (operands, operands[::-1])
        if op == "add"
        else (operands,)
        if op == "sub"
        else ()
    ):
        if nodes[rest].op == "relu" and nodes[nodes[rest].args[0]].op == "sub":
            x, y = nodes[nodes[rest].args[0]].args
            if own == (y if op == "add" else x) and all(
                prod(nodes[m].shape) == 1 for m in (n, x, y)
            ):
                return op == "add", _bare(graph, x), _bare(graph, y)
    return None


def _grouped(graph: Graph, atoms: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each atom the number of its group, whose atoms are multiples of one another, and whether it is a negative one of
    the group's first."""
    known, group, turned = dict[tuple, tuple[int, bool]](), [], []
    for n in atoms:
        terms = dict[int, Fraction]()
        _add_terms(graph, n, Fraction(1), terms, DEPTH)
        rest = sorted((m, k) for m, k in terms.items() if k)
        scale = rest[0][1] if rest else Fraction(1)
        name = tuple((m, k / scale) for m, k in rest) or (n,)
        number, negative = known.setdefault(name, (len(known), scale < 0))
        group.append(number)
        turned.append(negative != (scale < 0))
    return np.array(group), np.array(turned)


def _add_terms(
    graph: Graph, n: int, factor: Fraction, terms: dict[int, Fraction], depth: int
) -> None:
    """Of a single number as a sum of multiples of others."""
    n = _bare(graph, n)
    op, args = graph.nodes[n].op, graph.nodes[n].args
    scalars = [graph.nodes[m] for m in args if graph.nodes[m].op == "constant"]
    if depth and op in ("add", "sub"):
        for m, sign in zip(args, (1, 1 if op == "add" else -1), strict=True):
            _add_terms(graph, m, sign * factor, terms, depth - 1)
    elif depth and op == "mul" and len(scalars) == 1:
        (m,) = (m for m in args if graph.nodes[m].op != "constant")
        _add_terms(graph, m, factor * Fraction(scalars[0].attr[1][0]), terms, depth - 1)
    else:
        terms[n] = terms.get(n, Fraction(0)) + factor

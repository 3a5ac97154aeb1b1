"""Hostile graphs: normalisations that are right, or almost, and any operations at the ends of float64; and their judge.

A normalisation's parts are drawn one by one: what is divided, of what the squares are taken, along which axes and with
which factors they are added, what is added to them, how the scale is broadcast. So most of them are no norms, and the
kernel has to tell. The judge evaluates every node in python-flint's balls.
"""

from typing import Any, NamedTuple

import numpy as np
from flint import arb

from mechverify.kernel import Rejected
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from tests.soundness import networks
from tests.soundness.networks import Maker, Network, evaluate, hexadecimal
from tests.soundness.test_linear import Any as AnyLines
from tests.soundness.test_linear import inputs_of, parts

HUGE = float(np.finfo(float).max)
SIZES = [0.0, 5e-324, 1e-320, 1e-300, 1e-160, 1e-20, 1e-3, 1.0, 3.0, 1e3, 1e20, 1e160, 1e300, 1e308, HUGE]
BITS = 2_200  # tells numbers at both ends of float64 apart


class Normaliser(Maker):
    """Rows of one normalisation; `shape` is that of the matrix that is divided."""

    def __init__(self, rng: np.random.Generator):
        super().__init__(rng, kind=0)
        self.rows, self.shapes, self.inputs, self.real = [], [], [], []

    def _input(self, shape: tuple[int, ...]) -> None:
        rng = self.rng
        size = self._pick([1.0, 10.0, 10.0, 1e4, *SIZES])
        low, high = np.full(shape, -size), np.full(shape, size)
        match int(rng.integers(5)):
            case 0:
                low = np.zeros(shape)
            case 1:  # some entries are points
                low = np.where(rng.random(shape) < 0.5, high, low)
            case 2:
                low = np.where(rng.random(shape) < 0.5, high / 2, low)
        self._add("input", [], [len(self.inputs), list(shape)], shape)
        self.inputs.append((low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def number(self, numbers: Any) -> int:
        numbers = np.asarray(numbers, float)
        return self._add("constant", [], [list(numbers.shape), hexadecimal(numbers)], numbers.shape, False)

    def two(self, op: str, x: int, y: int) -> int:
        return self._add(op, [x, y], None, np.broadcast_shapes(self.shapes[x], self.shapes[y]))

    def one(self, op: str, x: int, attr: Any = None) -> int:
        return self._add(op, [x], attr, self.shapes[x])

    def view(self, x: int, shape: tuple, offset: int, steps: list[int]) -> int:
        return self._add("view", [x], [list(shape), offset, steps], shape)

    def matrix(self) -> int:
        """Of the input: it, or what is linear in it."""
        self._input(tuple(int(v) for v in self.rng.choice([1, 2, 3, 3, 4], 2)))
        return self.mixed(len(self.rows) - 1)

    def mixed(self, x: int) -> int:
        rng, (rows, width) = self.rng, self.shapes[x]
        match int(rng.integers(8)):
            case 0:  # times numbers
                return self.two(
                    "mul", x, self.number(rng.choice([0.0, 1.0, -1.0, 1 / 3, 2.0**40, 1e-200], (rows, width)))
                )
            case 1:  # times a matrix
                other = self.number(rng.integers(-2, 3, (width, width)) * self._pick([1.0, 0.1, 2.0**26 + 1]))
                return self._add("einsum", [x, other], "ab,bc->ac", (rows, width))
            case 2:  # read in another order, or again and again
                return self.view(x, (rows, width), 0, [width, 0] if self.chance(0.5) else [0, 1])
            case 3:
                return self.two("sub", x, self.view(x, (rows, width), rows * width - 1, [-width, -1]))
            case 4:
                return self.one(self._pick(["tanh", "exp", "relu", "abs", "sin"]), x)
        return x

    def mean(self, x: int, axis: int) -> int:
        """Along an axis, with it (size 1) or without."""
        shape = self.shapes[x]
        n = shape[axis]
        share = np.full(n, self._pick([1 / n, 1 / n, 1 / n, 0.25, 0.5, 1.0]))
        letters = "ab"[: len(shape)]
        result = letters.replace(letters[axis], "")
        return self._add("einsum", [x, self.number(share)], f"{letters},{letters[axis]}->{result}",
                         tuple(s for i, s in enumerate(shape) if i != axis))  # fmt: skip

    def along(self, x: int, shape: tuple[int, int], axis: int) -> int:
        """A vector as a matrix that is constant along an axis."""
        if self.shapes[x] == shape:
            return x
        size = int(np.prod(self.shapes[x]))
        step = 1 if size == shape[1 - axis] else 0
        return self.view(x, shape, 0, [0, step] if axis == 0 else [step, 0])

    def centred(self, x: int) -> int:
        match int(self.rng.integers(6)):
            case 0:
                return x
            case 1:  # by a matrix
                n = self.shapes[x][1]
                numbers = n * np.eye(n) - 1 if self.chance(0.6) else np.eye(n) - 1 / n
                return self._add("einsum", [x, self.number(numbers)], "ab,bc->ac", self.shapes[x])
            case 2:  # n x - sum
                n = self.shapes[x][1]
                total = self._add("einsum", [x, self.number(np.ones(n))], "ab,b->a", self.shapes[x][:1])
                return self.two("sub", self.two("mul", x, self.number(float(n))), self.along(total, self.shapes[x], 1))
        axis = int(self.chance(0.75))
        found = self.two("sub", x, self.along(self.mean(x, axis), self.shapes[x], axis))
        return self.one("over_root", found, self._pick([4, 9, 3])) if self.chance(0.2) else found

    def sized(self, c: int, x: int) -> int:
        """A vector, or a number, that may dominate c."""
        rng, shape = self.rng, self.shapes[c]
        of = c if self.chance(0.75) else x
        if self.chance(0.15):
            of = self.view(of, shape, int(np.prod(shape)) - 1, [-shape[1], -1])
        elif self.chance(0.1):
            of = self.view(of, shape, 0, [0, 1])
        kind = self._pick(["square"] * 6 + ["abs", "abs", "fourth", "plain"])
        term = {"square": lambda: self.one("power", of, 2), "abs": lambda: self.one("abs", of),
                "fourth": lambda: self.one("power", of, 4), "plain": lambda: of}[kind]()  # fmt: skip
        if self.chance(0.2):
            term = self.two(
                "mul", term, self.number(rng.choice([0.0, 0.5, 1.0, 2.0, 2.0, -0.01, 1e-310, 1e300], shape))
            )
        axis = int(self.chance(0.8))
        weights = rng.choice([0.0, 0.5, 2.0, 2.0, 3.0, -0.01, 1e-320, 1e200], shape[axis]) if self.chance(0.2) else np.full(
            shape[axis], self._pick([1.0, 1.0, 1 / shape[axis]]))  # fmt: skip
        if self.chance(0.1):
            return self._added(term, x, axis)
        letter = "ab"[axis]
        total = self._add("einsum", [term, self.number(weights)], f"ab,{letter}->{'ab'.replace(letter, '')}",
                          (shape[1 - axis],))  # fmt: skip
        return self._added(total, x, axis)

    def _added(self, total: int, x: int, axis: int) -> int:
        """And what else is added."""
        for _ in range(int(self.rng.integers(1, 3))):
            more = self.number(self._pick([1e-12, 1e-12, 1e-5, 1e-5, 1e-5, 1.0, 1e-320, -1e-5, 1e300]))
            if self.chance(0.3):
                more = self.mean(self.one(self._pick(["exp", "relu", "abs", "tanh", "softplus"]), x), axis)
                more = more if self.shapes[more] == self.shapes[total] else self.number(1.0)
            total = self.two(self._pick(["add"] * 8 + ["sub"]), total, more)
        return total

    def divisor(self, total: int) -> int:
        match int(self.rng.integers(6)):
            case 0 | 1:
                return self.one("rsqrt", total)
            case 2:
                return self.one("reciprocal", total)
            case 3:  # at least as large as a number, or not
                root, least = self.one("sqrt", total), self.number(self._pick([1e-12, 1e-5, 1.0]))
                room = self.two("sub", least, root) if self.chance(0.7) else self.two("sub", root, least)
                return self.one("reciprocal", self.two("add", self._pick([root, root, least]), self.one("relu", room)))
        root = self.one("sqrt", total)
        if self.chance(0.3):
            root = self.two("mul", root, self.number(self._pick([0.5, 2.0, 1e-200, 1e200])))
        return self.one("reciprocal", self.two("add", root, self.number(self._pick([1e-12, 1e-3, 1e-320]))))

    def unit(self, x: int) -> int:
        c = self.centred(x)
        scale = self.divisor(self.sized(c, x))
        shape = self.shapes[c]
        if self.shapes[scale] != shape:
            axis = int(self.shapes[scale] == shape[:1] and self.chance(0.9))
            scale = self.along(scale, shape, axis)
        of = c if self.chance(0.9) else x
        if self.chance(0.1):
            of, scale = (self.view(n, shape, int(np.prod(shape)) - 1, [-shape[1], -1]) for n in (of, scale))
        pair = (of, scale) if self.chance(0.5) else (scale, of)
        return self.two("mul", *pair)

    def network(self, steps: int = 0) -> Network:
        x = self.matrix()
        found = self.unit(x)
        if self.chance(0.3):  # one row or column of it, of which the rewritten graph computes no more
            (rows, width), column = self.shapes[found], self.chance(0.5)
            self.view(found, (rows if column else width,), 0, [width if column else 1])
            return Network(self.rows, self.weights, self.inputs, self.tokens, self.vocab)
        if self.chance(0.4):  # their products
            shape, other = self.shapes[found], found
            if self.chance(0.6):
                self._input(shape)
                other = self.unit(self.mixed(len(self.rows) - 1) if self.chance(0.5) else len(self.rows) - 1)
            if self.chance(0.2):
                other = self.view(other, shape, 0, [0, 1] if self.chance(0.5) else [shape[1], 0])
            pair = self._pick(["ab,ab->a", "ab,ab->b", "ab,ab->", "ab,cb->ac", "ab,ab->ab"])
            first, second = pair[:2], pair[3:5]
            sizes = dict(zip(first, shape, strict=True)) | dict(zip(second, shape, strict=True))
            product = self._add("einsum", [found, other], pair, tuple(sizes[c] for c in pair[7:]))
            found = (
                self.two("mul", product, self.number(self._pick([1.0, -2.0, 1e-300]))) if self.chance(0.3) else product
            )
        return Network(self.rows, self.weights, self.inputs, self.tokens, self.vocab)


class Extreme(Maker):
    """Any operations, on boxes and numbers of all sizes that float64 has."""

    def _numbers(self, shape: tuple[int, ...]) -> np.ndarray:
        rng = self.rng
        sizes = rng.choice(SIZES, shape) if rng.random() < 0.5 else np.full(shape, self._pick(SIZES))
        return sizes * rng.choice([-1.0, 1.0, 1.0], shape) * (1 if rng.random() < 0.7 else rng.random(shape))

    def _input(self, shape: tuple[int, ...]) -> None:
        ends = np.sort(np.stack([self._numbers(shape), self._numbers(shape)]), 0)
        self._add("input", [], [len(self.inputs), list(shape)], shape)
        self.inputs.append((np.asarray(ends[0]), np.asarray(ends[1])))

    def _weight(self, shape: tuple[int, ...]) -> int:
        if self.rng.random() < 0.5:
            return super()._weight(shape)
        return self._add("constant", [], [list(shape), hexadecimal(self._numbers(shape))], shape, False)


def points(net: Network, part: Any, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Inputs of the part; a half of them have but few values, of which zero is one where it may be."""
    tokens, inputs = inputs_of(net, part, count, rng)
    boxes, few = _boxes(net, part), []
    for x, (low, high) in zip(inputs, boxes, strict=True):
        size = low.size
        middle = np.clip(0.0, low, high)
        values = np.stack([np.broadcast_to(v, x.shape[1:]) for v in (low, high, middle, np.clip(1.0, low, high))])
        weights = rng.dirichlet(np.full(4, 0.3))
        chosen = rng.choice(4, (count // 2, *x.shape[1:]), p=weights)
        few.append(np.take_along_axis(values, chosen, 0))
        for i in range(count // 8):  # one entry large, the others near zero
            one = values[2].copy().ravel()
            one[rng.integers(size)] = values[rng.integers(2)].ravel()[rng.integers(size)]
            few[-1][i] = np.clip(one.reshape(x.shape[1:]), low, high)
    for x, chosen in zip(inputs, few, strict=True):
        x[: len(chosen)] = chosen
    for x, y, box in zip(inputs, inputs[1:], boxes[1:], strict=False):  # two inputs that are equal
        if x.shape == y.shape:
            y[::3] = np.clip(x[::3], *box)
    return tokens, inputs


def _boxes(net: Network, part: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    found, start = [], 0
    for low, _ in net.inputs:
        size = np.size(low)
        found.append(tuple(end[start : start + size].reshape(np.shape(low)) for end in (part.low, part.high)))
        start += size
    return found


class Proved(NamedTuple):
    """What one kind of bounds says of some nodes, the ends [parts or 1, *shape] of each, and the pivots chosen."""

    kind: str
    graph: Graph
    ends: list[tuple[int, tuple]]
    pivots: dict[int, np.ndarray]


def outside(net: Network, rng: np.random.Generator, count: int = 32) -> list[tuple] | None:
    """Values that the kernel's ranges of nodes, or bounds of their entries' forms, leave out; None if it refuses."""
    claim, found = networks.claim(net), []
    pieces = parts(claim.domain, rng) if rng.random() < 0.3 else [claim.domain]
    with np.errstate(all="ignore"):
        proofs = [p for kind in ("interval", "linear", "any lines") if (p := _proved(claim, pieces, kind, rng))]
        alone = any(p.pivots for p in proofs)  # each chose its own
        for i, piece in enumerate(pieces if proofs else ()):
            tokens, inputs = points(net, piece, count, rng)
            nodes, values = {n for p in proofs for n, _ in p.ends}, None
            for proof in proofs:
                if alone or values is None:
                    pivots = {n: mid[i if len(mid) > 1 else 0] for n, mid in proof.pivots.items()}
                    here = {n for n, _ in proof.ends} if alone else nodes
                    values = evaluate(proof.graph, claim.weights, sorted(here), tokens, inputs, exact=True, pivots=pivots,
                                      bits=BITS)  # fmt: skip
                for n, ends in proof.ends:
                    low, high = (np.broadcast_to(e[i if len(e) > 1 else 0], values[n].shape) for e in ends)
                    assert not (np.isnan(low).any() or np.isnan(high).any()), ("an end is no number", n, net)
                    for at, v in np.ndenumerate(values[n]):
                        if v < arb(float(low[at])) or v > arb(float(high[at])):
                            found.append((proof.kind, n, proof.graph.nodes[n].op, low[at], v.str(20), high[at],
                                          tokens[at[0]].tolist(), [x[at[0]].tolist() for x in inputs], net))  # fmt: skip
    return found if proofs else None


def _proved(claim: Any, pieces: list, kind: str, rng: np.random.Generator) -> Proved | None:
    job = Job(claim, Float64())
    try:
        graph, roots = (rewriting := job.once(linear.Rewriting)).graph, rewriting.roots
        cells = linear.cells(job, pieces)
        if kind == "interval":
            known: Any = Intervals(job.ar, graph, claim.weights, roots, cells)
        else:
            lines = AnyLines(rng) if kind == "any lines" else None
            known = Relaxed(job.ar, graph, claim.weights, roots, cells, lines, bool(rng.integers(2)))
        ends, some = list(known.ends.items()), [n for n in known.ends if n not in known.fixed]
        if kind != "interval" and some:
            ends += [(n, known.range(n)) for n in {known.root, *(some[i] for i in rng.integers(0, len(some), 2))}]
    except Rejected as error:
        assert "internal" not in str(error), error
        return None
    assert not known.empty.any(), ("bounds contradict each other", kind, claim)
    pivots = {n: b.mid for n, b in known.balls.items() if graph.nodes[n].op == "pivot"}
    return Proved(kind, graph, ends, pivots)

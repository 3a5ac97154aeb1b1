"""Bounds of every operation and every kind, attacked: samples and gradient ascent look, python-flint judges.

Each network has one operation in its middle. Its nodes' intervals, of each kind, are compared with what inputs reach:
10^6 an operation in float64, then ascents from the best; the inputs that come closest are evaluated in balls of 300
bits, with code that shares nothing with the kernel's. Tolerance zero: one value outside is a violation.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from flint import arb

from benchmarks.board import Board, timed
from mechverify.graph.run import TorchRunner
from mechverify.kernel import check
from mechverify.kernel.core import functions as kernel_functions
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import NotACertificate, Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.relaxation import lines, planes
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from mechverify.kernel.relaxation.operations import internal
from mechverify.provers.base import Budget
from mechverify.provers.ranges.leaves import optimised_leaves
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.relax.tensors import Tensors
from tests.soundness import networks
from tests.soundness.networks import FUNCTIONS, Maker, Network, evaluate, hexadecimal
from tests.soundness.test_linear import LINEAR, inputs_of, parts
from tests.soundness.test_linear import Any as AnyLines

KINDS = ("interval", "linear", "any lines", "optimised", "shared", "shared, any lines", "cells", "cells, any lines")
NETWORKS, SAMPLES = 16, 1_000_000  # of an operation
BATCH = 2**14  # samples at a time
RADII = ([0.0, 5e-324, 1e-300, 1e-14], [1e-6, 1e-2, 0.3, 1.0, 1.0, 3.0, 10.0], [100.0, 1e4, 1e12, 1e100])
JUDGED, CLIMBERS, STEPS = 16, 48, 24  # inputs evaluated exactly; ascents, and their steps


# --- networks ---------------------------------------------------------------------------------------------------------


class Middle(Maker):
    """Boxes of every size and place; some steps, the operation in question, and steps that read it."""

    def _input(self, shape: tuple[int, ...]) -> None:
        rng = self.rng
        radius = self._pick(RADII[int(rng.choice(3, p=[0.15, 0.7, 0.15]))])
        if rng.random() < 0.3:  # of each entry
            radius = radius * 10.0 ** rng.uniform(-6, 0, shape)
        centre = rng.normal(size=shape) * self._pick([0.0, 1.0, 1.0, 1.0, 100.0])
        low, high = np.asarray(centre - radius), np.asarray(centre + radius)
        match int(rng.integers(6)):
            case 0:  # touching zero
                low, high = np.zeros(shape), np.full(shape, radius)
            case 1:
                low, high = np.full(shape, -radius), np.full(shape, -0.0)
            case 2:  # some entries are points
                low = np.where(rng.random(shape) < 0.5, high, low)
        self._add("input", [], [len(self.inputs), list(shape)], shape)
        self.inputs.append((low, high))

    def another(self) -> int:
        self._input(self._shape(2))
        return len(self.rows) - 1

    def around(self, operation: str) -> Network:
        self._some(int(self.rng.integers(0, 3)))
        step = OPERATIONS[operation]
        while not (middle := step(self)):
            self._some(1)
        self.real = [middle]
        self._some(int(self.rng.integers(0, 3)))
        return Network(self.rows, self.weights, self.inputs, self.tokens, self.vocab)

    def _some(self, steps: int) -> None:
        while steps:
            steps -= bool(getattr(self, "_" + self._pick(networks.STEPS))())

    def fixed(self, op: str) -> int:
        """A fixed number of that kind, added to something."""
        n = self._pick(self.real)
        numbers = self.rng.normal(size=self.shapes[n])
        if op == "constant":
            self._add("constant", [], [list(self.shapes[n]), hexadecimal(numbers)], self.shapes[n], False)
        else:
            self._weight(self.shapes[n])
        return self._add("add", [n, len(self.rows) - 1], None, self.shapes[n])

    def layer_norm(self) -> int:
        """(x - mean) / sqrt(mean square of that + epsilon), in every row."""
        n = self._pick([m for m in self.real if self.shapes[m] and self.shapes[m][-1] > 1] or [None])
        if n is None:
            return 0
        *rows, d = self.shapes[n]
        letters, shape = "ab"[: len(rows)], (*rows, d)
        if len(rows) > 2:
            return 0
        share = self._add("constant", [], [[d], hexadecimal(np.full(d, 1 / d))], (d,), False)
        spread = [list(shape), 0, [prod(rows[i + 1 :]) for i in range(len(rows))] + [0]]

        def mean(of: int) -> int:
            return self._add("einsum", [of, share], f"{letters}d,d->{letters}", tuple(rows))

        centred = self._add("sub", [n, self._add("view", [mean(n)], spread, shape)], None, shape)
        epsilon = self._add("constant", [], [[], hexadecimal(self._pick([1e-12, 1e-5, 1e-3, 1.0]))], (), False)
        total = self._add("add", [mean(self._add("power", [centred], 2, shape)), epsilon], None, tuple(rows))
        scale = self._add("view", [self._add("rsqrt", [total], None, tuple(rows))], spread, shape)
        return self._add("mul", [centred, scale] if self.rng.random() < 0.5 else [scale, centred], None, shape)


def _softmax(kind: int) -> Callable[[Middle], int]:
    """Of scores that may lie far apart."""

    def step(maker: Middle) -> int:
        rank = 2 if kind in (1, 3) else 1
        n = maker._pick([m for m in maker.real if len(maker.shapes[m]) >= rank and maker.shapes[m][-1] > 1] or [None])
        return 0 if n is None else maker._softmax(n, kind)

    return step


def _power(exponents: list[int]) -> Callable[[Middle], int]:
    return lambda m: m._add("power", [n := m._pick(m.real)], m._pick(exponents), m.shapes[n])


def _step(name: str) -> Callable[[Middle], int]:
    return lambda maker: getattr(maker, f"_{name}")()


SEVERAL = {"elementwise", "softmax", "function", "mechanism"}  # steps that are several rows below
EMBEDDED, MECHANISM = "tokens, gather", "integers, number, pick, pi"  # these need tokens
# The steps return the row that they end with, or 0 where none fits.
OPERATIONS: dict[str, Callable[[Middle], int]] = {
    "input": Middle.another,
    EMBEDDED: lambda m: m._pick([r for r in m.real if m.rows[r][0] == "gather"]),
    "weight": lambda m: m.fixed("weight"),
    "constant": lambda m: m.fixed("constant"),
    **{name: _step(name) for name in networks.STEPS if name not in SEVERAL},
    **{name: lambda m, name=name: m._elementwise(name) for name in ("add", "sub", "mul")},
    "softmax of the first entries": _softmax(0),
    "softmax, causal": _softmax(1),
    "softmax, one mask": _softmax(2),
    "softmax, a mask for each row": _softmax(3),
    "even power": _power([2, 4, 6, 16]),
    "odd power": _power([3, 5, 7, 15]),
    **{name: lambda m, name=name: m._function(name) for name in ("over_root", *FUNCTIONS)},
    "layer norm": Middle.layer_norm,
    MECHANISM: Middle._mechanism,
}


# --- bounds -----------------------------------------------------------------------------------------------------------


class Proved(NamedTuple):
    """What one kind of bounds says: of each node the ends, flat rows [parts or 1, entries], and the pivots chosen."""

    kind: str
    ends: dict[int, tuple[np.ndarray, np.ndarray]]
    pivots: dict[int, np.ndarray]

    def of(self, part: int, nodes: list[int], sizes: list[int]) -> np.ndarray:
        """[2, entries of all nodes], infinite where nothing is said."""
        nothing = np.array([[-np.inf], [np.inf]])
        rows = []
        for n, size in zip(nodes, sizes, strict=True):
            known = [e[part if len(e) > 1 else 0] for e in self.ends[n]] if n in self.ends else nothing
            rows.append(np.broadcast_to(known, (2, size)))
        return np.concatenate(rows, 1)

    def constants(self, part: int) -> dict[int, np.ndarray]:
        return {n: p[part if len(p) > 1 else 0] for n, p in self.pivots.items()}


class Case:
    """A network, its domain whole and in parts, and what the kernel proves of both."""

    def __init__(self, net: Network, rng: np.random.Generator, kinds: tuple[str, ...]):
        self.net, self.rng = net, rng
        self.claim = networks.claim(net)
        self.job = Job(self.claim, Float64())
        rewriting = self.job.once(linear.Rewriting)
        self.graph, self.roots = rewriting.graph, rewriting.roots
        self.root = self.roots.output
        self.parts: list[Domain] = parts(self.claim.domain, rng)
        every = self.graph.ancestors([self.root, *(m for _, m in self.roots.shared)])
        real = [n for n in every if self.graph.nodes[n].kind == "real"]
        self.constant = [n for n in real if self.graph.nodes[n].op == "pivot"]
        self.nodes = [n for n in real if n not in (self.root, *self.constant)] + [self.root]
        self.sizes = [prod(self.graph.nodes[n].shape) for n in self.nodes]
        self.proved: list[Proved] = []
        self.nan = False
        for kind in kinds:
            try:
                with np.errstate(all="ignore"):
                    self.proved.append(self._bounds(kind))
            except Rejected as error:
                if "internal" in str(error):
                    raise

    def _bounds(self, kind: str) -> Proved:
        ar, claim, whole = self.job.ar, self.claim, [self.claim.domain]
        lines = AnyLines(self.rng) if "any lines" in kind else None
        if kind == "optimised":
            turns = iter(range(4))
            problem = RangeProblem.__new__(RangeProblem)
            problem.claim, problem.job, problem.ar = claim, self.job, Tensors()
            problem.shared = problem.whole = False
            budget = Budget()
            budget.spent = lambda: next(turns, None) is None
            ((leaf, _),) = optimised_leaves(problem, whole, budget)
            lines = linear.given_lines(self.job, Reader(leaf["lines"], "lines"), None)
        cells = linear.cells(self.job, self.parts if "cells" in kind else whole)
        if kind == "interval":
            relaxed = Intervals(ar, self.graph, claim.weights, self.roots, cells)
        else:
            relaxed = Relaxed(ar, self.graph, claim.weights, self.roots, cells, lines, "shared" in kind)
        relaxed.output()
        self.nan |= bool(np.any(relaxed.empty))  # nor may bounds contradict each other
        bounds = dict(relaxed.balls)
        ends = {}
        for n, (low, high) in relaxed.ends.items():
            low, high = np.broadcast_arrays(low, high)
            self.nan |= bool(np.isnan(low).any() or np.isnan(high).any())
            ends[n] = low.reshape(len(low), -1), high.reshape(len(high), -1)
        zeros = {n: np.zeros((1, *self.graph.nodes[n].shape)) for n in self.constant}
        pivots = {n: bounds[n].mid if n in bounds else zeros[n] for n in self.constant}
        return Proved(kind, ends, pivots)


# --- the attack -------------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    """Rows of tokens and points; each for the sake of one entry of the nodes' and one end of its interval, of which the
    value is `gap` away, as a share of the width: negative outside."""

    tokens: np.ndarray
    points: np.ndarray
    entry: np.ndarray
    upper: np.ndarray
    gap: np.ndarray

    @staticmethod
    def joined(some: "list[Inputs]") -> "Inputs":
        return Inputs(*map(np.concatenate, zip(*some, strict=True)))

    def closest(self, count: int, final: int) -> "Inputs":
        """Half of them of the output's entries, from number `final` on."""
        order = np.argsort(self.gap, kind="stable")
        chosen = order[self.entry[order] >= final][: count // 2]
        others = order[~np.isin(order, chosen)][: count - len(chosen)]
        return Inputs(*(a[np.concatenate([chosen, others])] for a in self))


def gaps(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[2, inputs, entries], from [inputs, entries] and ends [2, entries]; what is not a number counts as close."""
    with np.errstate(all="ignore"):
        width = ends[1] - ends[0]
        found = np.stack([values - ends[0], ends[1] - values]) / np.where(width > 0, width, 5e-324)
    return np.where(np.isfinite(width), np.nan_to_num(found, nan=0.0), 1.0)


class Runner(TorchRunner):
    """Also of what relaxation adds to a graph: constants, and the error of a capped softmax."""

    def __init__(self, case: "Case", pivots: dict[int, np.ndarray]):
        super().__init__(case.graph, case.claim.weights, torch.float64)
        self.pivots = pivots

    def _compute(self, n: int, args: list, tokens: np.ndarray, inputs: list):
        node = self.graph.nodes[n]
        if node.op == "pivot":
            return torch.as_tensor(self.pivots[n])[None]
        if node.op == "slack":
            others = self.graph.nodes[self.graph.nodes[node.args[1]].args[0]]
            (shape, kept), (room, capped) = self.graph.nodes[others.args[1]].attr, args
            powers = torch.exp(internal.CAP - room) * torch.tensor(kept).double().reshape(shape)
            return 1 / (1 + powers.sum(-1)) - 1 / capped
        return super()._compute(n, args, tokens, inputs)


class Attack:
    """Counts: networks, bounds proved and refused, float64 samples, exact comparisons, and values outside."""

    def __init__(self, kinds: tuple[str, ...] = KINDS):
        self.kinds = kinds
        self.networks = self.bounds = self.refused = self.samples = self.judged = self.undecided = 0
        self.closest: list[float] = []  # of each network, how close its output came to an end
        self.outside: list[tuple] = []
        self.nan = 0

    def __str__(self) -> str:
        close = sum(gap < 1e-9 for gap in self.closest)
        return (f"{len(self.outside)} of {self.judged:,} exact values ({self.undecided} undecided); {self.samples:,} "
                f"samples of {self.networks} networks, {self.bounds} bounds ({self.refused} refused); {close} outputs "
                "came within 1e-9 of their width")  # fmt: skip

    @property
    def nothing(self) -> bool:
        """It attacked, and found nothing."""
        return self.networks > 0 and not self.outside and not self.nan

    def operation(self, name: str, seed: int, networks: int, samples: int) -> None:
        """`samples` in all, on as many networks of which something is proved."""
        while self.networks < networks:
            rng = np.random.default_rng([seed, *name.encode()])
            seed += 1_000
            maker = Middle(rng, kind=int(rng.integers(1, 3)) if name in (EMBEDDED, MECHANISM) else None)
            case = Case(maker.around(name), rng, self.kinds)
            self.refused += len(self.kinds) - len(case.proved)
            if case.proved:
                self.case(case, samples // networks)

    def case(self, case: Case, samples: int) -> None:
        self.networks, self.bounds = self.networks + 1, self.bounds + len(case.proved)
        self.nan += case.nan
        gap = [self._part(case, part, -(-samples // len(case.parts))) for part in range(len(case.parts))]
        self.closest.append(min(gap))

    def _part(self, case: Case, part: int, samples: int) -> float:
        """How close the output came to an end of its narrowest interval, as a share of it."""
        runner = Runner(case, case.proved[-1].constants(part))
        known = {p.kind: p.of(part, case.nodes, case.sizes) for p in case.proved}
        ends = np.stack([np.max([k[0] for k in known.values()], 0), np.min([k[1] for k in known.values()], 0)])
        final, found = ends.shape[1] - case.sizes[-1], []
        for start in range(0, samples, BATCH):
            count = min(BATCH, samples - start)
            tokens, inputs = inputs_of(case.net, case.parts[part], count, case.rng)
            points = np.concatenate([np.zeros((count, 0)), *(x.reshape(count, -1) for x in inputs)], 1)
            values = self._values(case, runner, tokens, torch.from_numpy(points))
            extreme, rows = (torch.stack(v).numpy() for v in zip(values.min(0), values.max(0), strict=True))
            upper, entry = (a.ravel() for a in np.indices((2, ends.shape[1])))
            gap = gaps(extreme, ends)[upper, upper, entry]
            found.append(Inputs(tokens[rows.ravel()], points[rows.ravel()], entry, upper, gap))
            found = [Inputs.joined(found).closest(CLIMBERS, final)]
            self.samples += count
        if len(case.claim.domain.low):
            found.append(self._ascent(case, part, runner, ends, found[0]))
        best = Inputs.joined(found)
        self._judge(case, part, known, best.closest(JUDGED, final))
        return float(best.gap[best.entry >= final].min())

    def _values(self, case: Case, runner: Runner, tokens: np.ndarray, points: torch.Tensor) -> torch.Tensor:
        """Of all nodes, side by side: [inputs, entries]."""
        values = runner.many(case.nodes, tokens, _shaped(case, points))
        return torch.cat([values[n].reshape(len(tokens), -1) for n in case.nodes], 1)

    def _ascent(self, case: Case, part: int, runner: Runner, ends: np.ndarray, at: Inputs) -> Inputs:
        """From each input towards its end, along the signs of the gradient: the closest on each way."""
        box, rows = case.parts[part], np.arange(len(at.gap))
        low, high = torch.from_numpy(box.low), torch.from_numpy(box.high)
        points, sign = torch.from_numpy(at.points), torch.from_numpy(1.0 - 2 * at.upper)
        best, gap = at.points.copy(), at.gap.copy()
        for step in range(STEPS):
            moving = points.clone().requires_grad_()
            values = self._values(case, runner, at.tokens, moving)
            reached = gaps(values.detach().numpy(), ends)[at.upper, rows, at.entry]
            better = reached < gap
            best[better], gap[better] = points.numpy()[better], reached[better]
            aim = (values[rows, at.entry] * sign).sum() + 0.0 * moving.sum()  # which it may not depend on
            (slope,) = torch.autograd.grad(aim, moving)
            rate = 0.5 * (1 - step / STEPS) ** 2 * (high - low)
            points = torch.clamp(points - rate * slope.nan_to_num(0.0).sign(), low, high)
        return at._replace(points=best, gap=gap)

    def _judge(self, case: Case, part: int, known: dict[str, np.ndarray], at: Inputs) -> None:
        """Exactly, of every node, and of the output as the model has it."""
        alone = [[p] for p in case.proved] if any(p.pivots for p in case.proved) else [case.proved]
        for group in alone:  # that agree on the pivots
            ends = [known[p.kind] for p in group]
            ends = np.stack([np.max([e[0] for e in ends], 0), np.min([e[1] for e in ends], 0)])
            ends = np.concatenate([ends, ends[:, -case.sizes[-1] :]], 1)
            pivots, rows = group[0].constants(part), np.arange(len(at.gap))
            for bits in (300, 6_000):
                values = _exactly(case, at.tokens[rows], at.points[rows], pivots, bits)
                outside = _OUTSIDE(values, *_BALLS(ends)).astype(bool)
                within = _WITHIN(values, *_BALLS(ends)).astype(bool)
                if bits == 300:
                    self.judged += values.size
                for row, entry in zip(*np.nonzero(outside), strict=True):
                    value, (low, high) = values[row, entry], ends[:, entry]
                    self.outside.append((case.net, [p.kind for p in group], int(entry), str(value), low, high))
                rows = rows[~(outside | within).all(1)]
                if not len(rows):
                    break
            else:
                self.undecided += int((~(outside | within)).sum())


_BALLS = np.frompyfunc(lambda v: arb(float(v)), 1, 1)
_OUTSIDE = np.frompyfunc(lambda v, low, high: v < low or v > high, 3, 1)
_WITHIN = np.frompyfunc(lambda v, low, high: v >= low and v <= high, 3, 1)


def _shaped(case: Case, points: Any) -> list:
    inputs, start = [], 0
    for shape in case.claim.shapes:
        inputs.append(points[:, start : start + prod(shape)].reshape(-1, *shape))
        start += prod(shape)
    return inputs


def _exactly(case: Case, tokens: np.ndarray, points: np.ndarray, pivots: dict, bits: int) -> np.ndarray:
    """[inputs, entries]: of all nodes, and of the output."""
    wanted = [*case.nodes, case.claim.output]
    values = evaluate(
        case.graph, case.claim.weights, wanted, tokens, _shaped(case, points), exact=True, pivots=pivots, bits=bits
    )
    return np.concatenate([values[n].reshape(len(tokens), -1) for n in wanted], 1)


def attack(board: Board, quick: bool) -> None:
    networks, samples = (2, 20_000) if quick else (NETWORKS, SAMPLES)
    for name in OPERATIONS:
        found = Attack()
        seconds, _ = timed(lambda f=found, n=name: f.operation(n, 0, networks, samples))
        board.row(f"{name}: values outside their bounds", "0", f"{found} ({seconds:.0f} s)", found.nothing)
    seconds, found = timed(lambda: hostile(29 if quick else 3))
    what = "boxes and numbers at the ends of float64: values outside their bounds, or NaN"
    board.row(what, "0", f"{found} ({seconds:.0f} s)", found.nothing)
    told = [f"{name}: {said}" for name, said in [*handed(), *written()] if said != "refused"]
    board.row("NaN or an infinity in a ball, in lines, or in a file", "refused", "; ".join(told) or "refused", not told)


# --- NaN, infinities, overflow ----------------------------------------------------------------------------------------

HUGE, TINY = float(np.finfo(float).max), 5e-324
BOXES = [
    (-0.0, 0.0), (0.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (-1.0, 1.0), (0.0, TINY), (-TINY, TINY), (TINY, 1.0),
    (TINY, TINY), (2.0**-1022, 1e-300), (1e-200, 1e200), (-HUGE, HUGE), (0.0, HUGE), (HUGE, HUGE), (-HUGE, -1e308),
    (1e153, 1e155), (700.0, 720.0), (709.78, 709.79), (-760.0, -700.0), (-1e4, 1e4), (23.0, 25.0), (1e15, 1e16),
    (1e22, 1e22),
]  # fmt: skip


def graphs() -> Iterator[list]:
    """Of an input of two entries."""
    two = networks.given(2)
    for name in FUNCTIONS:
        yield [two, [name, [0], None]]
        yield [two, ["exp", [0], None], [name, [1], None]]
    for n in (2, 3, 15, 16):
        yield [two, ["power", [0], n]]
    for op in ("add", "sub", "mul"):
        yield [two, ["view", [0], [[2], 1, [-1]]], [op, [0, 1], None], [op, [2, 0], None]]
        for number in (0.0, -0.0, TINY, HUGE):
            yield [two, networks.constant(np.full(2, number)), [op, [0, 1], None], [op, [2, 2], None]]
    for mask in (1, 2, ["11"], ["01"]):
        yield [two, ["softmax", [0], mask], ["einsum", [1, 0], "a,a->"]]
        yield [two, networks.constant([HUGE, -HUGE]), ["add", [0, 1], None], ["softmax", [2], mask]]
    yield [two, ["einsum", [0, 0], "a,b->ab"], ["softmax", [1], "causal"], ["einsum", [2, 0], "ij,j->i"]]
    yield [two, ["power", [0], 2], ["rsqrt", [1], None], ["mul", [0, 2], None]]
    yield [two, ["exp", [0], None], ["view", [0], [[2], 1, [-1]]], ["reciprocal", [1], None], ["mul", [2, 3], None]]


def hostile(step: int) -> Attack:
    """Bounds of what overflows, underflows, or is not defined: right, or refused."""
    found, rng = Attack(), np.random.default_rng(0)
    pairs = list(product(graphs(), BOXES))
    for rows, (low, high) in pairs[::step]:
        box = [(np.full(2, low), np.full(2, high))]
        case = Case(Network(rows, {}, box, [], 0), rng, found.kinds)
        found.refused += len(found.kinds) - len(case.proved)
        if case.proved:
            found.case(case, 64)
    return found


def handed() -> Iterator[tuple[str, str]]:
    """What the kernel's steps say of balls that are not finite."""
    ar, one = Float64(), Ball(np.ones(3), np.ones(3))
    curve = lines.curve(ar, kernel_functions.FUNCTIONS["exp"], *ar.ends(one))
    steps: dict[str, Callable[[Ball], Any]] = {
        "hull": lambda x: lines.hull(ar, x, one),
        "hull, above": lambda x: lines.hull(ar, one, x),
        "slope": lambda x: lines.offset(ar, curve, x, upper=False),
        "plane": lambda x: planes.plane(ar, x, one, ar.rational(Fraction(1, 2)), upper=True),
        "mixture": lambda x: planes.plane(ar, one, one, x, upper=False),
    }
    for name, step in steps.items():
        for bad in (np.nan, np.inf, -np.inf):
            for x in (one._replace(mid=np.array([1.0, bad, 1.0])), one._replace(rad=np.array([0.0, bad, 1.0]))):
                if x.mid[1] == 1 and (bad < 0 or name in ("slope", "mixture")):
                    continue  # no radius is negative, and these are points
                yield f"{name} of {x.mid} +- {x.rad}", _answer(lambda s=step, v=x: _ends(ar, s(v)))


def _ends(ar: Float64, balls: Any) -> list:
    return [(ar.lower(b), ar.upper(b)) for b in ([balls] if isinstance(balls, Ball) else balls)]


def _answer(question: Callable) -> str:
    with np.errstate(all="ignore"):
        try:
            return f"answered {question()}"
        except (Rejected, NotACertificate) as error:
            return str(error) if "internal" in str(error) else "refused"


def written() -> Iterator[tuple[str, str]]:
    """What the kernel says of files with numbers that are none."""
    net = Network([networks.given(1), ["exp", [0], None]], {"w": np.ones(2)}, [(np.zeros(1), np.ones(1))], [], 0)
    cut = {"rule": "split", "coordinate": 0, "at": None, "inside": LINEAR, "outside": LINEAR}
    for text in ("nan", "NaN", "-nan", "inf", "-inf", "Infinity", "0x1p+1024", "1e999", "0x1.8p+4000", np.nan, np.inf):
        for where in ("low", "high", "constant", "at", "point", "stated", "threshold"):
            row = [["constant", [], [[1], [text]]], ["add", [1, 2], None]] if where == "constant" else []
            proof = cut | {"at": text} if where == "at" else LINEAR
            if where == "point":
                proof = {"rule": "point", "inputs": [[[], [text]]]}
            document, data = networks.document(net._replace(rows=[*net.rows, *row]), proof)
            claim = document["claim"]
            if where in ("low", "high"):
                claim["domain"]["inputs"][0][1 + (where == "high")] = [text]
            elif where == "stated":
                document["conclusion"]["low"] = [text]
            elif where == "threshold":
                claim["at_most"], document["conclusion"]["verdict"] = text, "PROVED"
            yield f"{text!r} as {where}", _answer(lambda d=document, w=data: check(networks.file(d, w)))
    for bad in (np.nan, np.inf, -np.inf):
        rows = [*net.rows, ["weight", [], ["w", [2]]], ["add", [1, 2], None]]
        spoilt = net._replace(rows=rows, weights={"w": np.array([1.0, bad])})
        yield f"{bad} as a weight", _answer(lambda s=spoilt: check(networks.file(*networks.document(s, n=2))))

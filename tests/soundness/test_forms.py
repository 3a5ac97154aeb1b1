"""Lemma O5: forms hold, all with the same numbers, what every choice of disturbances makes of a graph's values."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mechverify import Share, capture, prove, tokens
from mechverify.kernel.core import programs
from mechverify.kernel.core.arithmetic import Ball, points
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.forms import Form, Forms
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations import Node
from mechverify.kernel.core.operations.rounding import disturbed
from mechverify.kernel.core.semantics import Real
from tests.soundness.test_programs import F, Head, problem, seeded, tokens_claim

BATCH, TOLD = 40, 7
SHARE = 0.999  # of what a program may add, is added: further than any rounding of this test's own


def machine() -> Forms:
    graph = Graph(1, (0, 1))
    for number in (0.0, 1.0):  # operands
        graph.add("constant", attr=((), (number,)))
    forms = Forms(graph, {}, Real(Float64()), np.zeros((BATCH, 1), int))
    forms.told = TOLD
    return forms


def some_form(rng, *shape: int, centre=None, size: float = 1.0, start: int = 0, rad: bool = True) -> Form:
    mid = rng.normal(size=(BATCH, *shape)) if centre is None else np.broadcast_to(centre, (BATCH, *shape))
    terms = rng.normal(size=(BATCH, TOLD - start - int(rng.integers(2)), *shape)) * size / TOLD
    return Form(Ball(mid, np.abs(rng.normal(size=mid.shape)) * size * rad), points(terms), start)


def value(form: Form, s: np.ndarray, rng) -> np.ndarray:
    """A number of the form at disturbances s [batch, told]; at the edge of its radius, or within."""
    off = rng.uniform(-1, 1, form.rest.mid.shape)
    off = np.where(rng.integers(0, 2, off.shape), np.sign(off), off)
    return moved(form, s) + off * np.broadcast_to(form.rest.rad, off.shape)


def moved(form: Form, s: np.ndarray) -> np.ndarray:
    mid = np.broadcast_to(form.rest.mid, np.broadcast_shapes(form.rest.mid.shape, np.shape(form.rest.rad)))
    return mid if form.terms is None else mid + np.einsum("bn,bn...->b...", s[:, form.start : form.end], form.terms.mid)


def holds(form: Form, s: np.ndarray, computed: np.ndarray) -> None:
    off = np.abs(computed - moved(form, s))
    slack = 1e-13 * (1 + np.abs(computed))  # of numpy's own roundings
    assert (off <= form.rest.rad + slack).all(), (off - form.rest.rad).max()


def disturbances(rng, told: int = TOLD) -> np.ndarray:
    s = rng.uniform(-1, 1, (BATCH, told))
    return np.where(rng.integers(0, 3, s.shape) > 0, np.sign(s), s)


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0), "abs": np.abs, "exp": np.exp, "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "gelu": lambda x: F.gelu(torch.from_numpy(x)).numpy(),
    "silu": lambda x: x / (1 + np.exp(-x)), "rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt,
    "reciprocal": lambda x: 1 / x, "power": lambda x: x**2,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", [1e-5, 0.1, 1.5])
def test_functions(name, size):
    rng = np.random.default_rng(0)
    positive = name in ("rsqrt", "sqrt", "reciprocal")
    node = Node(name, (0,), 2 if name == "power" else None, "real", (5,))
    for _ in range(20):
        x = some_form(rng, 5, size=size, centre=rng.uniform(30, 60, (BATCH, 5)) * size if positive else None)
        result = machine()._function(node, x)
        for _ in range(20):
            s = disturbances(rng)
            holds(result, s, FUNCTIONS[name](value(x, s, rng)))
        for t in np.linspace(-1, 1, 9):  # all of them together: from one end of the interval to the other
            s = t * np.sign(x.terms.mid[:, :, 0])
            s = np.concatenate([s, np.zeros((BATCH, TOLD - s.shape[1]))], 1)
            holds(result._replace(rest=result.rest.at[:, :1], terms=result.terms.at[:, :, :1]), s,
                  FUNCTIONS[name](moved(x, s)[:, :1] + t * x.rest.rad[:, :1]))  # fmt: skip


def test_a_function_beyond_its_reach_keeps_its_ball():
    x = Form(Ball(np.full((BATCH, 1), -1e6), np.full((BATCH, 1), 1e-3)), points(np.ones((BATCH, 2, 1))))
    result = machine()._function(Node("exp", (0,), None, "real", (1,)), x)
    assert (result.rest.mid - result.rest.rad <= 0).all() and (result.terms.mid == 0).all()


@pytest.mark.parametrize(("op", "spec", "first", "second"), [
    ("einsum", "ij,jk->ik", (3, 4), (4, 2)), ("einsum", "ab,cb->ac", (3, 12), (9, 12)), ("einsum", "i,i->", (6,), (6,)),
    ("mul", None, (3, 4), (3, 1)), ("mul", None, (4,), (3, 4)),
])  # fmt: skip
def test_products(op, spec, first, second):
    """Of two forms, and of a form and what no disturbance moves, at either side; starts and ends differ."""
    rng = np.random.default_rng(1)
    for k in range(60):
        x, y = some_form(rng, *first, start=k % 3), some_form(rng, *second, start=(k // 3) % 3)
        if k % 4 == 1:
            x = x._replace(terms=None, start=0)
        if k % 4 == 2:
            y = Form(y.rest if k % 8 == 2 else y.rest.point)
        shape = np.einsum(spec, *map(np.ones, (first, second))).shape if spec else np.broadcast_shapes(first, second)
        result = machine()._product(Node(op, (0, 1), spec, "real", shape), x, y)
        letters = spec and "z" + spec.replace(",", ",z").replace("->", "->z")
        for _ in range(20):
            s = disturbances(rng)
            a, b = value(x, s, rng), value(y, s, rng)
            if spec is None:
                a = a.reshape(BATCH, *(1,) * (len(shape) - len(first)), *first)
            holds(result, s, np.einsum(letters, a, b) if spec else a * b)


def test_coefficients_of_products_err_where_they_are_moved():
    """Two forms with different disturbances: what rounding makes of sums of products is an error of the form. Exactly;
    with centres of zero, and a sum that cancels, nothing else is."""
    rng, n = np.random.default_rng(7), 64
    d, b = np.abs(rng.normal(size=(2, n // 2)))
    x = Form(points(np.zeros((1, n))), points(np.concatenate([d, d])[None, None]), 0)
    y = Form(points(np.concatenate([b, -b * (1 + 2.0**-45)])[None]), points(np.full((1, 1, n), 2.0**-200)), 1)
    result = machine()._product(Node("einsum", (0, 1), "a,a->", "real", ()), x, y)
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(x.terms.mid[0, 0], y.rest.mid[0], strict=True))
    off = abs(exact - Fraction(result.terms.mid[0, 0]) - Fraction(result.rest.mid[0]))
    assert 0 < off <= Fraction(float(np.ravel(result.rest.rad)[0])) - 64 * Fraction(2) ** -190


@pytest.mark.parametrize("mask", [4, 2, "causal", ("1010", "0110", "1111", "0001")])
@pytest.mark.parametrize("size", [1e-5, 0.06])
def test_softmaxes(mask, size):
    rng = np.random.default_rng(2)
    node = Node("softmax", (0,), mask, "real", (4, 4))
    kept = np.tri(4, dtype=bool) if mask == "causal" else (
        np.array([[c == "1" for c in r] for r in mask]) if isinstance(mask, tuple) else np.arange(4) < mask)  # fmt: skip
    for _ in range(10):
        x, forms = some_form(rng, 4, 4, size=size), machine()
        result = forms._softmax(node, x)
        for _ in range(10):
            s = disturbances(rng)
            scores = value(x, s, rng)
            own = np.where(x.rest.rad > 0, (scores - moved(x, s)) / np.where(x.rest.rad > 0, x.rest.rad, 1), 0)
            e = np.where(kept, np.exp(scores), 0)
            holds(result, np.concatenate([s, own.reshape(BATCH, -1)], 1), e / e.sum(-1, keepdims=True))


@pytest.mark.parametrize("op", ["add", "sub", "concat", "view", "over_root"])
def test_linear_operations(op):
    rng = np.random.default_rng(3)
    attr = {"concat": 1, "view": ((4, 2), 1, (0, 3)), "over_root": 7}.get(op)
    shape = {"concat": (2, 6), "view": (4, 2)}.get(op, (2, 3))
    for k in range(40):
        x, y = some_form(rng, 2, 3, start=k % 3), some_form(rng, 2, 3, start=(k // 2) % 3)
        y = Form(y.rest) if k % 4 == 3 else y
        forms = [x, y] if op in ("add", "sub", "concat") else [x]
        result = machine()._linear(Node(op, (0, 1)[: len(forms)], attr, "real", shape), forms)
        for _ in range(10):
            s = disturbances(rng)
            a, b = value(x, s, rng), value(y, s, rng)
            holds(result, s, {
                "add": a + b, "sub": a - b, "concat": np.concatenate([a, b], -1), "over_root": a / np.sqrt(7),
                "view": np.stack([a[:, :, 1]] * 4, 1),
            }[op])  # fmt: skip


@pytest.mark.parametrize("start", [0, 2])
def test_disturbances_of_its_own(start):
    rng, forms = np.random.default_rng(4), machine()
    x = some_form(rng, 2, 3, start=start)
    own = forms._own(x)
    assert forms.told == TOLD + 6 and not np.any(own.rest.rad)
    s = disturbances(rng)
    computed = value(x, s, rng)
    mine = (computed - moved(x, s)) / x.rest.rad
    holds(own, np.concatenate([s, mine.reshape(BATCH, -1)], 1), computed)
    again = forms._own(Form(x.rest))
    assert (again.start, again.end) == (TOLD + 6, TOLD + 12)


def test_the_reach_of_coefficients():
    """At least their sizes' sum: subnormal ones, and large ones, among them."""
    forms = machine()
    for scale in (1.0, 2.0**-1070, 2.0**-130, 2.0**120):
        terms = np.random.default_rng(5).normal(size=(3, 50, 4)) * scale
        reach = forms._reach(points(terms)).mid
        exact = np.abs(terms).astype(np.longdouble).sum(1)
        assert (reach >= exact).all() and (reach <= exact * (1 + 1e-9) + 2.0**-500).all()
    assert not np.isfinite(forms._reach(points(np.full((1, 2, 1), np.inf))).mid).all()


class Chosen(Evaluation):
    """One program: every disturbance is chosen, at nearly the most that it may be."""

    def __init__(self, job, ids: np.ndarray, rng):
        super().__init__(job.claim.graph, job.claim.weights, job.semantics, ids)
        self.rng = rng

    def _compute(self, node, args):
        if node.op != "rounding":
            return super()._compute(node, args)
        raw, *rest = (b.point for b in args)
        rank, zero = len(node.shape), points(np.zeros(raw.mid.shape))
        most = disturbed(self.semantics.ar, node.attr, raw, rest, lambda x: self.align(x, rank), zero).rad
        sign = self.rng.choice([-1, 1], raw.mid.shape) if self.rng.integers(4) else self.rng.choice([-1, 1])
        return points(raw.mid + SHARE * sign * most)


class Kept(Forms):
    """With all forms that there were."""

    def _form(self, n, varying):
        form = super()._form(n, varying)
        self.all[n] = form
        return form


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("unit", [None, 2.0**-14])
def test_every_choice_of_disturbances_is_held(monkeypatch, folded, unit):
    """Of a transformer: each node's value by its ball; of single programs, and where a unit is so large that what isn't
    linear tells."""
    if unit is not None:
        monkeypatch.setattr(programs, "U32", unit)
    _, _, claim = tokens_claim()
    job, rng = problem(claim), np.random.default_rng(6)
    ids = rng.integers(0, 5, (12, 4))
    forms = Kept(job.claim.graph, job.claim.weights, job.semantics, ids, folded)
    forms.all = {}
    forms[job.claim.output]
    balls = {n: forms._whole(f) for n, f in forms.all.items() if isinstance(f, Form)}
    near = 0.0
    for _ in range(40):
        chosen = Chosen(job, ids, rng)
        chosen[job.claim.output]
        for n, ball in balls.items():
            mid, rad = np.broadcast_arrays(ball.mid, ball.rad)
            off = np.abs(chosen.values[n].mid - mid)
            assert (off <= rad).all(), (n, job.claim.graph.nodes[n])
        near = max(near, float((off / np.maximum(rad, 1e-300)).max()))
    assert near > 0.03  # of what is allowed, random signs reach so much at the output


def test_a_form_is_forgotten_and_made_anew():
    _, _, claim = tokens_claim()
    job = problem(claim)
    forms = Forms(job.claim.graph, job.claim.weights, job.semantics, np.zeros((2, 4), int))
    ball = forms[job.claim.output]
    assert [n for n in forms.values if n != job.claim.output] == []
    inner = job.claim.graph.nodes[job.claim.output].args[0]
    again = forms[inner]
    assert (
        np.isfinite(again.rad).all() and (again.rad > 0).all() and (forms[job.claim.output].rad >= 0.5 * ball.rad).all()
    )


def test_shares_are_decided_where_balls_leave_inputs_open():
    """Against an enumeration in float64, and in torch's float32: all of both are right or wrong alike."""
    net = seeded(Head)
    model = capture(net, torch.zeros(1, 4, dtype=torch.long))
    ids = torch.cartesian_prod(*[torch.arange(5)] * 4)
    with torch.no_grad():
        single = net(ids).double().numpy()
        lead = net.double()(ids)[:, 0].numpy()
    net.float()
    order = np.sort(lead)
    k = int(np.argmin(np.where(np.diff(order) > 2e-4, np.diff(order), np.inf)))  # two inputs that are near each other
    limit = (order[k] + order[k + 1]) / 2
    x = tokens("x", length=4, vocab=5)
    right = prove(Share(model["output"][0] > float(limit), over=x), semantics="float32", time_limit=60).theorem.right
    job = problem(Share(model["output"][0] > float(limit), over=x))
    ball = Evaluation(job.claim.graph, job.claim.weights, job.semantics, ids.numpy())[job.claim.output]
    assert (np.abs(ball.mid) < ball.rad).any()  # balls alone leave some of them open
    assert right.low == right.high == int((lead > limit).sum()) == int((single[:, 0] > limit).sum())

"""Lemma O4: what float32 programs of captured modules compute lies within what is proved of them."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import nn

from mechverify import Bounds, ball, capture, tokens
from mechverify.certificate.write import claim_document
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.operations.rounding import disturbed
from mechverify.kernel.core.programs import normalised
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.rule import _value
from tests.soundness.programs import FUNCTIONS, UNITS, Program, rows

F = nn.functional


class Head(nn.Module):
    """One head of attention with layer norm, by plain operations."""

    def __init__(self, width: int = 8, length: int = 4, vocab: int = 5, act=F.gelu):
        super().__init__()
        self.embed, self.place = nn.Embedding(vocab, width), nn.Parameter(torch.randn(length, width))
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down, self.out = nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.Linear(width, vocab)
        self.act, self.length = act, length

    def forward(self, ids):
        x = self.embed(ids) + self.place
        h = self.first(x)
        scores = self.q(h) @ self.k(h).transpose(-1, -2) / h.shape[-1] ** 0.5
        mask = torch.triu(torch.ones(self.length, self.length), 1) > 0
        x = x + self.o(scores.masked_fill(mask, -torch.inf).softmax(-1) @ self.v(h))
        x = x + self.down(self.act(self.up(self.second(x))))
        return self.out(x)[:, -1]


class ByHand(nn.Module):
    """Layer norm and root mean square as libraries for interpretability write them, and a choice of functions."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, 3)
        self.w = nn.Parameter(torch.randn(width))

    def forward(self, x):
        x = self.a(x)
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * self.w
        y = torch.tanh(x) + x.sigmoid() * F.silu(x) - torch.erf(x) + x.abs() * 0.1
        y = torch.rsqrt(y**2 + 0.3) + (x / 3.0).exp() + F.gelu(x, approximate="tanh") + F.softplus(x)
        return self.b(torch.clamp(y, -3.0, 2.5)) - y.amax(-1, keepdim=True)


class Normed(nn.Module):
    def __init__(self, width: int = 6):
        super().__init__()
        self.a, self.b, self.norm, self.rms = (
            nn.Linear(3, width),
            nn.Linear(width, 2),
            nn.LayerNorm(width),
            nn.RMSNorm(width, eps=1e-5),
        )

    def forward(self, x):
        return self.b(self.rms(torch.relu(self.norm(self.a(x)) + 0.2)))


class Convolved(nn.Module):
    """Signals and images: strides, padding, gaps, groups, with a bias and without."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(1, 4, 3, padding=1)
        self.b = nn.Conv1d(4, 4, 3, stride=2, dilation=2, groups=2, bias=False)
        self.c = nn.Conv2d(1, 3, (2, 3), padding="same")
        self.out = nn.Linear(24, 3)

    def forward(self, x):
        y = F.gelu(self.b(F.relu(self.a(x[:, None]))))
        return self.out(torch.tanh(self.c(y[:, None, :, :2])).flatten(1))


class Transposed(nn.Module):
    """Transposed convolutions of signals and images: strides, padding, gaps, groups, with a bias and without."""

    def __init__(self):
        super().__init__()
        self.a = nn.ConvTranspose1d(1, 4, 3, stride=2, padding=1, output_padding=1)
        self.b = nn.ConvTranspose1d(4, 4, 2, dilation=2, groups=2, bias=False)
        self.c = nn.ConvTranspose2d(1, 2, (2, 3), stride=(1, 2), padding=(0, 1))
        self.out = nn.Linear(70, 3)

    def forward(self, x):
        y = F.gelu(self.b(F.relu(self.a(x[:, None]))))
        return self.out(torch.tanh(self.c(y[:, None, :, :4])).flatten(1))


class Fused(nn.Module):
    """Attention by torch's fused kernel: several queries and one, biased scores, masks, other scales; over two blocks."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(8, 3)
        self.k, self.v = (nn.Parameter(torch.randn(1, 1, 33, 2)) for _ in "kv")
        self.bias = nn.Parameter(torch.randn(1, 34))
        self.register_buffer("kept", torch.arange(34) % 3 > 0)

    def forward(self, x):
        size = len(x)
        q = self.q(x).reshape(size, 1, 2, 2)
        more = self.kv(x).reshape(size, 1, 2, 2)
        k = torch.cat([self.k.expand(size, -1, -1, -1), 3 * more[:, :, :1]], 2)
        v = torch.cat([self.v.expand(size, -1, -1, -1), more[:, :, 1:]], 2)
        y = F.scaled_dot_product_attention(3 * q, k, v, attn_mask=self.bias)
        z = F.scaled_dot_product_attention(9 * y[:, :, 1:], k, v, attn_mask=self.kept[None], scale=0.3)
        w = F.scaled_dot_product_attention(q, k[:, :, 32:], v[:, :, 32:], is_causal=True, scale=1.0)
        return self.out(torch.cat([y[:, :, 0], z[:, :, 0], w[:, :, 0], w[:, :, 1]], -1).flatten(1))


def seeded(make, *args):
    torch.manual_seed(3)
    return make(*args).eval()


def mlp():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


BOXES = {
    "mlp": (mlp, 4),
    "by hand": (ByHand, 6),
    "normed": (Normed, 3),
    "convolved": (Convolved, 12),
    "fused": (Fused, 6),
    "transposed": (Transposed, 6),
}


def problem(claim, semantics: str = "float32", arithmetic=Float64) -> Job:
    document = claim_document(claim, semantics)
    return Job(read_claim(Reader(document, "claim"), claim.output.model.data), arithmetic())


def tokens_claim():
    net = seeded(Head)
    model = capture(net, torch.zeros(1, 4, dtype=torch.long))
    return net, model, Bounds(model["output"], over=tokens("x", length=4, vocab=5))


def box_claim(name: str, radius: float = 0.3):
    make, width = BOXES[name]
    net = seeded(make)
    centre = torch.linspace(-1, 1, width)
    model = capture(net, centre[None])
    return net, model, Bounds(model["output"], over=ball(centre, radius))


def share_of_ball(value: np.ndarray, mid: np.ndarray, rad: np.ndarray) -> float:
    """How far into its ball a value is; more than 1 outside."""
    return float((np.abs(value.astype(np.float64) - mid) / np.maximum(rad, 1e-300) * (value != mid)).max(initial=0))


ONE, TINY, UNIT = Fraction(1), Fraction(2) ** -126, Fraction(2) ** -24


def allowed(op: str, operands: list[np.ndarray], inner=None, extra=None, raw: float = 0.0) -> Fraction:
    """What lemma O4 says that a program of an operation may add, at points."""
    ar = Float64()
    balls = [ar.exact(np.asarray(x, float)) for x in operands]
    value = disturbed(ar, (op, inner, extra, 0), ar.exact(np.asarray(raw, float)), balls, lambda x: x,
                      ar.exact(np.zeros(())))  # fmt: skip
    return Fraction(float(np.max(value.rad)))


def sums(n: int) -> tuple:
    """Of a contraction of n products, of which no operand is a softmax."""
    return n, 4 * float(TINY), None, None


NEAR = float(1 + UNIT * 255 / 256)  # a float64 that float32 rounds by nearly half a unit


@pytest.mark.parametrize(("what", "op", "operands", "inner", "extra", "computed", "exact"), [
    ("rounded", "input", [NEAR], None, None, 1, Fraction(NEAR)),
    ("rounded", "weight", [NEAR], None, None, 1, Fraction(NEAR)),
    ("rounded", "add", [1.0, NEAR - 1], None, (0, 0), 1, Fraction(NEAR)),
    ("flushed", "add", [2.0**-126, -1.5 * 2.0**-126], None, (0, 0), 0, -TINY / 2),
    ("flushed operands", "add", [0.9 * 2.0**-126, 0.9 * 2.0**-126], None, (0, 0), 0, 2 * Fraction(0.9 * 2.0**-126)),
    ("from the bias", "add", [2.0**24, 297.0], None, (0, 300), 2**24, 2**24 + 297),
    ("from the bias, at the right", "add", [297.0, 2.0**24], None, (300, 0), 2**24, 2**24 + 297),
    ("rounded", "mul", [1 + 2.0**-12, 1 + 2.0**-12], None, None, 1 + ONE / 2**11, (1 + ONE / 2**12) ** 2),
    ("a flushed operand", "mul", [0.9 * 2.0**-126, 2.0**100], None, None, 0, Fraction(0.9 * 2.0**-126) * 2**100),
    ("flushed", "mul", [2.0**-70, 2.0**-57], None, None, 0, Fraction(2) ** -127),
    ("flushed", "relu", [0.9 * 2.0**-126], None, None, 0, Fraction(0.9 * 2.0**-126)),
    ("lost one by one", "einsum", [np.array([1.0] + [2.0**-24] * 200), np.ones(201)], "i,i->", sums(201), 1,
     1 + 200 * UNIT),
    ("flushed operands", "einsum", [np.full(9, 0.9 * 2.0**-126), np.full(9, 2.0**90)], "i,i->", sums(9), 0,
     9 * Fraction(0.9 * 2.0**-126) * 2**90),
    ("flushed products", "einsum", [np.full(9, 2.0**-70), np.full(9, 2.0**-57)], "i,i->", sums(9), 0,
     9 * Fraction(2) ** -127),
    ("a flushed square", "power", [2.0**-63.5], 2, None, 0, Fraction(2.0**-63.5) ** 2),
    ("the operand's size", "gelu", [-20.0], None, None, -20 * 5 * UNIT, 0),
    ("a shift that rounds", "softmax", [0.0], None, (2, 0), np.exp(-65.0) / (1 + np.exp(-65.0)),
     Fraction(float(np.exp(-65 - 0.999 * 2.0**-18) / (1 + np.exp(-65 - 0.999 * 2.0**-18))))),
    ("a flushed operand", "reciprocal", [2.0**-30], None, None, 1 / (ONE / 2**30 - TINY), ONE * 2**30),
])  # fmt: skip
def test_a_row_covers_what_a_program_may_do(what, op, operands, inner, extra, computed, exact):
    """In exact rationals: examples near the edge of what is covered."""
    error = abs(Fraction(computed) - exact)
    assert 0 < error <= allowed(op, operands, inner, extra, float(exact))


def test_rows_that_are_written_alike_round_apart():
    """A program that computes one thing twice may round it twice, say in another order of its sum."""
    net = seeded(lambda: nn.Linear(3, 2))
    model = capture(net, torch.zeros(1, 3))
    document = claim_document(Bounds(model["output"], over=ball(torch.ones(3), 0.0)), "float32")
    nodes, module = document["graph"]["nodes"], document["graph"]["module"]
    (n,) = [k for k, row in enumerate(nodes) if row[0] == "einsum"]
    assert module["rows"] == len(nodes)
    nodes += [nodes[n], ["sub", [n, len(nodes)], None]]
    module["rows"] += 1
    document["graph"]["sites"] = [["output", len(nodes) - 1]]
    job = Job(read_claim(Reader(document, "claim"), model.data), Float64())
    listed = job.claim.graph.listed
    assert listed[n] != listed[len(nodes) - 2]  # else their difference would be zero
    values = Evaluation(
        job.claim.graph, job.claim.weights, job.semantics, np.zeros((1, 0), int), inputs=[np.ones((1, 3))]
    )
    most = allowed("einsum", [np.ones(3), np.abs(net.weight.detach().numpy()).max(0)], "i,i->", sums(3))
    assert (values[job.claim.output].rad > float(most) / 4).all()


@pytest.mark.parametrize("reader", [None, "square", "all"])
def test_a_normalised_vector_is_of_one_row(reader):
    """What it is made of is written once more. Where one row reads it there, each rounds by itself, and which of them
    is normalised would be a guess: refused. Where all do, it is the second that is normalised."""
    _, model, claim = box_claim("normed")
    document = claim_document(claim, "float32")
    graph = document["graph"]
    nodes, module = graph["nodes"], graph["module"]
    norm = max(module["norms"])  # the root mean square of a vector
    job = problem(claim, "real")
    source, _, _ = normalised(job.claim.graph, job.claim.weights, job.claim.graph.listed[norm])
    first = job.claim.graph.listed.index(source)
    moved = [[op, [a + (a > first) for a in args], attr] for op, args, attr in nodes]
    graph["nodes"] = [*moved[: first + 1], nodes[first], *moved[first + 1 :]]
    graph["sites"] = [[name, n + (n > first)] for name, n in graph["sites"]]
    module["rows"] += 1
    module["norms"] = [n + (n > first) for n in module["norms"]]
    for row in graph["nodes"][first + 2 :]:
        if reader == "all" or (reader == "square" and row[0] == "power"):
            row[1] = [a + (a == first) for a in row[1]]
    claimed = read_claim(Reader(document, "claim"), model.data)
    if reader == "square":
        with pytest.raises(Rejected, match="two rows of the module"):
            Job(claimed, Float64())
        return
    nodes = Job(claimed, Float64()).claim.graph.nodes
    (read,) = [nodes[n.args[1]] for n in nodes if n.op == "rounding" and n.attr[0] == "norm" and n.attr[3] == norm + 1]
    assert read.op == "rounding" and read.attr[3] == first + (reader == "all")


def test_a_quotient_by_a_root_may_go_through_two_rounded_constants():
    rng, worst = np.random.default_rng(0), 0.0
    for d in range(2, 300):
        x = rng.uniform(1, 2, 2000).astype(np.float32)
        root = np.float32(np.sqrt(d))
        y = (x * (np.float32(1) / root)).astype(np.float64)
        exact = x.astype(np.float64) / np.sqrt(np.float64(d))
        worst = max(worst, (np.abs(y - exact) / exact).max() * 2**24)
    assert 2.1 < worst <= float(allowed("over_root", [1.0], None, None, 1.0) / UNIT)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=24), st.randoms())
def test_sums_in_any_order_are_covered(numbers, random):
    """Against the exact sum of exact products."""
    x = np.array(numbers, np.float32)
    y = np.array([random.uniform(-1, 1) for _ in numbers], np.float32)
    exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, y, strict=True)), Fraction(0))
    limit = allowed("einsum", [x, y], "i,i->", sums(len(x)), float(exact))
    for seed in range(8):
        got = Program(np.random.default_rng(seed)).contract("i,i->", x[None], y[None])[0]
        assert abs(Fraction(float(got)) - exact) <= limit


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 24), st.floats(-50, 50, width=32), st.floats(0.01, 20), st.integers(0, 10**6), st.booleans())
def test_normalisations_are_covered(n, centre, spread, seed, centred):
    """Far from zero, where x times scale less mean times scale loses most; against float64."""
    rng = np.random.default_rng(seed)
    x = (centre + spread * rng.standard_normal((1, n))).astype(np.float32)
    c = x.astype(float) - (x.astype(float).mean() if centred else 0)
    scale = 1 / np.sqrt((c**2).mean() + 1e-5)
    y, ar = c * scale, Float64()
    try:
        b = disturbed(ar, ("norm", None, n, 0), ar.exact(y), [ar.exact(x.astype(float)), ar.exact(np.full((1, 1), scale))],
                      lambda a: a, ar.exact(np.zeros((1, n))))  # fmt: skip
    except Unsupported as error:
        assert "nearly constant" in str(error)
        reject()
    for k in range(8):
        got = Program(np.random.default_rng([seed, k])).norm(x, 1e-5, centred)
        assert (np.abs(got - y) <= b.rad + 1e-13).all()


@pytest.mark.parametrize("name", UNITS)
def test_functions_of_exact_operands_are_covered(name):
    """By programs as bad as the axiom allows."""
    x = np.random.default_rng(0).uniform(0.1, 4, 300).astype(np.float32)
    x = x if name in ("sqrt", "rsqrt", "reciprocal") else np.concatenate([x, -x])
    y, ar = FUNCTIONS[name](torch.from_numpy(x.astype(float))).numpy(), Float64()
    b = disturbed(ar, (name, None, None, 0), ar.exact(y), [ar.exact(x.astype(float))], lambda a: a, ar.exact(0 * y))
    for seed in range(8):
        got = Program(np.random.default_rng(seed)).function(name, x)
        assert (np.abs(got - y) <= b.rad + 1e-14).all()


def test_softmaxes_of_exact_scores_are_covered():
    rng, ar = np.random.default_rng(0), Float64()
    for n in (2, 3, 8):
        x = (rng.standard_normal((200, n)) * rng.choice([1, 10, 1e4])).astype(np.float32)
        y = torch.from_numpy(x.astype(float)).softmax(-1).numpy()
        b = disturbed(
            ar, ("softmax", None, (n, 0), 0), ar.exact(y), [ar.exact(x.astype(float))], lambda a: a, ar.exact(0 * y)
        )
        for seed in range(8):
            got = Program(np.random.default_rng(seed)).softmax(x, np.ones(n, bool))
            assert (np.abs(got - y) <= b.rad + 1e-14).all()


class Query(nn.Module):
    """An input's attention by two heads of two entries."""

    def __init__(self, keys: int):
        super().__init__()
        self.k, self.v = nn.Parameter(torch.randn(1, 2, keys, 2)), nn.Parameter(torch.randn(1, 2, keys, 2))

    def forward(self, x):
        return F.scaled_dot_product_attention(x.reshape(1, 2, 1, 2), self.k, self.v, scale=2.0**-20).flatten(1)


FUSED = ONE / 2**18


@pytest.mark.parametrize(("keys", "part", "operands", "exact", "computed"), [
    # a root and a rounding at each factor, and the product's; no term cancels another
    (40, 0, [[1, 1], [1, -1]], 0, (1 + UNIT) ** 5 - (1 - UNIT) ** 5),
    # what a root of 2^-20 makes subnormal: 2^-116 of a factor
    (40, 0, [[TINY * 1000, TINY * 1000], [1, 1]], TINY * 2000, 0),
    # one key's factor errs by 2^-18 downwards, and all others upwards
    (3, 1, [], ONE / 8, (1 - FUSED) / (1 - FUSED + 7 * (1 + FUSED))),
    # a key of the first block errs twice, as that is rescaled
    (40, 1, [], ONE / 8, (1 - FUSED) ** 2 / ((1 - FUSED) ** 2 + 7 * (1 + FUSED))),
    # forty products added up one by one, rescaled, divided by the reciprocal of such a sum
    (40, 2, [[ONE / 40] * 40, [1] * 40], 1, (1 + UNIT) ** 42 / (1 - UNIT) ** 41),
], ids=["scaled before", "flushed", "exp", "blocks", "averages"])  # fmt: skip
def test_a_fused_attention_may_do_more(keys, part, operands, exact, computed):
    """Programs at the edge of what lemma O4 lets them do, in exact rationals; the same rows of an attention that is
    written out allow less."""
    model = capture(Query(keys).eval(), torch.zeros(1, 4))
    job = problem(Bounds(model["output"], over=ball(torch.zeros(4), 1.0)))
    (row,) = model.captured.programs.fused[part]
    op, _, extra, _ = job.claim.graph.nodes[job.claim.graph.listed[row]].attr
    assert (op, extra[2:]) == [("einsum", (None, None)), ("softmax", ()), ("einsum", (None, None))][part]
    spec = "i,i->" if op == "einsum" else None
    arrays = [np.array([float(a) for a in x]) for x in operands]
    limit = allowed(op, arrays, spec, extra, float(exact))
    plain = {0: sums(2), 1: (keys, 0), 2: sums(keys)}[part]
    assert allowed(op, arrays, spec, plain, float(exact)) < abs(Fraction(computed) - Fraction(exact)) <= limit


def test_a_nearly_constant_vector_has_no_bound():
    ar, x = Float64(), np.full((1, 8), 300.0)
    with pytest.raises(Unsupported, match="nearly constant"):
        disturbed(ar, ("norm", None, 8, 0), ar.exact(0 * x), [ar.exact(x), ar.exact(np.full((1, 1), 316.0))],
                  lambda a: a, ar.exact(0 * x))  # fmt: skip


def test_what_may_overflow_is_refused():
    with pytest.raises(Rejected, match="overflow"):
        allowed("mul", [2.0**63, 2.0**63], None, None, 2.0**126)
    with pytest.raises(Rejected, match="overflow"):
        allowed("einsum", [np.array([2.0**63, 2.0**63]), np.array([2.0**63, -(2.0**63)])], "i,i->", sums(2), 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_every_row_of_a_transformer_holds_every_program(seed):
    """Each node's ball at single inputs, against programs that round in random orders."""
    _, model, claim = tokens_claim()
    job = problem(claim)
    ids = np.random.default_rng(seed).integers(0, 5, (200, 4))
    values = Evaluation(job.claim.graph, job.claim.weights, job.semantics, ids)
    balls = {k: values[n] for k, n in enumerate(job.claim.graph.listed) if job.claim.graph.nodes[n].kind == "real"}
    for trial in range(4):
        ran = rows(Program(np.random.default_rng([seed, trial])), model.captured, ids, [])
        for k, b in balls.items():
            mid, rad = np.broadcast_arrays(b.mid, b.rad)
            assert share_of_ball(ran[k], mid, rad) <= 1, (k, model.captured.graph.nodes[k])


@pytest.mark.parametrize(
    ("name", "seed"), [(name, seed) for name in BOXES for seed in range(1 if name == "fused" else 4)]
)
def test_every_row_of_a_box_holds_every_program(name, seed):
    """Balls at single inputs, and intervals with lines over the box."""
    _, model, claim = box_claim(name)
    job, rng = problem(claim), np.random.default_rng(seed)
    low, high = job.claim.domain.low, job.claim.domain.high
    points = rng.uniform(low, high, (500, len(low)))
    points[::3] = np.where(rng.integers(0, 2, points[::3].shape), low, high)
    values = Evaluation(job.claim.graph, job.claim.weights, job.semantics, np.zeros((500, 0), int), inputs=[points])
    bounds = _value(job, [job.claim.domain], Relaxed)
    bounds.output()
    checked = 0
    for trial in range(4):
        ran = rows(Program(np.random.default_rng([seed, trial])), model.captured, np.zeros((500, 0), int), [points])
        for k, n in enumerate(job.claim.graph.listed):
            if job.claim.graph.nodes[n].op == "input":
                continue
            mid, rad = np.broadcast_arrays(values[n].mid, values[n].rad)
            assert share_of_ball(ran[k], mid, rad) <= 1, (k, model.captured.graph.nodes[k])
            new = bounds.roots.of.get(bounds.roots.standing.get(n, n))
            if new in bounds.ends:
                checked += 1
                least, most = (end.reshape(1, *ran[k].shape[1:]) for end in bounds.ends[new])
                assert (ran[k] >= least).all() and (ran[k] <= most).all(), (k, model.captured.graph.nodes[k])
    assert checked > 20


def test_bounds_are_a_little_wider_than_over_the_reals():
    _, _, claim = box_claim("mlp")
    found = {}
    for semantics in ("real", "float32"):
        job = problem(claim, semantics)
        found[semantics] = _value(job, [job.claim.domain], Relaxed).output()
    (low, high), (least, most) = found["real"], found["float32"]
    assert (least < low).all() and (most > high).all()
    assert (low - least).max() < 1e-5 and (most - high).max() < 1e-5


def test_exact_arithmetic_agrees():
    _, _, claim = tokens_claim()
    ids = np.random.default_rng(0).integers(0, 5, (2, 4))
    found = []
    for arithmetic in (Float64, Exact):
        job = problem(claim, arithmetic=arithmetic)
        ar = job.semantics.ar
        value = Evaluation(job.claim.graph, job.claim.weights, job.semantics, ids)[job.claim.output]
        unit = Fraction(2) ** value.exponent if ar.is_exact else 1
        found.append([np.vectorize(float)(end * unit) for end in (ar.lower(value), ar.upper(value))])
    (low, high), (least, most) = found
    assert np.allclose(low, least, rtol=0, atol=1e-6) and np.allclose(high, most, rtol=0, atol=1e-6)
    assert (high - low).max() < 1e-2

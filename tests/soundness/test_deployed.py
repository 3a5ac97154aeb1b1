"""Claims about float32 programs of captured modules, end to end: lemma O4."""

import json
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Mod
from torch import nn

from benchmarks.campaigns.statements import printed
from mechverify import Accuracy, Bounds, Share, ball, box, capture, prove, tokens
from mechverify.certificate.write import graph_document
from mechverify.claims.errors import ClaimError
from mechverify.graph.float32 import _rounded_once
from mechverify.kernel import Rejected, check
from mechverify.kernel.core import container
from tests.independent.sentence import false_lines
from tests.soundness import forge
from tests.soundness.test_programs import BOXES, F, Head, Query, Transposed, box_claim, problem, seeded, tokens_claim


@pytest.mark.parametrize("c", [2.0**12, 2.0**20, 2.0**24])
def test_the_rounding_trap(c):
    """relu(x + c) - c is x over the reals and a multiple of an ulp of c in float32: a claim that it is nearly x is
    proved for `real` alone."""

    class Trap(nn.Module):
        def forward(self, x):
            return torch.relu(x + c) - c

    model = capture(Trap().eval(), torch.zeros(1, 2))
    unit = c * 2.0**-23
    for limit, truth in ((unit / 8, False), (4 * unit, True)):
        out, x = model["output"], model["input.0"]
        claim = Bounds([out[0] - x[0]], over=ball(torch.zeros(2), 1.0), at_least=-limit, at_most=limit)
        assert prove(claim, time_limit=20).verdict == "PROVED"
        found = prove(claim, semantics="float32", time_limit=2)
        assert (found.verdict == "PROVED") == truth
    with torch.no_grad():
        x = torch.linspace(-1, 1, 1001)[:, None]
        assert (Trap()(x) - x).abs().max() > unit / 8


def test_shares_of_tokens_are_those_of_every_program():
    """Inputs whose margin is within float32's rounding count for neither bound."""

    class Near(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding.from_pretrained(torch.tensor([[0.1], [0.3], [-0.2], [0.7]]))
            self.c = nn.Parameter(torch.tensor(0.4))

        def forward(self, ids):
            return self.e(ids).sum(1) - self.c

    model = capture(Near().eval(), torch.zeros(1, 2, dtype=torch.long))
    x = tokens("x", length=2, vocab=4)
    y = model["output"][0]
    real, program = (prove(Share(y > 0, over=x), semantics=s, time_limit=20).theorem.right for s in ("real", "float32"))
    assert program.low <= real.low <= real.high <= program.high
    assert program.low < program.high  # 0.1 + 0.3 - 0.4
    ids = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    right = int((Near()(ids) > 0).sum())
    assert program.low <= right <= program.high


class Twice(nn.Module):
    """One product four times: as it is, by another module, of a batch, and of weights in another order."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 3)

    def forward(self, x):
        w = self.a.weight
        ways = self.a(x), F.linear(x, w, self.a.bias), self.a(x[:, None])[:, 0], x @ w.t().contiguous() + self.a.bias
        return torch.cat([*ways, ways[0][:, :1] - ways[0][:, 1:2]], -1)


def test_what_a_module_computes_twice_rounds_twice():
    """And a difference that the module rounds, and the same one in the claim, are two values."""
    net = seeded(Twice)
    model = capture(net, torch.zeros(1, 64))
    out, over = model["output"], ball(torch.zeros(64), 1.0)
    with torch.no_grad():
        y = net(2 * torch.rand(3000, 64, generator=torch.Generator().manual_seed(0)) - 1)
    apart = 0.0
    for left, right, difference in (
        *((out[3 * k + 1], out[1], y[:, 3 * k + 1] - y[:, 1]) for k in (1, 2, 3)),
        (out[12], out[0] - out[1], y[:, 12].double() - (y[:, 0].double() - y[:, 1].double())),
    ):
        claim = Bounds([left - right], over=over, at_least=-1e-12, at_most=1e-12)
        assert prove(claim, time_limit=10).verdict == "PROVED"
        found = prove(claim, semantics="float32", time_limit=3)
        assert found.verdict != "PROVED" and found.theorem is not None
        low, high = found.theorem.range
        assert low[0] <= difference.min().item() and difference.max().item() <= high[0]
        apart = max(apart, difference.abs().max().item())
    assert apart > 1e-8  # torch does so


def test_rows_that_a_slice_makes_equal_round_apart():
    """The last row of a product, and the product of the last row, are equal over the reals alone."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 3))

        def forward(self, x):
            return (x @ self.w)[:, -1] - x[:, -1] @ self.w

    model = capture(Rows().eval(), torch.zeros(1, 2, 3))
    assert model.captured.programs.missing is None
    claim = Bounds(model["output"], over=ball(torch.zeros(2, 3), 1.0), at_least=-1e-12, at_most=1e-12)
    assert prove(claim, time_limit=10).verdict == "PROVED"
    assert prove(claim, semantics="float32", time_limit=3).verdict != "PROVED"


class Repeated(nn.Module):
    """One number many times, to a function: torch computes the last one by another routine."""

    def forward(self, x):
        return torch.sigmoid(x.repeat(1, 17))


class Expanded(nn.Module):
    """The same column many times: the last one is summed in another order."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(64, 1))

    def forward(self, x):
        return x @ self.w.expand(64, 5)


@pytest.mark.parametrize(("make", "width", "radius"), [(Repeated, 1, 3.0), (Expanded, 64, 1.0)])
def test_equal_entries_round_apart(make, width, radius):
    net = seeded(make)
    model = capture(net, torch.zeros(1, width))
    assert model.captured.programs.missing is None
    out, over = model["output"], ball(torch.zeros(width), radius)
    last = out.shape[0] - 1
    claim = Bounds([out[0] - out[last]], over=over, at_least=-1e-12, at_most=1e-12)
    assert prove(claim, time_limit=10).verdict == "PROVED"
    found = prove(claim, semantics="float32", time_limit=3)
    assert found.verdict != "PROVED" and found.theorem is not None
    inputs = (2 * torch.rand(3000, width, generator=torch.Generator().manual_seed(0)) - 1) * radius
    with torch.no_grad():
        y = torch.cat([net(x) for x in inputs.split(1 if make is Repeated else 50)])
    most = (y[:, 0] - y[:, last]).abs().max().item()  # 1.2e-7, and 5e-6, with AVX2
    assert found.theorem.range.low[0] <= -most and most <= found.theorem.range.high[0]


class First(nn.Module):
    def forward(self, x):
        return x[:, 0]


class Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.drop(x)


TENTH = 0.1  # no float32: that is 1.5e-9 more


@pytest.mark.parametrize(("make", "of"), [
    (First, lambda m: m["output"][()] - m["input.0"][0]),
    (Same, lambda m: m["output"][0] - TENTH),
    (Same, lambda m: m["output"][0] - m["input.0"][0]),
    (Same, lambda m: m["drop"][0] - TENTH),
], ids=["moved", "number", "input", "inner"])  # fmt: skip
@pytest.mark.parametrize("width", [1, 2])
def test_a_claim_reads_an_input_as_it_is_and_the_module_rounds_it(make, of, width):
    """Also where the module returns the input itself, or an entry that the claim reads, too."""
    model = capture(make().eval(), torch.zeros(1, width))
    assert model["input.0"].shape == (width,)
    claim = Bounds([of(model)], over=box([TENTH] * width, [TENTH] * width), at_least=-1e-12, at_most=1e-12)
    assert prove(claim, time_limit=5).verdict == "PROVED"
    found = prove(claim, semantics="float32", time_limit=2)
    assert found.verdict != "PROVED" and found.theorem is not None
    error = float(torch.tensor(TENTH)) - TENTH
    assert found.theorem.range.low[0] <= error <= found.theorem.range.high[0]


class Refused(nn.Module):
    """Each was once proved to be what torch contradicts."""

    def __init__(self, what: str):
        super().__init__()
        self.what, self.w = what, nn.Parameter(torch.tensor([0.1, 0.5]))
        self.register_buffer("at", torch.zeros(41, dtype=torch.long))
        self.register_buffer("many", torch.cat([torch.ones(1), torch.full((40,), 2.0**-25)]))

    def forward(self, x):
        y = x * 3.0
        match self.what:
            case "gt of constants":  # 0.1 as a float32 exceeds 0.1 over the reals, and equals it in float32
                return torch.relu(x - 0.95).masked_fill(self.w > 0.1, 0.0)
            case "index_put of constants":  # a sum, in float64
                return y * torch.zeros(2).index_put((self.at,), self.many, accumulate=True)
            case "arange of constants":  # two roundings of each entry
                return y[:, :1] * torch.arange(-0.55, 0.9, 0.1)
            case "to in torch.float64":  # a cast back, which rounds
                return torch.cat([y.double() * 0.3, (y.double() * 0.3).float()], -1)
            case "sum in torch.float64":
                return y.sum(-1, keepdim=True, dtype=torch.float64)
        raise NotImplementedError


@pytest.mark.parametrize("what", ["gt of constants", "index_put of constants", "arange of constants",
                                  "to in torch.float64", "sum in torch.float64"])  # fmt: skip
def test_what_rounds_where_its_graph_does_not_is_refused(what):
    model = capture(Refused(what).eval(), torch.full((1, 2), 0.5))
    assert what in (model.captured.programs.missing or "")


class Unchanged(nn.Module):
    """Over the reals its input; a program may flush it."""

    def forward(self, x):
        masked = x + torch.tensor([[0.0, 0.0], [0.0, -torch.inf]])
        ways = x * 1.0, x + torch.zeros(2), x / torch.ones(2), x[:, None].mean(1), masked[:1], masked.split(1)[0]
        return torch.cat([x, *ways], -1)


def test_what_changes_nothing_may_flush():
    net, tiny = Unchanged().eval(), 2.0**-130
    model = capture(net, torch.full((1, 2), 0.5))
    assert model.captured.programs.missing is None
    out, over = model["output"], box([tiny] * 2, [tiny] * 2)
    torch.set_flush_denormal(True)
    try:
        y = net(torch.full((1, 2), tiny, dtype=torch.float64).float())[0].double().numpy()
    finally:
        torch.set_flush_denormal(False)
    for k in range(2, out.shape[0], 2):
        claim = Bounds([out[k] - out[0]], over=over, at_least=0, at_most=0)
        assert prove(claim, time_limit=10).verdict == "PROVED"
        assert prove(claim, semantics="float32", time_limit=2).verdict != "PROVED"
    low, high = prove(Bounds(out, over=over), semantics="float32", time_limit=5).theorem.range
    assert (low <= y).all() and (y <= high).all() and (y == 0).any()


def test_what_changes_nothing_is_no_row_of_a_theorem_about_the_reals():
    """Rules that know no product would stop there."""
    model = capture(Unchanged().eval(), torch.full((1, 2), 0.5))
    sites = {}
    for semantics in ("real", "float32"):
        document = graph_document(model, semantics)
        rows, sites[semantics] = document["nodes"], dict(document["sites"])
        needed, todo = set(), [sites[semantics]["output"]]
        while todo:
            needed.add(n := todo.pop())
            todo += [a for a in rows[n][1] if a not in needed]
        ones = [n for n in needed if rows[n][0] == "mul" and any(rows[a][0] == "constant" for a in rows[n][1])]
        assert len(ones) == (0 if semantics == "real" else 5)
    assert {*sites["real"]} == {*sites["float32"]}


class Constants(nn.Module):
    """Arithmetic of constants, which a program performs in float32."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def forward(self, x):
        tenth, steps = torch.tensor(0.1), torch.arange(1, 21)
        match self.what:
            case "exact":
                return x * (torch.arange(4) * 0.5 - torch.arange(4).square() / 8)
            case "a mask":
                return (x[:, None] + (1.0 - torch.ones(4, 4).tril()) * -1e9).softmax(-1)
            case "counted":
                return x * torch.ones(4, 4).tril().sum(-1) + torch.ones(4).cumsum(0)
            case "rounded once":
                return x * (tenth * torch.tensor(0.3))
            case "a rounded table":
                return x[:, :1] * (tenth * steps)
            case "returned":
                return (tenth * steps)[None] + 0 * x[:, :1], (tenth * steps)[None]
            case "sine":
                return x * torch.arange(4.0).sin()
            case "rounded twice":
                return x * (tenth * torch.tensor(0.3) * tenth)
            case "no float32":
                return x * (torch.arange(4) * 0.1)
            case "quotient":
                return x * (torch.arange(4) / 3)
            case "flushed":
                return x * (torch.tensor(2.0**-100) * torch.tensor(2.0**-40))
            case "long sums":
                return x * torch.full((4,), 0.3).sum()
            case "scaled sums":
                return x * torch.add(tenth, tenth, alpha=3)
        raise NotImplementedError


@pytest.mark.parametrize("what", ["exact", "a mask", "counted", "rounded once", "a rounded table", "returned"])
def test_constants_that_round_once_or_not(what):
    net = Constants(what).eval()
    model = capture(net, torch.zeros(1, 4))
    assert model.captured.programs.missing is None
    low, high = -torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    site = model["output.1" if what == "returned" else "output"]
    found = prove(Bounds(site, over=box(low.tolist(), high.tolist())), semantics="float32", time_limit=10).theorem
    x = torch.cartesian_prod(*[torch.tensor([-1.0, -0.3, 0.7, 1.0])] * 4)
    with torch.no_grad():
        y = net(x)[1] if what == "returned" else net(x)
    y = y.double().numpy().reshape(len(y), *found.range.low.shape)
    assert (y >= found.range.low).all() and (y <= found.range.high).all()
    if what == "returned":  # what is returned has been rounded, and the graph's number hasn't
        exact = [float(torch.tensor(0.1)) * k for k in range(1, 21)]
        assert (y[0].ravel() != exact).any()


@pytest.mark.parametrize(
    "what", ["sine", "rounded twice", "no float32", "quotient", "flushed", "long sums", "scaled sums"]
)
def test_constants_that_round_more_are_refused(what):
    model = capture(Constants(what).eval(), torch.zeros(1, 4))
    with pytest.raises(ClaimError, match=r"of constants.*keep the result as a buffer \(the module, test_deployed.py:"):
        prove(Bounds(model["output"], over=ball(torch.zeros(4), 0.1)), semantics="float32", time_limit=5)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["add", "sub", "rsub", "mul", "div"]),
    st.floats(width=32),
    st.floats(width=32),
    st.integers(-30, 30),
)
def test_constants_are_accepted_where_one_rounding_explains_them(name, x, y, k):
    """In exact rationals; 2^k is what is divided by now and then."""
    y = 2.0**k if name == "div" and k % 2 else y
    op = getattr(torch.ops.aten, name).Tensor
    a, b = (torch.tensor(v, dtype=torch.float64) for v in (x, y))
    value = op(a, b)
    if not _rounded_once(name, (a, b), {}, value):
        assert (
            name == "div"
            or not all(map(math.isfinite, (x, y, value)))
            or any(0 < abs(v) < 2.0**-126 for v in (x, y, value.item()))
            or abs(value) > 3e38
            or Fraction(value.item()) != exactly(name, x, y)
        )
        return
    if math.isfinite(value):
        assert Fraction(value.item()) == exactly(name, x, y)
        assert float(op(a.float(), b.float())) == float(value.float())


def exactly(name: str, x: float, y: float) -> Fraction:
    x, y = Fraction(x), Fraction(y)
    return {
        "add": lambda: x + y,
        "sub": lambda: x - y,
        "rsub": lambda: y - x,
        "mul": lambda: x * y,
        "div": lambda: x / y,
    }[name]()


def test_constants_that_float32_does_not_round_again_are_no_obstacle():
    class Masked(nn.Module):
        def forward(self, x):
            mask = torch.triu(torch.ones(4, 4), 1) > 0
            return torch.where(torch.arange(4) < 2, x.masked_fill(mask, -1e9), 0.1).softmax(-1)

    model = capture(Masked().eval(), torch.zeros(1, 4, 4))
    assert model.captured.programs.missing is None


@pytest.mark.parametrize(("what", "said"), [
    ("scale", "attention with these.*scale the queries"), ("one key", "attention to one key.*write it with softmax"),
    ("half", "bfloat16"), ("double", "float64"), ("cos", "cos, whose.*a row in lemma O4"), ("folded", "sin of constants.*buffer"),
])  # fmt: skip
def test_what_is_not_covered_is_refused_by_name(what, said):
    """With the line, and what to do."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)[:, None]
            if what in ("scale", "one key"):
                keys = y if what == "one key" else torch.cat([y, -y], 1)
                return F.scaled_dot_product_attention(y, keys, keys, scale=1.5 if what == "scale" else None)[:, 0]
            if what == "folded":
                return self.a(x) + torch.arange(4.0).sin()
            return self.a(x).cos() if what == "cos" else self.a(x)

    kind = {"half": torch.bfloat16, "double": torch.float64}.get(what, torch.float32)
    model = capture(Net().to(kind).eval(), torch.zeros(1, 4, dtype=kind))
    claim = Bounds(model["output"], over=ball(torch.zeros(4), 0.1))
    with pytest.raises(ClaimError, match=said if kind != torch.float32 else f"{said}.*test_deployed.py:"):
        prove(claim, semantics="float32", time_limit=5)


def forms(net, x):
    """What torch makes of an input, in several ways."""
    yield net(x)
    yield torch.cat([net(part) for part in x.split(len(x) // 7)])
    with torch.no_grad():
        yield torch.cat([net(row[None]) for row in x[:50]] + [net(x[50:])])


@pytest.mark.parametrize("name", [*BOXES, "head"])
def test_torch_contradicts_no_bound(name):
    net, _, claim = tokens_claim() if name == "head" else box_claim(name)
    outcome = prove(claim, semantics="float32", time_limit=30 if name in ("head", "fused") else 5)
    assert outcome.theorem is not None and outcome.theorem.claim.semantics == "float32"
    assert {"torch:float32", "capture"} <= {*outcome.theorem.axioms}
    low, high = (torch.from_numpy(end) for end in outcome.theorem.range)
    if name == "head":
        x = torch.cartesian_prod(*[torch.arange(5)] * 4)
    else:
        box = outcome.theorem.claim.domain
        x = torch.from_numpy(np.random.default_rng(0).uniform(box.low, box.high, (100_000, len(box.low)))).float()
    with torch.no_grad():
        for y in forms(net, x):
            assert (y.double() >= low).all() and (y.double() <= high).all()


@pytest.mark.parametrize("name", ["fused", "transposed", "twice", "constants"])
def test_what_real_arithmetic_gives_is_not_what_programs_give(name):
    """Planted: a range that holds of the reals, and that some torch contradicts, is proved of them alone."""
    make, width = {"fused": (lambda: Query(4), 4), "transposed": (Transposed, 12), "twice": (Twice, 64),
                   "constants": (lambda: Constants("rounded once"), 4)}[name]  # fmt: skip
    net, x = seeded(make), torch.linspace(-1, 1, width)
    model, over = capture(net, x[None]), ball(x, 0.0)
    low, high = prove(Bounds(model["output"], over=over), time_limit=5).theorem.range
    claim = Bounds(model["output"], over=over, at_least=(low - 1e-10).tolist(), at_most=(high + 1e-10).tolist())
    assert prove(claim, time_limit=5).verdict == "PROVED"
    assert prove(claim, semantics="float32", time_limit=5).verdict != "PROVED"
    with torch.no_grad():
        y = net(x[None]).double().numpy().reshape(low.shape)
    assert ((y < low - 1e-10) | (y > high + 1e-10)).any()


class FusedHead(Head):
    """The same head, by torch's fused kernel."""

    def forward(self, ids):
        x = self.embed(ids) + self.place
        h = self.first(x)
        x = x + self.o(F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h), is_causal=True))
        x = x + self.down(self.act(self.up(self.second(x))))
        return self.out(x)[:, -1]


def test_shares_of_fused_attention_hold_what_torch_counts():
    """Nearly all inputs are decided; each that is left open is one whose lead is as small as rounding."""
    net, plain = seeded(FusedHead), seeded(Head)
    model = capture(net, torch.zeros(1, 4, dtype=torch.long))
    x, ids = tokens("x", length=4, vocab=5), torch.cartesian_prod(*[torch.arange(5)] * 4)
    found = prove(Accuracy(model["output"], equals=x[3], over=x), semantics="float32", time_limit=60).theorem.right
    with torch.no_grad():
        for y in (net(ids), plain(ids), torch.cat([net(row[None]) for row in ids])):
            right = int((y.argmax(-1) == ids[:, 3]).sum())
            assert found.low <= right <= found.high
    assert found.high - found.low <= 2


@pytest.mark.parametrize("part", range(3))
def test_a_file_names_rows_of_fused_attention_that_are_such(part):
    model = capture(seeded(Query, 4), torch.zeros(1, 4))
    claim = Bounds(model["output"], over=ball(torch.zeros(4), 0.5))
    contents = container.unpack(prove(claim, semantics="float32", time_limit=10).certificate)
    document, weights = json.loads(contents["certificate.json"]), contents["weights.safetensors"]
    fused = document["claim"]["graph"]["module"]["fused"]
    assert [len(rows) for rows in fused] == [1, 1, 1]
    for wrong, said in ((fused[part][0] + 1, "is none"), (10**6, "none of the module's rows")):
        changed = json.loads(json.dumps(document))
        changed["claim"]["graph"]["module"]["fused"][part][0] = wrong
        with pytest.raises(Rejected, match=said):
            check(forge.file(changed, weights))
    assert check(forge.file(document, weights)).claim.semantics == "float32"


def test_a_file_about_programs_of_another_type_is_refused():
    _, _, claim = box_claim("normed")
    contents = container.unpack(prove(claim, semantics="float32", time_limit=2).certificate)
    document, weights = json.loads(contents["certificate.json"]), contents["weights.safetensors"]
    assert check(forge.file(document, weights)).claim.semantics == "float32"
    document["claim"]["graph"]["compared"]["dtype"] = "torch.bfloat16"
    with pytest.raises(Rejected, match="this one is"):
        check(forge.file(document, weights))


def test_what_is_printed_of_programs_can_be_read_back():
    """By a reader who has the documents alone; and it sees another number of nodes, or another normalisation."""
    _, _, claim = box_claim("normed")
    outcome = prove(claim, semantics="float32", time_limit=20)
    lines = printed(outcome.theorem)
    assert false_lines(lines, outcome.certificate) == []
    rows = re.search("the first ([0-9]+) nodes", lines)[1]
    norm = re.search("of these number ([0-9]+)", lines)[1]
    for old, new in (
        (f"the first {rows} nodes", f"the first {int(rows) - 1} nodes"),
        (f"of these number {norm}", f"of these number {int(norm) - 1}"),
        ("in float32, of inputs", "of inputs"),
    ):
        assert lines.count(old) == 1
        assert false_lines(lines.replace(old, new), outcome.certificate)
    without = "\n".join(line for line in lines.split("\n") if "the module computes" not in line)
    assert false_lines(without, outcome.certificate)


def test_what_is_printed_of_fused_attention_can_be_read_back():
    model = capture(seeded(Query, 4), torch.zeros(1, 4))
    claim = Bounds(model["output"], over=ball(torch.zeros(4), 0.5))
    outcome = prove(claim, semantics="float32", time_limit=10)
    lines = printed(outcome.theorem)
    assert false_lines(lines, outcome.certificate) == []
    said = re.search("; by fused attention number ([0-9]+), number [0-9]+, number [0-9]+", lines)
    for new in ("", said[0].replace(said[1], str(int(said[1]) - 1))):
        assert false_lines(lines.replace(said[0], new), outcome.certificate)


@pytest.mark.parametrize("width", [4, 32])
def test_a_layer_norm_is_one_operation_of_what_goes_in(width):
    """Whether the matrix that centres stands in the graph or beside the weights. Far from zero, torch's error grows with
    the mean, which what is centred has lost."""
    net = nn.LayerNorm(width).eval()
    model = capture(net, torch.zeros(1, width))
    over = ball(torch.linspace(-1, 1, width), 0.0)
    job = problem(Bounds(model["output"], over=over))
    (norm,) = [n for n in job.claim.graph.nodes if n.op == "rounding" and n.attr[0] == "norm"]
    source = job.claim.graph.nodes[norm.args[1]]
    assert source.op == "input" or (source.op == "rounding" and source.attr[0] == "input")


def test_accuracy_is_the_share_of_leads():
    """What leads in every program is right; where two outputs tie in some program, the input is open, whatever torch's
    argmax says; a mechanism value that is no output is wrong."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding.from_pretrained(torch.tensor([[0.5, 0.1], [0.25, 0.3], [1.0, 1.0]]))

        def forward(self, ids):
            y = self.e(ids).sum(1)
            return torch.cat([y, y[:, :1] * 0.1 + 0.2], -1)

    net = Tied().eval()
    x = tokens("x", length=2, vocab=3)
    model = capture(net, torch.zeros(1, 2, dtype=torch.long))
    ids = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        y = net(ids)
    for equals, meant in ((0, 0), (Mod(x[0] + x[1], 3), ids.sum(1) % 3), (x[0] + x[1], ids.sum(1))):
        found = prove(Accuracy(model["output"], equals=equals, over=x), semantics="float32", time_limit=30).theorem
        assert found.claim.semantics == "float32" and "torch:float32" in found.axioms
        others = y.scatter(1, torch.as_tensor(meant).expand(9).clamp(max=2)[:, None], -torch.inf).amax(1)
        lead = y[torch.arange(9), torch.as_tensor(meant).expand(9).clamp(max=2)] - others
        possible = torch.as_tensor(meant).expand(9) < 3
        assert found.right.low == int((possible & (lead > 1e-6)).sum())
        assert found.right.high == int((possible & (lead > -1e-6)).sum())
    assert int((y[:, 0] == y[:, 1]).sum()) == 1 and found.right.low <= found.right.high
    claim = Accuracy(model["output"], equals=0, over=x, margin=Fraction(1, 4))
    margin = prove(claim, semantics="float32", time_limit=30).theorem.right
    assert margin.high == int((y[:, 0] - torch.maximum(y[:, 1], y[:, 2]) > 0.25 - 1e-6).sum())
    with pytest.raises(ClaimError, match="best"):
        prove(Accuracy(model["output"], equals=0, over=x, margin="best", at_least=1), semantics="float32", time_limit=9)


class Quotient(nn.Module):
    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def forward(self, ids):
        return ids / self.by


def test_a_table_of_token_ids_is_computed_by_a_program():
    """1 / c, whose quotients are float32 numbers over the reals, and others of float32's c."""
    c, one = 0.008664643867549253, np.float32(1)
    assert np.float32(1 / c) == 1 / c != one / np.float32(c)
    example = torch.zeros(1, 1, dtype=torch.long)
    exact, rounded = (capture(Quotient(by).eval(), example, vocab=3) for by in (0.25, c))
    assert exact.captured.programs.missing is None
    with pytest.raises(ClaimError, match="div of token ids"):
        prove(Bounds(rounded["output"], over=tokens("x", length=1, vocab=3)), semantics="float32", time_limit=20)

"""Claims about the inside of a network: what is proved is what brute force finds, and false claims are refuted."""

import numpy as np
import pytest
import sympy
import torch
from sympy import And, Eq, Max, Mod, Piecewise, Rational, Sum, cos, floor, pi, sign, sin, symbols
from torch import nn

from mechverify import Bounds, Cases, Holds, Within, ball, capture, kernel, lookup, prove, tokens
from mechverify.claims import ClaimError
from mechverify.kernel import Rejected
from mechverify.kernel.core.document import captured
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.statement.sentence import state

P = 7
A, B = np.mgrid[:P, :P]
K = symbols("k", integer=True)


class Pair(nn.Module):
    """Two tokens; a lookup of both, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(P, 4)
        self.head = nn.Linear(8, 5)

    def forward(self, ids):
        return self.head(torch.relu(self.embed(ids)).flatten(1))


@pytest.fixture(scope="module")
def pair():
    module = Pair().eval().double()
    ids = torch.from_numpy(np.stack([A, B], -1).reshape(-1, 2))
    values = module(ids).detach().numpy().reshape(P, P, 5)
    return capture(module, torch.tensor([[1, 2]])), values, module.embed.weight.detach().numpy()


x = tokens("x", length=2, vocab=P)
TABLE = [0.5, 1, 2, -0.25, 9]
MECHANISMS = {
    "a wave": (cos(2 * pi * 3 * (x[0] + x[1] - 2) / P), np.cos(6 * np.pi * (A + B - 2) / P)),
    "a sum of waves": (Sum(sin(2 * pi * K * x[0] / P) / K, (K, 1, 3)), sum(np.sin(2 * np.pi * k * A / P) / k for k in (1, 2, 3))),
    "modular": (Mod(x[0] * x[1] + 2, 5), (A * B + 2) % 5),
    "modular, cubed": (Mod(x[0] ** 3 - x[1], P) / 3, ((A**3 - B) % P) / 3),
    "a step": (sign(x[0] - x[1]) + Max(x[0], 3), np.sign(A - B) + np.maximum(A, 3)),
    "pieces": (Piecewise((x[0], x[1] > 3), (floor(x[0] / 2), Eq(x[0], x[1])), (-1, True)),
               np.where(B > 3, A, np.where(A == B, A // 2, -1))),
    "a lookup": (lookup(TABLE, Mod(x[0] + x[1], 5)), np.array(TABLE)[(A + B) % 5]),
    "an exact lookup": (lookup([Rational(1, 3), 2], Mod(x[1], 2)), np.where(B % 2, 2, 1 / 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_deviation_is_what_brute_force_finds(pair, name):
    model, values, _ = pair
    mechanism, expected = MECHANISMS[name]
    site = model["output"]
    outcome = prove(Within([site[0], site[3]], mechanism, over=x))
    range_ = kernel.check(outcome.certificate).range
    truth = np.stack([values[..., i] - expected for i in (0, 3)])
    assert range_.low == pytest.approx(truth.min((1, 2)), abs=1e-12) and (range_.low <= truth.min((1, 2)) + 1e-15).all()
    assert range_.high == pytest.approx(truth.max((1, 2)), abs=1e-12)
    eps = float(np.abs(truth).max())
    assert prove(Within([site[0], site[3]], mechanism, over=x, eps=eps + 1e-9)).verdict == "PROVED"
    for limit in (0.9 * eps, eps - 1e-9):
        refuted = prove(Within([site[0], site[3]], mechanism, over=x, eps=limit))
        assert refuted.verdict == "REFUTED"
        a, b = refuted.theorem.tokens[0]
        assert np.abs(truth[:, a, b]).max() > limit
        said = "\n".join(text for _, text in state(refuted.theorem).examples)
        assert f"there output[{(0, 3)[np.abs(truth[:, a, b]).argmax()]}] is about " in said


def test_indices_may_depend_on_tokens(pair):
    model, values, embed = pair
    site = model["output"]
    picked = np.take_along_axis(values, ((A + B) % 5)[..., None], 2)[..., 0]
    range_ = prove(Bounds(site[Mod(x[0] + x[1], 5)], over=x)).theorem.range
    assert (range_.low[0], range_.high[0]) == pytest.approx((picked.min(), picked.max()), abs=1e-12)
    rows = prove(Within(model["embed"][Piecewise((0, x[0] < x[1]), (1, True)), 2], 0, over=x)).theorem.range
    smaller = np.where(A < B, embed[A][..., 2], embed[B][..., 2])
    assert (rows.low[0], rows.high[0]) == pytest.approx((smaller.min(), smaller.max()), abs=1e-12)


def test_a_guard_on_tokens_is_exact(pair):
    model, values, _ = pair
    site = model["output"]
    margin = (values[..., 0] - values[..., 1])[A > B]
    for slack, verdict in ((1e-9, "PROVED"), (-1e-9, "REFUTED")):
        claim = Holds(site[0] >= site[1] + float(margin.min() - slack), over=x, given=x[0] > x[1])
        assert prove(claim).verdict == verdict
    everywhere = (values[..., 0] - values[..., 1]).min()
    assert everywhere < margin.min() - 1e-3  # the guard matters
    assert prove(Holds(site[0] >= site[1] + float(margin.min() - 1e-9), over=x)).verdict == "REFUTED"
    guards = [
        (x[0] > x[1], A > B),
        (x[0] >= x[1] + 2, A >= B + 2),
        (Eq(x[0] + x[1], 6), A + B == 6),
        (x[0] <= 2, A <= 2),
    ]
    for guard, inside in guards:  # every entry, and the tokens at the guard's edge
        off = values - values[..., ::-1]
        range_ = prove(Within(site, [site[4 - i] for i in range(5)], over=x, given=guard)).theorem.range
        assert range_.low == pytest.approx(off[inside].min(0), abs=1e-12)
        assert range_.high == pytest.approx(off[inside].max(0), abs=1e-12)
    both = Holds(And(site[0] >= site[1] - 3, site[2] <= site[3] + 9), over=x, given=[x[0] > x[1], x[1] >= 1])
    assert prove(both).verdict == "PROVED"
    with pytest.raises(ClaimError, match="no input of the domain"):
        prove(Holds(site[0] >= 9, over=x, given=[x[0] > x[1], x[1] > x[0]]))


def test_of_more_tokens_than_two_the_bounds_hold():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(9, 2)).eval().double()
    y = tokens("y", length=3, vocab=4)
    model = capture(module, torch.tensor([[1, 2, 3]]))
    ids = np.stack(np.meshgrid(*[range(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    truth = module(torch.from_numpy(ids)).detach().numpy()[:, 0] - ids.sum(1) % 3
    range_ = prove(Within(model["output"][0], Mod(y[0] + y[1] + y[2], 3), over=y)).theorem.range
    assert range_.low[0] <= truth.min() and truth.max() <= range_.high[0]
    assert range_.high[0] - range_.low[0] < 2 + 1e-6 + np.ptp(truth + ids.sum(1) % 3)
    outcome = prove(
        Within(model["output"][0], Mod(y[0] + y[1] + y[2], 3), over=y, eps=float(np.abs(truth).max()) + 0.01)
    )
    assert outcome.verdict == "PROVED"  # by branching on tokens
    assert prove(Within(model["output"][0], Mod(y[0] + y[1] + y[2], 3), over=y,
                        eps=float(np.abs(truth).max()) - 0.01)).verdict == "REFUTED"  # fmt: skip


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(5, 3)

    def forward(self, ids):
        e = self.embed(ids)
        return e[:, 0] * e[:, 1]


def test_three_tokens_are_never_taken_for_two():
    """Two tokens are read by the model, and another one by a guard, by an index or by a number."""
    module = Three().eval().double()
    model, z = capture(module, torch.tensor([[1, 2, 3]])), tokens("z", length=3, vocab=5)
    ids = np.stack(np.meshgrid(*[range(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    values, site = module(torch.from_numpy(ids)).detach().numpy(), model["output"]
    a, b, c = ids.T
    cases = {
        "guard": (Within(site, 0, over=z, given=z[1] > z[2]), values[b > c]),
        "guard on two others": (Within(site, 0, over=z, given=z[1] + z[2] >= 6), values[b + c >= 6]),
        "index": (Within(site, lookup([0, 3, -1, 2, 7], z[2]), over=z), values - np.array([0, 3, -1, 2, 7])[c, None]),
        "number": (Within(site, Mod(z[2] + 3, 4), over=z), values - ((c + 3) % 4)[:, None]),
        "of all": (Within(site, Mod(z[0] + z[1] + z[2] + 1, 3), over=z), values - ((a + b + c + 1) % 3)[:, None]),
        "index of all": (Within(site, model["embed"][1, Mod(z[0] + z[2], 3)], over=z),
                         values - module.embed.weight.detach().numpy()[b, (a + c) % 3][:, None]),
    }  # fmt: skip
    for name, (claim, truth) in cases.items():
        range_ = prove(claim).theorem.range
        assert (range_.low <= truth.min(0) + 1e-12).all() and (truth.max(0) <= range_.high + 1e-12).all(), name


def test_over_a_box():
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval().double()
    model = capture(module, torch.zeros(1, 2, dtype=torch.float64))
    box = ball(np.zeros(2), 1.0)
    points = torch.rand(20_000, 2, dtype=torch.float64) * 2 - 1
    off = module(points).detach().numpy()[:, 0] - (np.abs(points[:, 0].numpy()) + points[:, 1].numpy() ** 2)
    mechanism = sympy.Abs(box[0]) + box[1] ** 2
    range_ = prove(Within(model["output"], [mechanism], over=box)).theorem.range
    assert range_.low[0] <= off.min() and off.max() <= range_.high[0]
    hidden = model["1"]
    assert prove(Holds(hidden[0] >= -1e-6, over=box)).verdict == "PROVED"
    assert prove(Holds(hidden[0] >= 0, over=box), solver=False).verdict == "PROVED"  # a known range is not rounded
    assert prove(Holds(hidden[0] >= 0.5, over=box)).verdict == "REFUTED"


def test_everything_wrong_is_named_at_once_with_its_line(pair):
    model, *_ = pair
    site = model["output"]
    with pytest.raises(ClaimError) as error:
        Within(site[2], sympy.gamma(x[0]) + site[Mod(x[0], 9)] + symbols("z") + Mod(site[1], 2), over=x)
    said = str(error.value)
    assert said.startswith(f"{__file__}, line ")
    for part in (
        "gamma(x0)",
        "output[Mod(x0, 9)]: the index reaches from 0 to 8",
        "z: is none of",
        "Mod(output[1], 2)",
    ):
        assert part in said
    for make, told in (
        (lambda: Holds([site[0] > 1, x[0] + 1], over=x), r"is strict[^$]*is no condition"),
        (lambda: site[1, 2], r"output\[1, 2\]: the site has shape \(5,\)"),
        (lambda: Within(site[0], lookup([1, 2], x[0]), over=x), "the axis has 2 entries"),
        (lambda: Within(site, [1, 2], over=x), "has 2 expressions, actual has 5 entries"),
        (lambda: Within(site[0], 0, over=x, eps=-1), "eps=-1 is negative"),
        (lambda: Holds([site[0] >= 0, site[0] == site[1]], over=x), r"predicate, number 2, is just False.*Eq\(a, b\)"),
        (lambda: Holds(site[0] != site[1], over=x), "is just True"),
        (lambda: Holds(site[0] >= 0, over=x, given=x[0] == x[1]), "given, number 1, is just False"),
        (lambda: Cases(x[0] == 0, x[0] > 0, over=x), "cases, number 1, is just False"),
        (lambda: Within([], 0, over=x), "nothing is claimed"),
        (lambda: Within(site[0], Sum(K, (K, 1, x[0])), over=x), "integer limits"),
    ):
        with pytest.raises(ClaimError, match=told):
            make()


def test_a_formula_is_read_off_the_graph(pair):
    model, *_ = pair
    outcome = prove(Within(model["output"][2], Mod(x[0] * x[1], 5) * pi, over=x))
    text = state(outcome.theorem).claim
    assert "output[2]" in text and "pi" in text and "((x0 * x1) mod 5)" in text
    row = prove(Bounds(model["embed"][1, Mod(x[0], 4)] - model["output"][Mod(x[1], 5)], over=x)).theorem
    assert "embed[1, :][(x0 mod 4)]" in state(row).claim and "output[(x1 mod 5)]" in state(row).claim


def read_with(row: list) -> None:
    rows = [["constant", [], [[2], ["0x0.0p+0", "0x1.0000000000000p+0"]]], ["integer", [], 1], ["integer", [], 2],
            ["tokens", [], None], row]  # fmt: skip
    replayed = {"inputs": 0, "difference": "0x0.0p+0", "module": "m"}
    captured(Graph(2, (0, 1)), {}, Reader({"nodes": rows, "sites": [["output", 4]], "replayed": replayed}, "graph"), [])


@pytest.mark.parametrize(("row", "message"), [
    (["pick", [1, 0], None], "takes a real axis and an integer"), (["number", [0], None], "takes an integer"),
    (["number", [], None], "'number' on 0 operands"), (["pi", [0], None], "'pi' on 1 operands"),
    (["number", [1], 3], "no attribute"), (["pick", [0, 2], None], "the index reaches from 2 to 2, the axis has 2"),
])  # fmt: skip
def test_rows_that_are_no_expressions_are_rejected(row, message):
    for good in (["pick", [0, 1], None], ["number", [1], None], ["pi", [], None]):
        read_with(good)
    with pytest.raises(Rejected, match=message):
        read_with(row)

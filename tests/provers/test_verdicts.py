"""Verdicts at exact thresholds, of rounded domains, of what float64 can't replay; and that nothing proved is lost."""

import json
import re
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from sympy import Eq, Max, Rational
from torch import nn
from typer.testing import CliRunner

from benchmarks.campaigns.search import EXAMPLES, attention_claim, judged
from mechverify import Accuracy, Bounds, Holds, Within, ball, box, capture, lookup, tokens, transformer
from mechverify.claims.errors import ClaimError
from mechverify.claims.numbers import number
from mechverify.cli import app
from mechverify.kernel import Rejected, check
from mechverify.kernel.core.elsewhere import exactly
from mechverify.kernel.core.neighbours import float_above, float_below
from mechverify.kernel.replay.points import enclosed
from mechverify.provers import prove
from mechverify.provers.ranges import find
from mechverify.provers.ranges.known import Found
from mechverify.provers.ranges.narrow import Narrow
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import Reached
from mechverify.provers.ranges.smt import Solver
from mechverify.provers.ranges.whole import Whole
from mechverify.report.statement import lines
from tests.independent.sentence import false_lines
from tests.models import as_bytes, random_weights


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.what for e in EXAMPLES])
def test_examples(example):
    assert example.run() == example.after


def test_random_claims_have_true_verdicts():
    told = judged(40, seed=3)
    assert told["false"] == told["error"] == 0
    assert told["PROVED"] > 5 and told["REFUTED"] > 5


@pytest.mark.parametrize(
    "value",
    [np.float32(0.7), torch.tensor(0.7), np.array(0.7, np.float32), sympy.Float(np.float32(0.7)), float(np.float32(0.7))],
    ids=["numpy", "torch", "array", "sympy", "float"],
)  # fmt: skip
def test_one_reading_of_machine_numbers(value):
    """Wherever it stands: the number that it holds."""
    held = Fraction(float(np.float32(0.7)))
    assert number(value) == held
    x = box([0], [value])
    assert Fraction(x.high[0][0]) == held and x.inner is None
    assert ball([0], value).high[0][0] == held
    one = box([0], [1])
    assert Bounds([one[0]], over=one, at_most=value).at_most == [held]
    assert Bounds([one[0]], over=one, at_most=[value]).at_most == [held]
    assert Within([one[0]], 0, over=one, eps=value).eps == held


def test_text_fractions_and_rationals_are_exact():
    for value in ("7/10", "0.7", Fraction(7, 10), Rational(7, 10)):
        assert number(value) == Fraction(7, 10)
    t = tokens("t", length=1, vocab=2)
    table = lookup(["0.1", "0.7"], t[0])  # 7/10 exceeds the float64 0.7, by 4e-17
    assert prove(Bounds([table], over=t, at_most=0.7)).verdict == "REFUTED"
    assert prove(Bounds([table], over=t, at_most=np.nextafter(0.7, 1))).verdict == "PROVED"
    for value in ("x", np.float32("nan"), "1e9999", sympy.pi, None, "inf", sympy.oo):
        with pytest.raises(ValueError, match="not a number"):
            number(value)


def test_shares_and_margins_are_read_likewise(small_model):
    model = transformer(small_model)
    x = tokens("x", length=3, vocab=6)
    claim = Accuracy(model.logits[-1], equals=Max(*x), over=x, at_least=np.float32(0.7), margin=np.float32(0.1))
    assert claim.at_least == Fraction(float(np.float32(0.7))) and claim.margin == Fraction(float(np.float32(0.1)))


def test_float_ends_are_the_neighbours():
    for value in (Fraction(1, 3), -Fraction(1, 3), Fraction(1, 10**400), Fraction(2**53 + 1), Fraction(10) ** 309):
        low, high = float_below(value), float_above(value)
        assert low < value < high and np.nextafter(low, np.inf) == high
    assert float_below(Fraction(1, 2)) == float_above(Fraction(1, 2)) == 0.5
    assert float_below(-np.inf) == float_above(-np.inf) == -np.inf


def test_corners_are_rounded_outwards_and_counterexamples_are_the_users():
    x = box([Fraction(1, 3)], [Fraction(2, 3)])
    assert Fraction(x.low[0][0]) < Fraction(1, 3) and Fraction(x.high[0][0]) > Fraction(2, 3)
    assert Fraction(x.own[0][0, 0]) > Fraction(1, 3) and Fraction(x.own[1][0, 0]) < Fraction(2, 3)
    outcome = prove(Holds(x[0] <= 0.5, over=x))
    assert outcome.verdict == "REFUTED" and x.own[0][0, 0] <= outcome.theorem.points[0, 0] <= x.own[1][0, 0]
    outcome = prove(Holds(x[0] <= Rational(2, 3), over=x))  # true of the user's box, false of the rounded one
    assert outcome.verdict == "UNKNOWN" and any("rounded outwards" in r for r in outcome.reasons)
    around = ball([0.1, 0.2], "0.1")
    assert all(Fraction(v) <= Fraction(c) + Fraction(1, 10) for v, c in zip(around.own[1][0], (0.1, 0.2), strict=True))
    outcome = prove(Holds(around[0] + around[1] <= 0.3, over=around))
    point = outcome.theorem.points[0]
    assert outcome.verdict == "REFUTED" and (around.own[0] <= point).all() and (point <= around.own[1]).all()


def test_a_domain_without_a_float_point_is_never_refuted():
    x = box(["1/3"], ["1/3"])
    assert prove(Holds(x[0] >= 1, over=x)).verdict == "UNKNOWN"
    assert prove(Holds(x[0] <= 1, over=x)).verdict == "PROVED"


def test_sums_of_floats_and_fractions_are_not_rounded():
    """sympy makes a float of 1/3 - 0.3, which is not the difference."""
    x = box([0], [1])
    claim = Holds(x[0] + 0.3 <= Rational(1, 3), over=x)
    problem = RangeProblem.of(claim, "real")
    exact = exactly(problem.job, lambda model: enclosed(problem.job, np.zeros((1, 0), int), np.zeros((1, 1)), model))[0]
    assert abs(exact.low[0, 0] - (Fraction(1, 3) - Fraction(0.3))) < Fraction(1, 10**30)


@pytest.mark.parametrize("seed", range(2))
def test_the_search_finds_no_part_empty(seed):
    """Rounding makes an interval and its table contradict each other; a false claim is refuted, a true one proved."""
    assert prove(attention_claim(seed, 1e-3)).verdict == "PROVED"
    assert prove(attention_claim(seed, -1e-3)).verdict == "REFUTED"


def test_conditions_at_the_boundary_and_beyond():
    x = box([0], [1])
    assert prove(Holds(x[0] >= 1, over=x, given=[x[0] >= 1])).verdict == "PROVED"
    refuted = prove(Holds(x[0] <= Rational(1, 2), over=x, given=[x[0] >= 1]))
    assert refuted.verdict == "REFUTED" and refuted.theorem.points.tolist() == [[1.0]]
    with pytest.raises(ClaimError, match="nothing is claimed"):
        prove(Holds(x[0] <= 2, over=x, given=[x[0] >= 1 + 2.0**-40]))


def test_huge_and_tiny_boxes():
    class Triple(nn.Module):
        def forward(self, x):
            return 3 * x

    model = capture(Triple().eval(), torch.zeros(1, 1, dtype=torch.float64))
    for low, high, most, verdict in (
        (-1e300, 1e300, 3e300, None), (-1e300, 1e300, 4e300, "PROVED"), (-1e300, 1e300, 1e300, "REFUTED"),
        (-1.7e308, 1.7e308, 1, "REFUTED"), (0, 5e-324, 15e-324, "PROVED"), (0, 5e-324, 5e-324, "REFUTED"),
    ):  # fmt: skip
        found = prove(Bounds(model["output"], over=box([low], [high]), at_most=most)).verdict
        assert found == verdict or (verdict is None and found in ("PROVED", "UNKNOWN"))  # 3 * 1e300 is nearly 3e300


def test_what_float64_leaves_open_is_replayed_exactly():
    """A maximum of many doubles a ball's radius each time."""
    x = box([0] * 64, [1] * 64)
    most = Max(*(x[i] / 3 for i in range(64)))
    for threshold, verdict in ((Rational(1, 3) - Rational(1, 10**12), "REFUTED"), (Rational(1, 2), "PROVED")):
        outcome = prove(Bounds([most], over=x, at_most=threshold), method="linear")
        assert outcome.verdict == verdict
        assert check(outcome.certificate).verdict == verdict  # the kernel falls back by itself


def test_the_exact_replay_is_paid_for():
    outcome = prove(Bounds([(x := box([0], [1]))[0] / 3], over=x, at_most=Fraction(1, 3) - Fraction(1, 10**17)))
    assert outcome.verdict == "REFUTED"
    with pytest.raises(Rejected, match="units of work"):
        check(outcome.certificate, limit=outcome.theorem.work - 1)
    check(outcome.certificate, limit=outcome.theorem.work)


def test_a_forged_refutation_stays_refused():
    """Exact arithmetic decides for the claim as well: x/3 at 1 does not exceed 1/3."""
    from mechverify.certificate.write import write

    x = box([0], [1])
    claim = Bounds([x[0] / 3], over=x, at_most=Fraction(1, 3))
    problem = RangeProblem.of(claim, "real")
    proof = {"rule": "point", "inputs": [[[], [(1.0).hex()]]]}
    forged = write(problem.claim.stated, claim.output.model.data, proof, "REFUTED", problem.claim.everything)
    with pytest.raises(Rejected, match="not refuted"):
        check(forged)


def test_what_the_kernel_does_not_confirm_is_unknown_with_what_was_proved(monkeypatch):
    x = box([0, 0], [1, 1])
    forged = {"rule": "point", "inputs": [[[], [(0.0).hex()] * 2]]}

    def lying(problem, known, budget, search=find.search):
        known.method = "linear"
        found = search(problem, known, budget)
        found.proof, found.broken = forged, True
        return found

    monkeypatch.setattr(find, "search", lying)
    outcome = prove(Bounds([x[0] * x[0] - x[0] * x[1]], over=x, at_most=1))
    assert outcome.verdict == "UNKNOWN" and any("doesn't confirm" in r for r in outcome.reasons)
    assert 1 <= outcome.theorem.range.high[0] < 2  # kept

    def dying(problem, *_):
        raise RuntimeError("z3 fell over")

    monkeypatch.undo()
    monkeypatch.setattr(Solver, "prove", dying)
    outcome = prove(Bounds([x[0] * x[0] - x[0] * x[1]], over=x, at_least=-Rational(1, 2)), method="interval")
    assert outcome.verdict == "UNKNOWN" and any("z3 fell over" in r for r in outcome.reasons)
    assert outcome.theorem.range.low[0] >= -1.1


def test_a_prover_that_fails_late_leaves_what_those_before_it_found(monkeypatch):
    def dying(*_):
        raise RuntimeError("no cells today")

    x = box([0, 0], [1, 1])
    claim = Bounds([x[0] * x[0] - x[0] * x[1]], over=x)
    linear = prove(claim, method="linear").theorem.range
    for prover in (Narrow, Reached):
        monkeypatch.setattr(prover, "prove", dying)
        outcome = prove(claim)
        assert outcome.verdict == "BOUNDED" and any("no cells today" in r for r in outcome.reasons)
        low, high = outcome.theorem.range
        assert linear.low[0] <= low[0] <= -1 / 4 and 1 <= high[0] <= linear.high[0]
        monkeypatch.undo()


def test_z3_is_asked_about_the_exact_threshold(tmp_path):
    """Between 1/10 and the float64 beside it lies nothing that breaks x/10 <= 1/10."""
    from mechverify.provers.ranges.solver import ask

    x = box([0], [1])
    claim = Bounds([x[0] * Rational(1, 10)], over=x, at_most=Rational(1, 10))
    outcome = prove(claim, smtlib=tmp_path)
    (query,) = tmp_path.iterdir()
    assert ask(query.read_text(), 60)[0] == "unsat"
    assert outcome.verdict in ("PROVED", "UNKNOWN") and not any(
        "breaks a threshold, but float64" in r for r in outcome.reasons
    )


def test_without_a_prover_a_best_bound_is_unknown_with_reasons(tmp_path):

    path = tmp_path / "two.safetensors"
    path.write_bytes(as_bytes(random_weights(np.random.default_rng(0), vocab=30, length=6, heads=2, layers=2)))
    model = transformer(path)
    x = tokens("x", length=6, vocab=30)
    for limit in (None, 30):
        outcome = prove(Accuracy(model.logits[-1], equals=Max(*x), over=x, at_least="best"), time_limit=limit)
        assert outcome.verdict == "UNKNOWN" and any("mixes the tokens" in r for r in outcome.reasons)
        assert any("too many to run" in r for r in outcome.reasons)
        assert not any("--time-limit" in r for r in outcome.reasons)


def test_bounds_that_bound_nothing_are_unknown(tmp_path):
    class Overflow(nn.Module):
        def forward(self, x):
            return x * 3

    model = capture(Overflow().eval(), torch.zeros(1, 1, dtype=torch.float64))
    outcome = prove(Bounds(model["output"], over=box([-1.7e308], [1.7e308])))
    assert outcome.verdict == "UNKNOWN" and outcome.reasons[0].startswith("nothing is bounded")


def test_where_nothing_is_bounded_it_is_told_what_inputs_reach(monkeypatch):
    def nothing(self, problem, known, budget):
        known.method = "interval"
        return Found(None, problem.claim.everything, False, ["nothing today"])

    monkeypatch.setattr(Whole, "prove", nothing)
    x = box([0, 0], [1, 1])
    outcome = prove(Bounds([x[0] * x[0] - x[0] * x[1]], over=x, at_most=2), method="interval", solver=False)
    assert outcome.verdict == "UNKNOWN" and not np.isfinite(outcome.theorem.range).any()
    said = dict(outcome.statement.rows())["entry 0"]
    assert not false_lines("\n".join(f"{a:>16}  {b}" for a, b in lines(outcome.theorem)), outcome.certificate)
    ends = re.fullmatch(
        r"unbounded to unbounded \(rounded outwards\); reached (\S+) to (\S+) \(rounded inwards\)", said
    )
    assert -1 / 4 <= float(ends[1]) < 0 and 0.9 < float(ends[2]) <= 1


def test_the_command_ends_with_3_and_keeps_what_is_proved(tmp_path):
    file = tmp_path / "claim.py"
    file.write_text(
        "from sympy import Rational\nfrom mechverify import Holds, box\n\n\ndef claim():\n"
        "    x = box(['0.3'], [1])\n    return Holds(x[0] >= Rational(3, 10), over=x)\n"
    )
    done = CliRunner().invoke(app, ["prove", str(file), "--out", str(tmp_path / "c.cert"), "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 3 and told["verdict"] == "UNKNOWN" and told["reasons"]
    assert check((tmp_path / "c.cert").read_bytes()).range.low[0] > -1e-6
    plainly = CliRunner().invoke(app, ["prove", str(file), "--out", str(tmp_path / "c.cert")]).stdout
    assert re.search(r"entry 0  \S+ to \S+ \(rounded outwards\); reached \S+e-17 to 0\.6999999 ", plainly), plainly


def test_exact_ties_are_left_open(tmp_path):
    """Outputs that always agree are wrong by the claim's strictness, but an enclosure of a difference that is exactly
    zero holds both signs, in exact arithmetic too: nothing is called right, and nothing wrong."""
    weights = random_weights(np.random.default_rng(1), vocab=4, length=2)
    weights["unembed.W_U"] = np.repeat(weights["unembed.W_U"][:, :1], weights["unembed.W_U"].shape[1], 1)
    weights["unembed.b_U"] = np.ones_like(weights["unembed.b_U"])
    path = tmp_path / "tie.safetensors"
    path.write_bytes(as_bytes(weights))
    x = tokens("x", length=2, vocab=4)
    outcome = prove(Accuracy(transformer(path).logits[-1], equals=Max(*x), over=x, at_least=1))
    assert outcome.verdict == "UNKNOWN" and tuple(outcome.theorem.right) == (0, 16)


class Saturated(nn.Module):
    """Two layers of attention with scores in the thousands, a mask of -1e4, and one logit less the largest of 63."""

    def __init__(self, n: int = 64, width: int = 16, vocab: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(vocab, width)
        self.embed.weight.data *= 100
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.unembed = nn.Linear(width, n)
        self.register_buffer("mask", torch.triu(torch.full((n, n), -1e4), 1))

    def forward(self, ids):
        x = self.embed(ids)
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q, k, v = qkv(x).chunk(3, -1)
            x = x + out((q @ k.transpose(-1, -2) / 4 + self.mask).softmax(-1) @ v)
        logits = self.unembed(x)[:, -1]
        return logits[:, :1] - logits[:, 1:].max(-1, keepdim=True).values


def test_a_point_that_float64_encloses_widely_is_replayed_in_exact_arithmetic():
    net = Saturated().eval()
    ids = torch.randint(0, 8, (1, 64), generator=torch.Generator().manual_seed(0))
    value = net(ids).item()
    x = tokens("x", length=64, vocab=8, allowed=[[int(i)] for i in ids[0]])
    output = capture(net, ids)["output"]
    problem = RangeProblem.of(Bounds(output, over=x), "real")
    (low, high), *_ = enclosed(problem.job, ids.numpy(), np.zeros((1, 0)), problem.job.semantics)
    assert high - low > 1e-3  # float64 leaves it open
    claim = Bounds(output, over=x, at_most=((3 * low + high) / 4).item())
    outcome = prove(claim)
    assert outcome.verdict == "REFUTED"
    attained = check(outcome.certificate).attained
    assert attained.high - attained.low < 1e-6 and abs(attained.low - value) < 0.1


def test_equations_at_points():
    x = box([0.5], [0.5])
    assert prove(Holds(Eq(x[0], Rational(1, 2)), over=x)).verdict == "PROVED"
    assert prove(Holds(Eq(x[0], Rational(1, 2) + Rational(1, 10**20)), over=x)).verdict == "REFUTED"

"""Attacks on shares of agreement: the graph of differences against the models' values, sets that exclude each other
against random sets and forms, shares against samples, parts that are wholly right, false claims and spoilt files."""

import copy
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Same, Share, box, capture, kernel, normal, prove
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.share import AllRight
from mechverify.kernel.differences.rule import jointly
from mechverify.kernel.relaxation import conditions, shares
from mechverify.kernel.relaxation.cases import Cases, cases, exclusive, relaxed
from mechverify.provers.accuracy.problem import AccuracyProblem
from tests.independent import boxes
from tests.independent.bounds import NotConfirmed
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.networks import evaluate
from tests.soundness.test_cut import parts

AR = Float64()
LEAF = {"rule": "relaxation", "to": 10, "signs": 6}


def twins(activation: type[nn.Module], seed: int, size: float = 1e-3, sizes: tuple[int, int, int] = (2, 5, 3)):
    torch.manual_seed(seed)
    n, hidden, m = sizes
    first = nn.Sequential(nn.Linear(n, hidden), activation(), nn.Linear(hidden, m)).double().eval()
    second = copy.deepcopy(first)
    with torch.no_grad():
        for p in second.parameters():
            p += size * torch.randn_like(p)
    return first, second


def outputs(models, points: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [m(torch.from_numpy(points)).numpy() for m in models]


def agreed(models, points: np.ndarray, eps: float | None = None) -> np.ndarray:
    a, b = outputs(models, points)
    return a.argmax(1) == b.argmax(1) if eps is None else np.abs(a - b).max(1) <= eps


def job_of(share: Share) -> Job:
    return AccuracyProblem.of(share, "real").job


def drawn(x, n: int = 200_000) -> np.ndarray:
    (low,), (high,) = ([np.asarray(v, float) for v in end] for end in (x.low, x.high))
    return np.random.default_rng(0).uniform(low, high, (n, len(low)))


def combined(condition: conditions.Condition, values: dict) -> np.ndarray:
    """What its steps make of the values of its atoms."""
    rows = []
    for step in condition.steps:
        if isinstance(step, int):
            rows.append(values[condition.rows[step]].ravel())
        else:
            rows.append((np.maximum if step[0] else np.minimum)(rows[step[1]], rows[step[2]]))
    return rows[-1]


X = box([-1, -0.5], [1, 1.5])


# --- what is said in both graphs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("agrees", ["argmax", "1/100"])
@pytest.mark.parametrize("size", [1e-3, 0.5])
def test_the_condition_and_its_atoms_have_their_values(agrees, size):
    """From the models' own outputs."""
    differ = 0
    for seed, activation in enumerate((nn.ReLU, nn.GELU, nn.ReLU)):
        models = twins(activation, seed, size)
        job = job_of(Same(*models, over=X, agrees=agrees))
        joint = jointly(job, job.claim.domain)
        points = drawn(X, 40)
        want = agreed(models, points, None if agrees == "argmax" else 0.01)
        differ += int((~want).sum())
        for about in (job, joint):
            condition = conditions.Condition(about)
            graph = condition.job.claim.graph
            needed = graph.ancestors([about.claim.output, *condition.rows])
            tokens = np.zeros((len(points), 0), np.int64)
            values = evaluate(graph, about.claim.weights, needed, tokens, [points])
            output = values[about.claim.output].reshape(len(points))
            np.testing.assert_allclose(combined(condition, values), output, rtol=0, atol=1e-12)
            assert ((output > 0) == want).all()
        if agrees == "argmax":
            assert len(conditions.Condition(joint).rows) == 6 and len(conditions.Condition(job).rows) == 12
    assert (differ > 0) == (size > 0.1)


class Both(nn.Module):
    """The smaller, or the larger, of two models' largest, or smallest, entries; and their first entries' difference."""

    def __init__(self, models, larger: bool, largest: bool):
        super().__init__()
        self.first, self.second = models
        self.larger, self.largest = larger, largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = (m(x).amax(1) if self.largest else m(x).amin(1) for m in (self.first, self.second))
        apart = self.first(x)[:, :1] - self.second(x)[:, :1]
        return apart + (torch.maximum(a, b) if self.larger else torch.minimum(a, b))[:, None]


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize("largest", [False, True])
def test_values_of_minima_of_extremes(larger, largest):
    """Minima of minima alone are taken in pairs."""
    net = Both(twins(nn.ReLU, 0, 0.1), larger, largest).eval()
    job = job_of(Share(capture(net, torch.zeros(1, 2, dtype=torch.float64))["output"][0] > 0, over=X))
    joint, points = jointly(job, job.claim.domain), drawn(X, 50)
    values = evaluate(
        joint.claim.graph, joint.claim.weights, [joint.claim.output], np.zeros((50, 0), np.int64), [points]
    )
    want = outputs([net], points)[0].ravel()
    np.testing.assert_allclose(values[joint.claim.output].ravel(), want, rtol=0, atol=1e-12)


class Ends(nn.Module):
    """Largest and smallest entries of rows, turned round; and one of them, or the other."""

    def __init__(self, which: int):
        super().__init__()
        self.which = which

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = (x[:, :, None] * torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=x.dtype)).transpose(1, 2)
        most = torch.minimum(rows.amax(2), rows[:, :, 0] + x[:, 1:2])
        return (most.amin(1), rows.amin(2)[:, 1], torch.maximum(most[:, 2], rows[:, 3, 1]))[self.which][:, None]


def test_entries_of_views_are_the_ones_that_are_told_apart():
    x = box([-1, -1, -1], [1, 2, 1])
    points, many = drawn(x, 200), drawn(x)
    for which, atoms in ((0, 16), (1, 3), (2, 5)):
        net = Ends(which).eval()
        job = job_of(Share(capture(net, torch.zeros(1, 3, dtype=torch.float64))["output"][0] > 0, over=x))
        taken = conditions.Condition(job)
        graph = taken.job.claim.graph
        values = evaluate(graph, job.claim.weights, graph.ancestors(taken.rows), np.zeros((200, 0), np.int64), [points])
        np.testing.assert_allclose(combined(taken, values), outputs([net], points)[0][:, 0], rtol=0, atol=1e-12)
        assert len(taken.rows) == atoms
        (found,) = shares.counts(job, [job.claim.domain], np.array([14]), np.array([0]))
        share = (outputs([net], many)[0] > 0).mean()
        assert found.low / 2**60 - 0.005 <= share <= found.high / 2**60 + 0.005
        assert found.high - found.low < 2**57


# --- sets that exclude each other ---------------------------------------------------------------------------------


def test_no_more_is_right_than_sets_say():
    """Random sets stand for where atoms are shown right, and wrong; what a random tree of maxima and minima is shown by
    them is at least what is told."""
    rng, more = np.random.default_rng(0), 0
    for _ in range(300):
        m, n = int(rng.integers(2, 5)), 24
        condition = conditions.Condition.__new__(conditions.Condition)
        condition.steps = [*range(m)]
        for _ in range(int(rng.integers(1, 6))):
            i, j = rng.choice(len(condition.steps), 2, replace=False)
            condition.steps.append((bool(rng.integers(2)), int(i), int(j)))
        ways = rng.random((2, m, n)) < rng.choice([0.1, 0.3, 0.6], (2, m, 1))
        pairs = np.array([[[[not (a & b).any() for b in side] for a in side]] for side in ways])
        pairs[0, 0, range(m), range(m)] = pairs[1, 0, range(m), range(m)] = False
        sets = []
        for step in condition.steps:
            if isinstance(step, int):
                sets.append(ways[:, step])
                continue
            a, b = sets[step[1]], sets[step[2]]
            sets.append(np.stack([a[0] | b[0], a[1] & b[1]] if step[0] else [a[0] & b[0], a[1] | b[1]]))
        told = [
            condition.told(AR, ways.mean(2)[:, None], condition.exclusive(p)) for p in (pairs, np.zeros_like(pairs))
        ]
        assert (told[0][:, 0] <= sets[-1].mean(1) + 1e-12).all(), condition.steps
        assert (told[0] >= told[1]).all()
        more += (told[0] > told[1] + 1e-9).any()
    assert more > 20


def test_forms_that_exclude_each_other_are_nowhere_both_at_least_zero():
    rng, told_so = np.random.default_rng(1), []
    for _ in range(400):
        m, c = 2, int(rng.integers(1, 4))
        low = rng.normal(size=c) * 10.0 ** rng.integers(-2, 3)
        high = low + np.abs(rng.choice([0.0, 1.0, 10.0], c))
        slopes = rng.normal(size=(1, 2 * m, c))
        slopes[:, 1::2] = -slopes[:, ::2] + rng.choice([0.0, 0.1]) * rng.normal(size=(1, m, c))
        rad = np.abs(rng.normal(size=(1, 2 * m, c))) * rng.choice([0.0, 1e-16, 0.1])
        gap = rng.choice([0.0, 1e-15, 0.1, 1.0])
        inside = rng.uniform(low, high, (300, c))
        at = inside[0]
        constants = -(slopes @ at) - gap
        sure = rng.random((1, 2 * m)) < 0.1
        told = Cases(constants, Ball(slopes, rad), sure, *np.array([[-1], [-1], [0]]))
        domain = Domain((), low, high, ())
        found = exclusive(AR, told, [domain])[:, 0]
        assert (found == found.swapaxes(1, 2)).all()
        exact = [
            [Fraction(float(k)) for k in constants[0]],
            [[Fraction(float(v)) for v in row] for row in slopes[0]],
            [[Fraction(float(v)) for v in row] for row in rad[0]],
        ]
        for side in (0, 1):
            i, j = side * m, side * m + 1
            assert not (found[side, 0, 1] and (sure[0, i] or sure[0, j]))
            top = exact[0][i] + exact[0][j]
            for k in range(c):
                s = exact[1][i][k] + exact[1][j][k]
                r = exact[2][i][k] + exact[2][j][k]
                top += max((s + t * r) * Fraction(float(x)) for t in (-1, 1) for x in (low[k], high[k]))
            assert not found[side, 0, 1] or top < 0
            assert found[side, 0, 1] or top > -1e-9 or rad.max() > 1e-9 or sure[0, i] or sure[0, j]
            told_so.append(found[side, 0, 1])
    assert 0.2 < np.mean(told_so) < 0.8
    bad = Cases(np.array([[np.nan, -1.0]]), Ball(np.zeros((1, 2, 1)), np.zeros((1, 2, 1))), np.zeros((1, 2), bool),
                *np.array([[-1], [-1], [0]]))  # fmt: skip
    assert not exclusive(AR, bad, [Domain((), np.zeros(1), np.ones(1), ())])[0].any()


def test_many_atoms_cases_and_steps_take_no_more_room_than_few():
    """Of models of many outputs, and of conditions with more steps than are compared in pairs at once."""
    models = twins(nn.ReLU, 1, 0.1, (2, 12, 8))
    x = box([-4, -4], [4, 4])
    job, points = job_of(Same(*models, over=x)), drawn(x)
    joint = jointly(job, job.claim.domain)
    assert len(joint.once(conditions.Condition).steps) == 111
    found = shares.counts(joint, [*job.claim.domain.cut(1, 0.0)], np.array([0, 0]), np.array([6, 7]))
    for part, inside in zip(found, (points[:, 1] <= 0, points[:, 1] >= 0), strict=True):
        right = (agreed(models, points) & inside).mean()
        assert part.low / 2**60 - 0.005 <= right <= part.high / 2**60 + 0.005
    for layers, atoms in ((2, 3), (12, 3), (24, 1)):
        net = Layers(layers).eval()
        job = job_of(
            Share(capture(net, torch.zeros(1, 3, dtype=torch.float64))["output"][0] > 0, over=box([-1] * 3, [1] * 3))
        )
        condition, before = job.once(conditions.Condition), job.ar.work
        assert (len(condition.rows), len(condition.steps) > 1) == (atoms, atoms > 1)
        if atoms > 1:
            told = cases(condition.job, [job.claim.domain], np.array([0]), False)
            told.constants[:] = -9.0  # so that all exclude each other
            assert conditions.excluded(job, told, [job.claim.domain]).any()
            assert job.ar.work - before >= 2 * len(condition.steps) ** 2


class Layers(nn.Module):
    """Largest and smallest of many copies of the entries, in turns."""

    def __init__(self, many: int):
        super().__init__()
        self.many = many

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.many):
            y = x[:, None, None].expand(-1, 3, 6, -1).reshape(len(x), 3, 18)
            x = y.amax(2) if i % 2 else y.amin(2)
        return x[:, :1]


# --- shares -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", few([3, 0, 6], 1))
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_shares_hold_what_samples_find(activation, signs):
    """Of nearly equal models, and of strangers; apart and jointly; of parts of a box."""
    open_ = []
    for seed, size in ((0, 1e-3), (1, 1.0)):
        models = twins(activation, seed, size)
        points = drawn(X)
        for agrees, eps in (
            ("argmax", None),
            (f"{max(1, round(size * 1000))}/1000", max(1, round(size * 1000)) / 1000),
        ):
            job = job_of(Same(*models, over=X, agrees=agrees))
            right = agreed(models, points, eps)
            for about in (job, jointly(job, job.claim.domain)):
                halves = about.claim.domain.cut(0, 0.25)
                found = shares.counts(about, list(halves), np.array([7, 8]), np.array([signs, signs]))
                for part, inside in zip(found, (points[:, 0] <= 0.25, points[:, 0] >= 0.25), strict=True):
                    share, low, high = (right & inside).mean(), part.low / 2**60, part.high / 2**60
                    assert low - 0.005 <= share <= high + 0.005, (seed, agrees, signs)
                    assert not isinstance(part, AllRight) or right[inside].all()
                    open_.append(high - low)
    assert min(open_) < 0.2


@pytest.mark.parametrize("about", [None, normal("1/4", 1)])
def test_agreement_is_told_where_apart_nothing_is(about):
    x = X if about is None else box([-1, -0.5], [1, 1.5], distribution=about)
    models = twins(nn.ReLU, 3, sizes=(2, 3, 3))
    points = drawn(X)
    weight = np.ones(len(points)) if about is None else np.exp(-((points - 0.25) ** 2).sum(1) / 2)
    share = (weight * agreed(models, points)).sum() / weight.sum()
    outcome = prove(Same(*models, over=x, at_least=None, within="1/20"), time_limit=120)
    theorem = kernel.check(outcome.certificate)
    low, high = (Fraction(n, theorem.claim.total) for n in theorem.right)
    assert low - Fraction(1, 200) <= share <= high + Fraction(1, 200) and high - low <= Fraction(1, 20)
    assert theorem.rules["differences"] == 1


def test_models_that_agree_everywhere_are_proved_to():
    """Also where the box is cut, though its parts' units, rounded down, don't add up to it."""
    for seed, activation in enumerate((nn.ReLU, nn.GELU, nn.Tanh)):
        models, x = twins(activation, seed, sizes=(2, 4, 2)), box([-1, -0.3], [1, 0.7])
        a, b = outputs(models, drawn(x))
        most = Fraction(float(np.abs(a - b).max())).limit_denominator(10**9) * Fraction(13, 10)
        claim = Same(*models, over=x, agrees=most)
        outcome = prove(claim, time_limit=30)
        assert outcome.verdict == "PROVED" and outcome.theorem.rules["differences"] == 1
        assert outcome.theorem.right.low == outcome.theorem.claim.total
        if activation is nn.ReLU:
            with pytest.raises(NotConfirmed):  # by ranges alone the second checker can't tell; it doesn't contradict
                boxes.check(outcome.certificate)
        known = job_of(claim)
        halves = {"rule": "split", "coordinate": 1, "at": (0.1).hex(), "inside": LEAF, "outside": LEAF}
        third = {"rule": "split", "coordinate": 0, "at": (1 / 3).hex(), "inside": halves, "outside": halves}
        found, _ = kernel.proof.prove(known, Reader({"rule": "differences", "proof": third}, "proof"))
        assert isinstance(found, AllRight) == (found.high - found.low < 2**20)


def test_a_part_with_one_corner_that_is_wrong_is_not_wholly_right():
    """Of corners that weigh 2^-19 to 2^-29, alone and beside parts that are wholly right, and of two proofs of them."""
    out = capture(nn.Identity().eval(), torch.zeros(1, 2, dtype=torch.float64))["output"]
    x = box([0, 0], [1, 1])
    for k in (9, 12, 14):
        edge = 2 - Fraction(1, 2**k)
        wrong = Fraction(1, 2 ** (2 * k + 1))
        for strict in (False, True):
            job = job_of(Share(out[0] + out[1] < edge if strict else out[0] + out[1] <= edge, over=x))
            leaf = {"rule": "relaxation", "to": 40, "signs": 0}
            halved = {"rule": "split", "coordinate": 1, "at": (1 / 3).hex(), "inside": leaf, "outside": leaf}
            for proof in (
                leaf,
                halved,
                {"rule": "both", "first": halved, "second": leaf},
                {"rule": "both", "first": leaf, "second": halved},
            ):
                found, _ = kernel.proof.prove(job, Reader(proof, "proof"))
                assert not isinstance(found, AllRight)
                assert found.low <= (1 - wrong) * 2**60
                assert job.claim.within(found).low <= (1 - wrong) * 2**60
            inside, outside = job.claim.domain.cut(1, 1 / 3)
            assert isinstance(shares.counts(job, [inside], np.array([0]), np.array([0]))[0], AllRight)
            assert not isinstance(shares.counts(job, [outside], np.array([0]), np.array([0]))[0], AllRight)


# --- whole files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_claims_that_say_too_much_are_not_proved(seed):
    models = twins([nn.ReLU, nn.GELU, nn.Tanh][seed], seed, [1e-3, 0.1, 1e-3][seed])
    points = drawn(X)
    a, b = outputs(models, points)
    eps = Fraction(float(np.abs(a - b).max())).limit_denominator(10**9)
    assert prove(Same(*models, over=X, agrees=eps * Fraction(99, 100)), time_limit=3).verdict != "PROVED"
    share = Fraction(int(agreed(models, points).sum()), len(points)) + Fraction(1, 200)
    if share <= 1:
        assert prove(Same(*models, over=X, at_least=share), time_limit=3).verdict != "PROVED"


def test_spoilt_files_are_refused():
    """They differ by more than is asked on a tenth of the box."""
    models = twins(nn.ReLU, 4)
    a, b = outputs(models, drawn(X))
    most = Fraction(float(np.quantile(np.abs(a - b).max(1), 0.9))).limit_denominator(10**9)
    outcome = prove(Same(*models, over=X, agrees=most, at_least="1/2"), time_limit=60)
    document, weights = parts(outcome.certificate)
    assert outcome.verdict == "PROVED" and document["proof"]["rule"] == "differences"
    inner, document["cost"] = document["proof"]["proof"], None
    for proof, message in (
        ({"rule": "differences"}, "proof"), ({"rule": "differences", "proof": inner, "to": 3}, "to"),
        (inner, "right inputs stated"), ({"rule": "differences", "proof": {"rule": "faces", "faces": [inner] * 4}}, "stays as it is"),
        ({"rule": "differences", "proof": {"rule": "point", "inputs": []}}, "rule"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=message):
            kernel.check(forge.file(json.loads(json.dumps(document)) | {"proof": proof}, weights))
    kernel.check(forge.file(document, weights))
    for low in (2**60, int(document["conclusion"]["right_at_least"]) + 2**30):  # it states a little less than is proved
        more = json.loads(json.dumps(document))
        more["claim"]["at_least"], more["conclusion"]["right_at_least"] = f"{low}/{2**60}", str(low)
        with pytest.raises(Rejected, match="right inputs stated"):
            kernel.check(forge.file(more, weights))


def test_signs_of_the_second_run_are_not_told_apart():
    """They are those of the first, but near its kinks."""
    models = twins(nn.ReLU, 0)
    job = job_of(Same(*models, over=X))
    joint = jointly(job, job.claim.domain)
    apart, together = (
        relaxed(conditions.Condition(about).job, [job.claim.domain], False).kinks()[0] for about in (job, joint)
    )
    assert 0 < len(together) <= 5 < len(apart)

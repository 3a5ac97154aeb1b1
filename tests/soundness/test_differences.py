"""Rule `differences` (lemmas D1 to D3), attacked: every node that it adds, against samples and in exact balls; claims
that are too tight; spoilt files."""

import copy
import json
import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Bounds, box, capture, kernel, prove
from mechverify.kernel import Rejected
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.differences import rule
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Lines, Relaxed
from tests.soundness import bounds, networks
from tests.soundness.networks import FUNCTIONS, Maker, Network, constant, evaluate, given, samples
from tests.soundness.test_cut import parts, rewritten
from tests.soundness.test_rewriting import same

NETWORKS = int(os.environ.get("MECHVERIFY_DIFFERENCES", 80))
LINES = {"rule": "relaxation", "lines": None}


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


# --- random pairs -----------------------------------------------------------------------------------------------------


def twins(net: Network, rng: np.random.Generator, size: float) -> Network:
    """The network less itself with other weights and constants, on the same inputs."""
    rows, weights = [*net.rows], dict(net.weights)
    new: dict[int, int] = {}
    for n, (op, args, attr) in enumerate(net.rows):
        if op in ("input", "tokens", "value", "integer"):
            new[n] = n
            continue
        if op == "weight":
            name = f"{attr[0]}'"
            if name not in weights:
                old = net.weights[attr[0]]
                weights[name] = old + size * rng.normal(size=old.shape)
            attr = [name, attr[1]]
        if op == "constant" and rng.random() < 0.5:
            values = [float.fromhex(v) for v in attr[1]]
            attr = [attr[0], [(v + size * abs(v) * rng.random()).hex() for v in values]]
        rows.append([op, [new[a] for a in args], attr])
        new[n] = len(rows) - 1
    rows.append(["sub", [net.site, new[net.site]], None])
    return Network(rows, weights, net.inputs, net.tokens, net.vocab)


def jointly(net: Network) -> tuple[Job, Job]:
    job = Job(networks.claim(net), Float64())
    return job, rule.jointly(job, job.claim.domain)


class Random(Lines):
    """Slopes and shares of any size, for some nodes; mixtures of planes in [0, 1]."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.used = rng, set()

    def choose(self, relaxed, start, n):
        node = relaxed.graph.nodes[n]
        if self.rng.random() < 0.3:
            return None
        self.used.add(node.op)
        shape = 1, 1, *node.shape
        if node.op == "mul":
            return self.rng.random(shape), self.rng.random(shape)
        return tuple(self.rng.normal(size=shape) * self.rng.choice([0.1, 1.0, 10.0]) for _ in range(2))


def attacked(job: Job, kind: Lines | None, values: dict, points: int) -> int:
    """How many values were found to lie within their node's ends."""
    options = {} if kind is None else {"lines": kind}
    found, known = 0, linear._value(job, [job.claim.domain], Relaxed, **options)
    known.ends[known.root] = known.output()
    rewriting = job.once(linear.Rewriting)
    for n, new in rewriting.roots.of.items():
        if n not in values or new not in known.ends:
            continue
        low, high = (np.broadcast_to(end[0], values[n].shape[1:]) for end in known.ends[new])
        assert not np.isnan([low, high]).any()
        for point in range(points):
            for value, a, b in zip(np.ravel(values[n][point]).tolist(), low.ravel(), high.ravel(), strict=True):
                if value.is_finite():
                    assert not (value < float(a)) and not (value > float(b)), (n, job.claim.graph.nodes[n], value, a, b)
                    found += 1
    return found


class Seen:
    """How many values were `decided` to be equal, and found `within` bounds; which operations were `met`."""

    def __init__(self) -> None:
        self.decided, self.within, self.met, self.used = 0, 0, set(), set()

    def attack(self, net: Network, rng: np.random.Generator, points: int = 4) -> None:
        old, new = jointly(net)
        graph, first = new.claim.graph, len(old.claim.graph.nodes)
        needed = graph.ancestors([new.claim.output, old.claim.output])
        needed = [n for n in needed if graph.nodes[n].kind == "real"]
        tokens, inputs = samples(net, points, rng)
        values = evaluate(graph, new.claim.weights, needed, tokens, inputs, exact=True)
        self.decided += same(values[new.claim.output], values[old.claim.output], net)
        for n in needed:
            node = graph.nodes[n]
            if node.op == "blend":
                self.decided += same(*(values[a] for a in node.args), (net, n))
            if node.op == "secant":  # what its bounds rest on
                a, b, d = (values[m] for m in node.args)
                self.decided += same(a - b, d, (net, n))
            if n >= first:
                self.met.add(node.op if node.op != "secant" else node.attr[0])
        random = Random(rng)
        for lines in (None, random):
            self.within += attacked(new, lines, values, points)
        self.used |= random.used


def test_every_node_has_its_value_and_lies_within_its_bounds():
    seen = Seen()
    for seed in range(NETWORKS):
        rng = np.random.default_rng([71, seed])
        net = twins(Maker(rng).network(int(rng.integers(2, 8))), rng, float(rng.choice([1e-3, 0.3])))
        try:
            seen.attack(net, rng)
        except Unsupported:  # a root of what the bounds don't show to be positive
            continue
        except Rejected as error:
            assert "no difference" in str(error), seed
    assert seen.decided > 10 * NETWORKS and seen.within > 40 * NETWORKS
    if NETWORKS >= 80:
        assert seen.met >= {"blend", "sub", "mul", "einsum", "add", "view", "concat", "power", "exchanged"}, seen.met
    assert seen.used >= {"secant", "blend", "mul"}


@pytest.mark.parametrize("name", [*FUNCTIONS, "power"])
def test_every_function(name):
    """Of positive and of other arguments, near each other and apart, deep enough that lines matter."""
    seen = Seen()
    for seed in range(4):
        rng = np.random.default_rng([72, seed])
        rows, weights = [given(3)], {}
        for layer in range(2):
            bounds.dense(rows, 3, 3, f"{layer}", weights, rng)
            if name in networks.POSITIVE:
                rows += [["abs", [len(rows) - 1], None], constant([0.3, 0.5, 2.0])]
                rows.append(["add", [len(rows) - 2, len(rows) - 1], None])
            rows.append([name, [len(rows) - 1], 3 if name == "power" else None])
        bounds.dense(rows, 2, 3, "last", weights, rng)
        centre, radius = rng.normal(size=3), [1e-3, 0.1, 0.5, 0.5][seed]
        net = Network(rows, weights, [(centre - radius, centre + radius)], [], 0)
        seen.attack(twins(net, rng, [1e-3, 1e-3, 1e-3, 0.3][seed]), rng, 8)
    assert seen.met >= {name, "blend", "einsum"} and seen.within > 300 and seen.decided > 300
    assert {"secant", "blend"} <= seen.used


MASKS = {"all": 3, "fewer": 2, "causal": "causal", "one row": ["101"], "rows": ["110", "011", "001"]}


@pytest.mark.parametrize("mask", MASKS)
def test_every_softmax(mask):
    """A head of three positions, and with a batch axis: scores of both runs near each other and apart."""
    seen = Seen()
    for seed in range(4):
        rng = np.random.default_rng([73, seed])
        weights = {name: rng.normal(size=(2, 2)) * [1.0, 3.0][seed % 2] for name in "qkv"}
        rows = [given(3, 2)]
        for name in "qkv":
            rows += [["weight", [], [name, [2, 2]]], ["einsum", [0, len(rows)], "ia,ab->ib"]]
        rows += [["einsum", [2, 4], "ib,jb->ij"], ["over_root", [7], 2], ["softmax", [8], MASKS[mask]],
                 ["einsum", [9, 6], "ij,jb->ib"]]  # fmt: skip
        if seed == 3:  # the shares of several rows of scores, and one row of them alone
            rows[-1:] = [["view", [8], [[2, 3, 3], 0, [0, 3, 1]]], ["softmax", [10], MASKS[mask]],
                         ["einsum", [11, 6], "hij,jb->hib"], ["view", [12], [[2, 2], 2, [6, 1]]]]  # fmt: skip
        centre, radius = rng.normal(size=(3, 2)), [0.05, 0.3, 0.05, 0.1][seed]
        net = Network(rows, weights, [(centre - radius, centre + radius)], [], 0)
        seen.attack(twins(net, rng, [1e-3, 1e-3, 0.5, 1e-3][seed]), rng, 8)
    assert seen.met >= {"exchanged", "blend", "einsum"} and {"exchanged", "blend"} <= seen.used
    assert seen.within > 500 and seen.decided > 500


@pytest.mark.parametrize("shapes", [((3,), (1,)), ((3,), (3, 1)), ((3, 3), (3,)), ((1, 3), (3, 1)), ((3, 3), (3, 3))])
def test_shares_less_a_share_that_broadcasts(shapes):
    """Entries of p - q add up to zero where both have as many: of one share, which is 1, each entry of p loses 1."""
    axes = max(map(len, shapes))
    rows = [given(*shapes[0]), given(*shapes[1], number=1), given(3, number=2)]
    rows += [["softmax", [i], shape[-1]] for i, shape in enumerate(shapes)]
    rows += [["sub", [3, 4], None], ["einsum", [5, 2], ["i,i->", "ji,i->j"][axes - 1]]]
    box_of = [(np.full(shape, -0.1), np.full(shape, 0.1)) for shape in shapes]
    net = Network(rows, {}, [*box_of, (np.ones(3), np.full(3, 1.1))], [], 0)
    tokens, inputs = samples(net, 50, np.random.default_rng(0))
    job = Job(networks.claim(net), Float64())
    values = evaluate(job.claim.graph, {}, job.claim.graph.ancestors([6]), tokens, inputs)[6].reshape(50, -1)
    for kind in (linear.Intervals, linear.Relaxed):
        (range_,) = linear.ranges(job, [job.claim.domain], kind=kind)
        assert (range_.low <= values + 1e-12).all() and (values - 1e-12 <= range_.high).all()


# --- whole proofs -----------------------------------------------------------------------------------------------------


class Apart(nn.Module):
    """One network less another, nearly equal one."""

    def __init__(self, activation: type[nn.Module], seed: int, size: float = 1e-3):
        super().__init__()
        torch.manual_seed(seed)
        layers = [nn.Linear(3, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 2)]
        self.first = nn.Sequential(*layers).double()
        self.second = copy.deepcopy(self.first)
        with torch.no_grad():
            for p in self.second.parameters():
                p += size * torch.randn_like(p)

    def forward(self, x):
        return self.first(x) - self.second(x)


ACTIVATIONS = [nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.Sigmoid, nn.Softplus]
X = box(-0.5 * np.ones(3), 0.5 * np.ones(3))


def stated(net: Apart, **settings) -> Bounds:
    return Bounds(capture(net.eval(), torch.zeros(1, 3, dtype=torch.float64))["output"], over=X, **settings)


def reached(net: Apart) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.5, 0.5, (4_000, 3)), np.sign(rng.normal(size=(400, 3))) / 2])
    with torch.no_grad():
        return net(torch.tensor(points)).numpy()


def apart_alone(claim: Bounds) -> np.ndarray:
    """The range that the kernel proves without the rule."""
    document, weights = parts(prove(claim, method="interval").certificate)
    document["proof"] = LINES
    for end in ("low", "high"):
        document["conclusion"][end] = [None, None]
    known = kernel.core.kinds.read_claim(Reader(document["claim"], "claim"), weights)
    (range_,) = linear.ranges(Job(known, Float64()), [known.domain])
    return np.stack(range_)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nearly_equal_networks_are_bounded_jointly(activation):
    for seed in range(2):
        net = Apart(activation, seed)
        claim, values = stated(net), reached(net)
        outcome = prove(claim, method="linear")
        theorem = kernel.check(outcome.certificate)
        low, high = theorem.range
        assert theorem.rules["differences"] == 1
        assert (low <= values.min(0)).all() and (values.max(0) <= high).all()
        apart = apart_alone(claim)
        assert (apart[0] <= low).all() and (high <= apart[1]).all()
        wide, narrow = apart[1] - apart[0], high - low
        assert narrow.mean() < wide.mean() / 4, (narrow, wide)
        assert narrow.mean() < 12 * (values.max(0) - values.min(0)).mean()


@pytest.mark.parametrize("seed", range(12))
def test_claims_that_are_too_tight_are_refuted(seed):
    net = Apart(ACTIVATIONS[seed % len(ACTIVATIONS)], seed, size=[1e-3, 0.2][seed % 2])
    values = reached(net)
    most = Fraction(float(np.abs(values).max())) * Fraction(99, 100)
    outcome = prove(stated(net, at_least=-most, at_most=most), time_limit=60)
    assert outcome.verdict == "REFUTED"
    theorem = kernel.check(outcome.certificate)
    assert theorem.verdict == "REFUTED" and theorem.broken.any()


@pytest.mark.parametrize("seed", range(3))
def test_claims_that_hold_are_proved(seed):
    net = Apart(ACTIVATIONS[seed], seed)
    most = Fraction(float(np.abs(reached(net)).max())) * 2
    outcome = prove(stated(net, at_least=-most, at_most=most), time_limit=60)
    assert outcome.verdict == "PROVED" and kernel.check(outcome.certificate).rules["differences"] >= 1


def test_spoilt_files_are_refused():
    net = Apart(nn.ReLU, 0)
    outcome = prove(stated(net), method="optimised")
    document, weights = parts(outcome.certificate)
    node = document["proof"]
    while node["rule"] != "differences":
        node = node["second"] if node["second"]["rule"] != "point" else node["first"]
    leaf = node["proof"]
    while leaf["rule"] == "both":
        leaf = leaf["second"]
    document["proof"] = {"rule": "differences", "proof": leaf}
    assert leaf["lines"], "lines of the search's own"

    def spoilt(change, low=None) -> bytes:
        new = copy.deepcopy(document)
        change(new)
        return rewritten(new, weights)

    whole = kernel.check(spoilt(lambda d: d["conclusion"].update(low=[None] * 2, high=[None] * 2)))
    assert whole.rules == {"differences": 1, "relaxation": 1}

    def tighter(d):
        d["conclusion"]["high"] = [(float.fromhex(v) * 0.5).hex() for v in d["conclusion"]["high"]]

    def field(d):
        d["proof"]["lemmas"] = []

    def missing(d):
        del d["proof"]["proof"]

    def nowhere(d):
        d["proof"]["proof"]["lines"][0][1] = "4000"

    def below(d):  # a split at a value stands above
        d["proof"] = {"rule": "split", "node": len(d["claim"]["graph"]["nodes"]) - 2, "entry": 0, "at": (0.0).hex(),
                      "inside": d["proof"], "outside": d["proof"]}  # fmt: skip

    for change, message in (
        (tighter, "tighter than those proved"), (field, "lemmas"), (missing, "proof"), (nowhere, "nothing is relaxed"),
        (below, "stand above splits"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=message):
            kernel.check(spoilt(change))


def test_lines_of_a_file_only_loosen():
    """Every number of a witness may be anything."""
    net, rng, accepted = Apart(nn.ReLU, 1), np.random.default_rng(5), 0
    values = reached(net)
    document, weights = parts(prove(stated(net), method="optimised").certificate)
    text = json.dumps(document["proof"])
    assert "differences" in text
    known = kernel.core.kinds.read_claim(Reader(document["claim"], "claim"), weights)
    for _ in range(12):
        proof = json.loads(text)
        for row in found_lines(proof):
            row[2] += int(rng.integers(-3, 4))
            for numbers in row[3:]:
                numbers[int(rng.integers(len(numbers)))] = int(rng.integers(-(2**20), 2**20))
        try:
            range_, _ = kernel.proof.prove(Job(known, Float64()), Reader(proof, "proof"))
        except Rejected as error:
            assert "outside [0, 1]" in str(error)
            continue
        accepted += 1
        assert (range_.low <= values.min(0)).all() and (values.max(0) <= range_.high).all()
    assert accepted > 6


def found_lines(node) -> list:
    if isinstance(node, dict):
        return [row for key, value in node.items() for row in (value or [] if key == "lines" else found_lines(value))]
    return []


def test_where_nothing_is_made_alike_the_rule_refuses():
    net = Network([given(2), ["relu", [0], None], ["sub", [0, 1], None]], {}, [(-np.ones(2), np.ones(2))], [], 0)
    with pytest.raises(Rejected, match="no difference of values that are made alike"):
        jointly(net)


def test_a_value_less_itself_is_zero_and_a_rule_may_stand_in_itself():
    rows = [given(2), ["relu", [0], None], ["sub", [1, 1], None]]
    net = Network(rows, {}, [(-np.ones(2), np.ones(2))], [], 0)
    document, data = networks.document(net, {"rule": "differences", "proof": LINES}, n=2, low=[0, 0], high=[0, 0])
    assert kernel.check(networks.file(document, data)).range.high.max() == 0
    net = twins(Network([*rows[:2], ["exp", [1], None], constant([0.5, 2.0]), ["mul", [2, 3], None]], {}, net.inputs, [], 0),
                np.random.default_rng(3), 0.1)  # fmt: skip
    found = []
    for depth in (1, 2):
        proof = LINES
        for _ in range(depth):
            proof = {"rule": "differences", "proof": proof}
        document, data = networks.document(net, proof, n=2)
        known = networks.claim(net)
        found.append(kernel.proof.prove(Job(known, Float64()), Reader(proof, "proof"))[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_huge_numbers_bound_nothing_and_reject_nothing():
    rows, weights = [given(2)], {}
    rng = np.random.default_rng(6)
    for layer in range(3):
        bounds.dense(rows, 2, 2, f"{layer}", weights, rng)
        rows.append([["relu", "exp", "gelu"][layer], [len(rows) - 1], None])
    for scale in (1e150, 1e300):
        net = twins(
            Network(rows, {k: v * scale for k, v in weights.items()}, [(-np.ones(2), np.ones(2))], [], 0), rng, 1e-3
        )
        _, new = jointly(net)
        (range_,) = linear.ranges(new, [new.claim.domain])
        assert not np.isnan(range_.low).any() and (range_.low <= 0).all() and (range_.high >= 0).all()

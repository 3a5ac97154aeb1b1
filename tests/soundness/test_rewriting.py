"""Lemmas L7 and L8, attacked: every node of a rewritten graph, not only its output, against the node that it stands for.

Random networks of every operation, and softmaxes and contractions of every form, are evaluated at random inputs by
python-flint, with any constants for pivots: what is rewritten, narrowed, or named by a certificate has the value of the
claim's own node.
"""

import os
from itertools import product
from typing import Any

import numpy as np
import pytest
from flint import arb

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.names import Names
from mechverify.kernel.relaxation.operations.internal import SLACK
from tests.soundness import networks
from tests.soundness.networks import FUNCTIONS, Maker, Network, constant, evaluate, given, samples

NETWORKS = int(os.environ.get("MECHVERIFY_REWRITTEN", 160))
INPUTS = 3


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def same(a: np.ndarray, b: np.ndarray, what: Any) -> int:
    """How many entries are equal, as enclosures to 100 bits tell; those that aren't numbers say nothing."""
    decided = 0
    assert a.shape == b.shape, what
    for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
        if x.is_finite() and y.is_finite():
            apart = x - y
            assert apart.contains(0), (what, x, y)
            decided += apart.rad() < arb(2) ** -100 * (1 + abs(x))
    return decided


class Compared:
    """A network's nodes: how many entries were `decided`, and what was `seen`: operations that were rewritten, and roles
    within them."""

    def __init__(self, net: Network, rng: np.random.Generator):
        claim = networks.claim(net)
        self.job = Job(claim, Float64())
        rewriting = self.job.once(linear.Rewriting)
        self.graph, self.roots = rewriting.graph, rewriting.roots
        self.claimed = [n for n in claim.graph.ancestors([claim.output]) if self.graph.nodes[n].kind == "real"]
        self.seen = {self.graph.nodes[n].op for n in self.roots.of} | {role for _, role in self.roots.steps}
        pairs = [(n, self.roots.standing[n]) for n in self.claimed] + [*self.roots.of.items(), *self.roots.shared]
        needed = self.graph.ancestors([n for pair in pairs for n in pair] + [*self.roots.steps.values()])
        needed += [n for n in self.graph.listed if self.graph.nodes[n].kind == "real"]
        pivots = {n: rng.normal(size=self.graph.nodes[n].shape) for n in needed if self.graph.nodes[n].op == "pivot"}
        points = samples(net, INPUTS, rng)
        self.values = evaluate(self.graph, claim.weights, needed, *points, exact=True, pivots=pivots)
        self.decided = sum(same(self.values[a], self.values[b], (a, b, net)) for a, b in pairs)
        for n in needed:
            if self.graph.nodes[n].op == "slack":
                self.slack(n)
        self.places(rng)

    def slack(self, n: int) -> None:
        """It is not above zero, not below -SLACK, and nothing where no difference of scores exceeds the cap."""
        room = self.values[self.graph.nodes[n].args[0]]
        value = self.values[n].reshape(INPUTS, -1)
        rows = room.reshape(INPUTS, value.shape[1], -1)
        for some, v in zip(rows.reshape(-1, rows.shape[2]).tolist(), value.ravel().tolist(), strict=True):
            assert not (v > 0) and not (v < -arb(SLACK)), (n, v)
            if all(r > 0 for r in some):
                assert v.contains(0), (n, v)
            self.seen.add("slack within" if all(r > 0 for r in some) else "slack beyond")

    def places(self, rng: np.random.Generator) -> None:
        """Where a split finds an entry of a document's node, that entry's value stands."""
        for number, n in enumerate(self.graph.listed):
            if self.graph.nodes[n].kind != "real":
                continue
            value = self.values[n].reshape(INPUTS, -1)
            entry = int(rng.integers(value.shape[1]))
            for held, its in self.job.once(Names).places(number, entry):
                self.decided += same(self.values[held].reshape(INPUTS, -1)[:, its], value[:, entry], (number, entry))
                self.seen.add("whole" if held == self.roots.of.get(n) else "part")


def test_every_node_of_a_rewritten_graph_has_its_own_value():
    seen: set[str] = set()
    decided = 0
    for seed in range(NETWORKS):
        rng = np.random.default_rng([51, seed])
        compared = Compared(Maker(rng).network(int(rng.integers(2, 9))), rng)
        seen |= compared.seen
        decided += compared.decided
    assert decided > 30 * NETWORKS
    assert seen >= {*FUNCTIONS, "add", "sub", "mul", "einsum", "softmax", "power", "over_root", "view", "concat",
                    "gather", "pi", "number", "pick", "choose", "extremum", "products", "share", "quotient", "whole", "part"}  # fmt: skip


MASKS = {"all": lambda n, _: n, "fewer": lambda n, _: max(1, n - 1), "causal": lambda n, _: "causal",
         "one row": lambda n, rng: [row(n, rng)], "rows": lambda n, rng: [row(n, rng) for _ in range(3)]}  # fmt: skip


def row(n: int, rng: np.random.Generator) -> str:
    kept = rng.integers(0, 2, n)
    kept[rng.integers(n)] = 1
    return "".join(map(str, kept))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_softmaxes_and_what_they_average(mask: str, n: int):
    """Rows of 1 to 5 scores, masked in every way, with and without batch axes, near each other and far apart; and
    contractions of the shares, over their last axis or another."""
    seen: set[str] = set()
    for batch, scale in product([(), (2,), (2, 1)], [1.0, 30.0]):
        rng = np.random.default_rng([52, n, len(batch), int(scale)])
        scores, axes = (*batch, 3, n), "abc"[: len(batch)]
        rows = [given(*scores), given(*batch, n, 2, number=1), ["softmax", [0], MASKS[mask](n, rng)],
                ["einsum", [2, 1], f"{axes}ij,{axes}jk->{axes}ik"],
                ["einsum", [2, 1], f"{axes}ij,{axes}jk->{axes}ikj"],
                ["einsum", [1, 2], f"{axes}jk,{axes}ij->{axes}ki"],
                ["einsum", [2, 2], f"{axes}ij,{axes}ij->{axes}i"]]  # fmt: skip
        ends = [(-scale * np.ones(shape), scale * np.ones(shape)) for shape in (scores, (*batch, n, 2))]
        for out in (3, 4, 5, 6):
            net = Network([*rows[: out + 1]], {}, ends, [], 0)
            compared = Compared(net, rng)
            assert compared.decided > 0
            seen |= compared.seen
    assert n == 1 or seen >= {"room", "positive", "capped", "powers", "total", "share", "centred", "exponentials", "sum",
                              "quotient", "second", "products"}  # fmt: skip
    assert mask not in ("causal", "fewer") or n == 1 or "kept" in seen
    assert n == 1 or {"slack within", "slack beyond"} <= seen


def test_what_broadcasts_and_what_is_narrowed():
    """Operands of every pair of shapes that broadcast; and slices of slices, of which each is computed by itself."""
    rng, decided, seen = np.random.default_rng(53), 0, set()
    shapes = [(), (1,), (3,), (2, 1), (2, 3), (1, 3), (4, 1, 3), (4, 2, 1), (4, 2, 3)]
    for first, second in product(shapes, shapes):
        for op in ("add", "sub", "mul"):
            net = Network([given(*first), given(*second, number=1), [op, [0, 1], None]], {},
                          [(-np.ones(s), np.ones(s)) for s in (first, second)], [], 0)  # fmt: skip
            decided += Compared(net, rng).decided
    for op, args, attr in (("einsum", [0, 0], "ijk,ijk->ijk"), ("softmax", [0], "causal"), ("tanh", [0], None),
                           ("einsum", [0, 1], "ijk,kl->ijl"), ("add", [0, 2], None), ("concat", [0, 0], 1)):  # fmt: skip
        shape = (4, 2, 3) if op != "concat" else (4, 4, 3)
        for at in np.ndindex(*shape[:2]):
            offset = at[0] * shape[1] * 3 + at[1] * 3
            net = Network([given(4, 2, 3), constant(rng.normal(size=(3, 3))), given(3, number=1), [op, args, attr],
                           ["view", [3], [[3], offset, [1]]], ["relu", [4], None]], {},
                          [(-np.ones(s), np.ones(s)) for s in ((4, 2, 3), (3,))], [], 0)  # fmt: skip
            compared = Compared(net, rng)
            decided += compared.decided
            seen |= compared.seen
    assert decided > 3_000 and "part" in seen

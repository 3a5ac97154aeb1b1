"""The attack on bounds of benchmarks/attack.py, small: it finds nothing, and finds what is planted."""

from itertools import product

import numpy as np
import pytest
import torch

from benchmarks import attack
from benchmarks.attack import EMBEDDED, MECHANISM, OPERATIONS, Attack, Case, Middle
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.operations import LISTED
from mechverify.kernel.relaxation import lines, norms, planes
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.operations import internal
from tests.soundness.networks import FUNCTIONS, Network, given

PART = 1e-9  # by which a planted fault is wrong


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_value_lies_outside(name, monkeypatch):
    monkeypatch.setattr(attack, "JUDGED", 4)
    found = Attack(("interval", "linear", "shared, any lines", "cells, any lines"))
    found.operation(name, seed=7, networks=1, samples=200)
    assert found.nothing, found.outside[:3]


def test_every_operation_stands_in_the_middle_of_some_network():
    met = set()
    for name in OPERATIONS:
        for seed in range(30 if name == MECHANISM else 1):
            maker = Middle(np.random.default_rng(seed), kind=2 if name in (EMBEDDED, MECHANISM) else None)
            met |= {row[0] for row in maker.around(name).rows}
    assert met == set(LISTED)


def test_the_ends_of_float64():
    assert attack.hostile(307).nothing


def test_no_file_and_no_ball_says_nan():
    assert {said for _, said in attack.written()} == {"refused"}
    assert {said for _, said in attack.handed()} == {"refused"}


def tighter(ball: Ball, upper: bool) -> Ball:
    """A little less than the least value, or more than the greatest."""
    return ball._replace(mid=ball.mid + PART * abs(ball.mid) * (-1 if upper else 1))


def narrower(ends: tuple) -> tuple:
    low, high = ends
    xp = np if isinstance(low, np.ndarray | float) else torch
    step = PART * xp.where(xp.isfinite(high - low), high - low, 0.0)
    return low + step, high - step


FAR = Network([given(2), ["softmax", [0], 2]], {}, [(np.full(2, -40.0), np.full(2, 40.0))], [], 0)
MAXIMUM = Network(
    [given(2), ["view", [0], [[], 0, []]], ["view", [0], [[], 1, []]], ["sub", [2, 1], None], ["softplus", [3], None],
     ["add", [1, 4], None]], {}, [(np.full(2, -3.0), np.full(2, 3.0))], [], 0,
)  # fmt: skip
FAULTS = {
    "a line's offset": (lines, "offset", lambda old: lambda ar, c, slope, upper: tighter(
        old(ar, c, slope, upper), upper), ["tanh", "exp", "softplus", "gelu"]),
    "a product's plane": (planes, "plane", lambda old: lambda ar, x, y, mix, upper: (
        *(p := old(ar, x, y, mix, upper))[:2], tighter(p[2], upper)), ["mul", "einsum"]),
    "a product's interval": (lines, "product", lambda old: lambda *args: narrower(old(*args)), ["mul", "einsum"]),
    "a function's interval": (lines, "image", lambda old: lambda *args: narrower(old(*args)), ["tanh", "sqrt"]),
    "a cap without slack": (internal, "SLACK", lambda old: 0.0, [FAR]),
    "a cap that is too low": (internal, "CAP", lambda old: 2, [FAR]),
    "a form of tokens": (Relaxed, "_least_of_tokens", lambda old: lambda self, form: tighter(
        old(self, form), upper=False), [EMBEDDED]),
    "a layer norm's limit": (norms, "limit", lambda old: lambda known, n: (
        None if (limit := old(known, n)) is None else 0.6 * limit), ["layer norm"]),
    "a smooth maximum's ends": (Relaxed, "_smooth_maximum", lambda old: lambda self, n: (
        None if (limit := old(self, n)) is None else narrower(limit)), [MAXIMUM]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, monkeypatch):
    where, what, change, operations = FAULTS[fault]
    monkeypatch.setattr(where, what, change(getattr(where, what)))
    found = Attack()
    for seed, place in product(range(12), operations):
        if isinstance(place, Network):
            found.case(Case(place, np.random.default_rng(seed), found.kinds), 500)
        else:
            found.operation(place, seed, networks=found.networks + 1, samples=500 * (found.networks + 1))
        if found.outside:
            return
    raise AssertionError("the attack found nothing")


@pytest.mark.parametrize("name", [*FUNCTIONS, "even power", "odd power"])
def test_a_narrowed_interval_of_any_function_is_found(name, monkeypatch):
    old, found = lines.image, Attack(("interval", "linear"))
    monkeypatch.setattr(lines, "image", lambda *args: narrower(old(*args)))
    for seed in range(24):
        found.operation(name, seed, networks=found.networks + 1, samples=500 * (found.networks + 1))
        if found.outside:
            return
    raise AssertionError("the attack found nothing")

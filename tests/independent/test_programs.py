"""Lemmas O4 and O5 against programs that are enumerated: every order of every sum, each product fused or not, subnormal
numbers kept or not, in exact rationals. Written from docs/soundness/options.md; it shares no code with the kernel."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Bounds, Share, box, capture, prove, tokens

LEAST = Fraction(1, 2**126)  # the smallest normal number


def rounded(x: Fraction, flush: bool) -> Fraction:
    """To float32, to nearest, ties to even."""
    if x == 0:
        return x
    size, power = abs(x), 0
    while size >= 2:
        size, power = size / 2, power + 1
    while size < 1:
        size, power = size * 2, power - 1
    unit = Fraction(2) ** (max(power, -126) - 23)
    result = round(x / unit) * unit  # Python's rounding of a Fraction is to even
    return Fraction(0) if flush and abs(result) < LEAST else result


def test_numbers_are_rounded_as_numpy_does():
    rng = np.random.default_rng(0)
    for x in [*rng.normal(size=200), *(rng.normal(size=200) * 2.0 ** rng.integers(-150, -100, 200)), 1 + 2.0**-24,
              1 + 3 * 2.0**-24]:  # fmt: skip
        assert rounded(Fraction(x), False) == Fraction(float(np.float32(x)))


def dots(weights: list[Fraction], values: list[Fraction], bias: Fraction, flush: bool) -> set[Fraction]:
    """What a program may make of sum w v + b: terms one after another in any order, the bias among them; a product is
    rounded before it is added, or not."""
    found, terms = set(), [*zip(weights, values, strict=True), (None, bias)]
    for order in permutations(terms):
        for fused in product((False, True), repeat=len(order)):
            total = None
            for (w, v), once in zip(order, fused, strict=True):
                term = v if w is None else w * v if once else rounded(w * v, flush)
                total = rounded(term if total is None else total + term, flush)
            found.add(total)
    return found


def outputs(net: nn.Sequential, x: list[Fraction]) -> set[Fraction]:
    """Of a linear layer, a ReLU and a linear layer with one output."""
    first, second = net[0], net[2]
    found = set()
    for flush in (False, True):
        inputs = [rounded(v, flush) for v in x]
        hidden = [dots([Fraction(w.item()) for w in row], inputs, Fraction(b.item()), flush)
                  for row, b in zip(first.weight, first.bias, strict=True)]  # fmt: skip
        for values in product(*hidden):
            kept = [max(v, Fraction(0)) for v in values]
            found |= dots([Fraction(w.item()) for w in second.weight[0]], kept, Fraction(second.bias.item()), flush)
    return found


def net(seed: int, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight *= scale
    return made


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1.0, 300.0, 2.0**-42])
def test_no_program_leaves_the_bounds(seed, scale):
    """At an input that is no float32; the smallest numbers are near where they are flushed."""
    made = net(seed, scale)
    x = np.random.default_rng(seed).normal(size=2)
    reached = outputs(made, [Fraction(v) for v in x])
    claim = Bounds(capture(made, torch.zeros(1, 2))["output"], over=box(x.tolist(), x.tolist()))
    found = prove(claim, semantics="float32", time_limit=20).theorem.range
    assert Fraction(found.low[0]) <= min(reached) and max(reached) <= Fraction(found.high[0])
    limit = float(max(reached))  # one unit below what a program reaches is false
    less = float(np.nextafter(np.float32(limit), np.float32(-np.inf)))
    tight = Bounds(claim.output, over=box(x.tolist(), x.tolist()), at_most=less)
    assert prove(tight, semantics="float32", time_limit=3).verdict != "PROVED"


@pytest.mark.parametrize("seed", range(4))
def test_counted_inputs_are_right_in_every_program(seed):
    """Outputs are compared with what one program makes of one of the inputs: there, some programs are right."""
    made, table = net(seed), np.random.default_rng(seed).normal(size=(9, 2)).astype(np.float32)

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.net = nn.Embedding.from_pretrained(torch.from_numpy(table)), made

        def forward(self, ids):
            return self.net(self.e(ids)[:, 0])

    reached = [outputs(made, [Fraction(float(v)) for v in row]) for row in table]
    limits = [sorted(r)[len(r) // 2] for r in reached[:2]]
    out, x = capture(Rows().eval(), torch.zeros(1, 1, dtype=torch.long))["output"], tokens("x", length=1, vocab=9)
    for limit in limits:
        found = prove(Share(out[0] > float(limit), over=x), semantics="float32", time_limit=20).theorem.right
        always, ever = (sum(f(y > limit for y in r) for r in reached) for f in (all, any))
        assert found.low <= always <= ever <= found.high
        false = Share(out[0] > float(limit), over=x, at_least=Fraction(always + 1, 9))
        assert prove(false, semantics="float32", time_limit=5).verdict != "PROVED"

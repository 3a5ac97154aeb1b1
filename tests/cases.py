"""One table of mechanisms for every level: compiling, the automaton, and whole proofs.

Each case: name, the sympy expression of token symbols x, and the same in plain Python on a list of ints.
"""

from sympy import Abs, And, Eq, Max, Min, Mod, Ne, Or, Piecewise, floor, sign

from mechverify import kth_largest


def _nesting(x, best):
    depth, depths = 0, []
    for t in x:
        depth = depth + 2 * (t - 1)
        depths.append(depth)
    return best(depths)


def _prefix_sums(x):
    return [sum(2 * (t - 1) for t in x[: i + 1]) for i in range(len(x))]


MECHANISMS = [
    ("max", lambda x: Max(*x), max),
    ("min", lambda x: Min(*x), min),
    ("second largest", lambda x: kth_largest(2, *x), lambda x: sorted(x)[-2]),
    ("sum", lambda x: sum(x), sum),
    ("mod of sum", lambda x: Mod(sum(x), 3), lambda x: sum(x) % 3),
    ("mod of negative sum", lambda x: Mod(-sum(x), 3), lambda x: -sum(x) % 3),
    ("constant", lambda x: 1, lambda x: 1),
    ("last token", lambda x: x[-1], lambda x: x[-1]),
    ("sign of sum", lambda x: 1 + sign(sum(x) - 3), lambda x: 1 + (sum(x) > 3) - (sum(x) < 3)),
    ("contains 1", lambda x: Piecewise((1, Or(*[Eq(t, 1) for t in x])), (0, True)), lambda x: int(1 in x)),
    ("count of 2", lambda x: sum(Piecewise((1, Eq(t, 2)), (0, True)) for t in x), lambda x: x.count(2)),
    ("parity of zeros", lambda x: Mod(sum(Piecewise((1, Eq(t, 0)), (0, True)) for t in x), 2),
     lambda x: x.count(0) % 2),
    ("first equals last", lambda x: Piecewise((1, Eq(x[0], x[-1])), (2, True)), lambda x: 1 if x[0] == x[-1] else 2),
    ("spread", lambda x: Max(*x) - Min(*x), lambda x: max(x) - min(x)),
    ("weighted", lambda x: Mod(sum((i + 1) * t for i, t in enumerate(x)), 4),
     lambda x: sum((i + 1) * t for i, t in enumerate(x)) % 4),
    ("half", lambda x: floor(sum(x) / 2), lambda x: sum(x) // 2),
    ("distance", lambda x: Abs(x[0] - x[-1]), lambda x: abs(x[0] - x[-1])),
    ("square", lambda x: Mod(x[0] ** 2 * x[-1], 4), lambda x: x[0] ** 2 * x[-1] % 4),
    ("nesting depth", lambda x: Max(*_prefix_sums(list(x))), lambda x: _nesting(x, max)),
    ("all below 2 or first", lambda x: Piecewise((x[0], And(*[t < 2 for t in x])), (1, Ne(x[0], 0)), (0, True)),
     lambda x: x[0] if all(t < 2 for t in x) else int(x[0] != 0)),
]  # fmt: skip
IDS = [name for name, _, _ in MECHANISMS]

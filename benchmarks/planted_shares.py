"""False claims on shares, each beside a true one that differs from it by one step: a part of benchmarks/shares.py.

The truth of claims on tokens is counted by torch in float64; that of claims on boxes is known in closed form. The suite
takes some of them (tests/soundness/test_planted_shares.py).
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from sympy import And, Eq, Max, Min, Mod, Ne
from torch import Tensor, nn

from benchmarks.board import Board
from mechverify import Accuracy, Share, box, capture, count, distinct, kth_largest, normal, prove, tokens, union

VOCAB, LENGTH, WIDTH = 6, 3, 8
SEEDS = (0, 1, 2)
STEPS = 40  # few: a model that errs
SECONDS = 60.0  # for a true claim
FALSE_SECONDS = 10.0  # for a false one: a search that can neither prove nor refute it has no end
LEAST = 40
SHORT = 2.0**-20  # of an edge, for rounding to be seen to do no harm


class Pair(NamedTuple):
    """Two claims: the false one is the true one with `fault` in it."""

    fault: str
    true: Accuracy | Share
    false: Accuracy | Share


class Net(nn.Module):
    """Token ids [batch, length] to logits [batch, vocab]: an MLP of the embeddings side by side."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(LENGTH * WIDTH, 24), nn.ReLU(), nn.Linear(24, VOCAB))

    def forward(self, ids: Tensor) -> Tensor:
        return self.mlp(self.embed(ids).flatten(1))


def trained(seed: int) -> Net:
    torch.manual_seed(seed)
    model = Net()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(STEPS):
        ids = torch.randint(VOCAB, (128, LENGTH))
        loss = nn.functional.cross_entropy(model(ids), ids.amax(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.double().eval()


class Guard(NamedTuple):
    """A condition as sympy has it, and as torch: ids [inputs, length] to truth values [inputs]."""

    given: Callable
    torch: Callable[[Tensor], Tensor]


def _repeats(ids: Tensor) -> Tensor:
    """How often the last token occurs before [inputs]."""
    return (ids[:, :-1] == ids[:, -1:]).sum(1)


ALL = Guard(lambda x: [], lambda ids: torch.ones(len(ids), dtype=torch.bool))
NARROW_AND_WIDE = [  # each condition, and a weaker one
    (Guard(lambda x: [distinct(*x)], lambda ids: ids.sort(1).values.diff(dim=1).ne(0).all(1)), ALL),
    (Guard(lambda x: [Ne(x[0], x[1])], lambda ids: ids[:, 0] != ids[:, 1]), ALL),
    (
        Guard(lambda x: [Eq(count(x[2], *x[:2]), 1)], lambda ids: _repeats(ids) == 1),
        Guard(lambda x: [count(x[2], *x[:2]) >= 1], lambda ids: _repeats(ids) >= 1),
    ),
    (
        Guard(lambda x: [count(x[2], *x[:2]) <= 0], lambda ids: _repeats(ids) <= 0),
        Guard(lambda x: [count(x[2], *x[:2]) <= 1], lambda ids: _repeats(ids) <= 1),
    ),
    *(
        (
            Guard(lambda x, s=s: [sum(x) <= s], lambda ids, s=s: ids.sum(1) <= s),
            Guard(lambda x, s=s: [sum(x) <= s + 1], lambda ids, s=s: ids.sum(1) <= s + 1),
        )
        for s in (4, 7, 10)
    ),
]
DECODERS = [  # what is said to be the answer, and what is not
    (lambda x: Max(*x), lambda ids: ids.amax(1)),
    (lambda x: Min(*x), lambda ids: ids.amin(1)),
    (lambda x: kth_largest(2, *x), lambda ids: ids.sort(1).values[:, -2]),
    (lambda x: Mod(Max(*x) + 1, VOCAB), lambda ids: (ids.amax(1) + 1) % VOCAB),
    (lambda x: x[0], lambda ids: ids[:, 0]),
]


def on_tokens(seed: int) -> Iterator[Pair]:
    model, x = trained(seed), tokens("x", length=LENGTH, vocab=VOCAB)
    output = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))["output"]
    ids = torch.cartesian_prod(*[torch.arange(VOCAB)] * LENGTH)
    with torch.no_grad():
        says = model(ids).argmax(1)

    def share(guard: Guard, answer: Callable[[Tensor], Tensor], more: int = 0) -> Fraction:
        given = guard.torch(ids)
        return Fraction(int((says == answer(ids))[given].sum()) + more, int(given.sum()))

    def claim(guard: Guard, decoder: Callable, at_least: Fraction) -> Accuracy:
        return Accuracy(output, equals=decoder(x), over=x, given=guard.given(x), at_least=at_least)

    (largest, answer), *others = DECODERS
    for guard in (ALL, *(narrow for narrow, _ in NARROW_AND_WIDE)):
        right = share(guard, answer)
        if right < 1:
            true, false = (claim(guard, largest, share(guard, answer, more)) for more in (0, 1))
            yield Pair("a share too high by one input", true, false)
    for narrow, wide in NARROW_AND_WIDE:
        right, of_wide = share(narrow, answer), share(wide, answer)
        if right > of_wide:
            true, false = (claim(guard, largest, right) for guard in (narrow, wide))
            yield Pair("a guard dropped" if wide is ALL else "a guard widened", true, false)
    for decoder, other in others:
        if share(ALL, other) < share(ALL, answer):
            true, false = (claim(ALL, d, share(ALL, answer)) for d in (largest, decoder))
            yield Pair("a wrong decoder", true, false)
    with torch.no_grad():
        y = model(ids)
    for a in range(VOCAB - 1):
        first, second = (Fraction(int((y[:, i] > y[:, j]).sum()), len(ids)) for i, j in ((a, a + 1), (a + 1, a)))
        higher, lower = (a, a + 1) if first > second else (a + 1, a)
        if first != second:
            true, false = (
                Share(output[i] > output[j], over=x, at_least=max(first, second))
                for i, j in ((higher, lower), (lower, higher))
            )
            yield Pair("another comparison", true, false)
    yield from _of_token_unions(output, (says == answer(ids)).reshape((VOCAB,) * LENGTH))


SETS = [  # of a union, by position; a few sequences are in several of them
    (range(4), range(4), range(3)), (range(2, 6), range(3, 6), range(1, 6)), ([1, 3], range(6), [0, 2, 5]),
]  # fmt: skip


def _of_token_unions(output, right: Tensor) -> Iterator[Pair]:
    """`right` [tokens at each position]: whether the largest is decoded."""

    def inside(sets: list) -> Tensor:
        held = torch.zeros(right.shape, dtype=torch.int64)
        for at in sets:
            held[torch.meshgrid(*map(torch.tensor, map(list, at)), indexing="ij")] += 1
        return held

    def claim(sets: list, at_least: Fraction) -> Accuracy:
        x = union([tokens("x", length=LENGTH, vocab=VOCAB, allowed=list(map(list, at))) for at in sets])
        return Accuracy(output, equals=Max(*x), over=x, at_least=at_least)

    held = inside(SETS)
    wrong, number = held[(held > 0) & ~right], int((held > 0).sum())
    share = Fraction(int(right[held > 0].sum()), number)
    false = [("a union's size off by one", SETS, Fraction(share.numerator * (number // share.denominator), number - 1))]
    false.append(("sequences of two sets counted twice", SETS, 1 - Fraction(len(wrong), int(held.sum()))))
    for k in range(len(SETS)):
        others = SETS[:k] + SETS[k + 1 :]
        left = inside(others) > 0
        if Fraction(int(right[left].sum()), int(left.sum())) < share:
            false.append(("a set dropped from a union", others, share))
    for fault, sets, at_least in false:
        if len(wrong) and (sets is not SETS or share < at_least <= 1):
            yield Pair(fault, claim(SETS, share), claim(sets, at_least))


class Affine(nn.Module):
    """Numbers [batch, 2] to the positive part of a weighted sum [batch, 1], zero at weights . x = bound."""

    def __init__(self, weights: list[float], bound: float):
        super().__init__()
        self.weights, self.bound = torch.tensor(weights, dtype=torch.float64), bound
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu((x * self.weights).sum(1, keepdim=True) - self.bound)


def on_boxes() -> Iterator[Pair]:
    """A net that is zero up to the corner of a box is positive on a sliver of a box that is an ulp larger."""
    for corner in ([1.0, 1.0], [0.5, 2.0], [3.0, 0.125], [1.0, 7.0]):
        net = Affine([1.0, 1.0], sum(corner))
        output = capture(net, torch.zeros(1, 2, dtype=torch.float64))["output"]
        for axis in range(2):
            longer, shorter = list(corner), list(corner)
            longer[axis] = math.nextafter(corner[axis], math.inf)
            shorter[axis] -= SHORT
            true, false = (
                Share(output[0] <= 0, over=box([-1.0, -1.0], high), at_least=1) for high in (shorter, longer)
            )
            yield Pair("a box too large by an ulp", true, false)
    slack = Fraction(1, 10**6)
    net = Affine([1.0, 1.0], 0.0)
    output = capture(net, torch.zeros(1, 2, dtype=torch.float64))["output"]
    for distribution in (None, normal(0, 1)):
        over = box([-4.0, -4.0], [4.0, 4.0], **({} if distribution is None else {"distribution": distribution}))
        x = over
        for condition in (output[0] > 0, And(x[0] > 0, output[0] > -1), x[0] > x[1]):  # each half of the box
            true, false = (
                Share(condition, over=over, at_least=Fraction(1, 2) + more, within=slack) for more in (-slack, slack)
            )
            yield Pair("a share of a box too high by a millionth", true, false)


def on_unions() -> Iterator[Pair]:
    """Of boxes on both sides of x = 0; the condition is that x is above it."""
    net = Affine([1.0, 0.0], 0.0)
    output, slack = capture(net, torch.zeros(1, 2, dtype=torch.float64))["output"], Fraction(1, 10**6)

    def claim(boxes: list, at_least: Fraction, distribution: Any = None) -> Share:
        extra = {} if distribution is None else {"distribution": distribution}
        over = union([box(*corners, **extra) for corners in boxes])
        return Share(output[0] > 0, over=over, at_least=at_least, within=slack)

    left, right = ([-1.0, 0.0], [0.0, 1.0]), ([0.0, 0.0], [1.0, 1.0])
    third, half_of_it = ([3.0, 2.0], [4.0, 3.0]), ([0.5, 0.0], [1.5, 1.0])
    share = Fraction(2, 3)
    for dropped in (right, third):
        rest = [b for b in (left, right, third) if b is not dropped]
        yield Pair("a box dropped from a union", claim([left, right, third], share - slack), claim(rest, share - slack))
    overlapping = [left, right, half_of_it]
    yield Pair(
        "a box counted twice where two overlap",
        claim(overlapping, Fraction(3, 5) - slack),
        claim(overlapping, share - slack),
    )
    again = [left, right, right, right]
    yield Pair(
        "a box counted twice where two overlap",
        claim(again, Fraction(1, 2) - slack),
        claim(again, Fraction(3, 4) - slack),
    )
    around = normal(0, 1)
    mirrored = [([-2.0, 0.0], [-1.0, 1.0]), ([1.0, 0.0], [2.0, 1.0])]
    for more in (slack, Fraction(1, 4)):
        yield Pair(
            "a share of a union too high", claim(mirrored, Fraction(1, 2) - slack, around),
            claim(mirrored, Fraction(1, 2) + more, around),
        )  # fmt: skip
    for corner in ([1.0, 1.0], [0.5, 2.0]):
        zero = capture(Affine([1.0, 1.0], sum(corner)), torch.zeros(1, 2, dtype=torch.float64))["output"]
        for axis in range(2):
            longer, shorter = list(corner), list(corner)
            longer[axis] = math.nextafter(corner[axis], math.inf)
            shorter[axis] -= SHORT
            true, false = (
                Share(zero[0] <= 0, over=union(box([-5.0, -5.0], [-4.0, -4.0]), box([-1.0, -1.0], high)), at_least=1)
                for high in (shorter, longer)
            )
            yield Pair("a box of a union too large by an ulp", true, false)


def planted(board: Board, quick: bool) -> None:
    """No false claim is proved; that each true one is shows that not everything is refused."""
    pairs = [p for seed in SEEDS[: 1 if quick else None] for p in on_tokens(seed)]
    pairs += [*on_boxes(), *on_unions()]
    kinds: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        verdicts = kinds.setdefault(pair.fault, [])
        verdicts.append(
            tuple(prove(c, time_limit=s).verdict for c, s in ((pair.true, SECONDS), (pair.false, FALSE_SECONDS)))
        )
    for fault, verdicts in kinds.items():
        true, false = zip(*verdicts, strict=True)
        figure = (
            f"{false.count('PROVED')} false ones proved, {false.count('REFUTED')} refuted; "
            f"{true.count('PROVED')} true ones proved"
        )
        board.row(
            f"{len(verdicts)} planted claims: {fault}",
            "no false one proved, every true one",
            figure,
            "PROVED" not in false and set(true) == {"PROVED"},
        )
    if not quick:
        board.row("planted false claims", f"at least {LEAST}", len(pairs), len(pairs) >= LEAST)

"""Contractions, reductions and joins: rows of the lowering table."""

import itertools
import math
from collections.abc import Callable, Sequence
from string import ascii_letters as LETTERS
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.arithmetic import (
    add,
    clamp,
    div,
    finite,
    maximum,
    minimum,
    mul,
    power,
    sub,
    where,
)
from mechverify.graph.build import Builder, NotLowered, Operand, Value

Dims = int | Sequence[int] | None


def linear(
    b: Builder, x: Operand, weight: Operand, bias: Operand | None = None
) -> Operand:
    """x [..., i], weight [o, i] or [i], bias [o]."""
    lead = LETTERS[2 : 1 + len(b.shape(x))]
    o = "b" * (len(b.shape(weight)) - 1)
    out = b.einsum(f"{lead}a,{o}a->{lead}{o}", x, weight)
    return out if bias is None else add(b, out, bias)


def matmul(b: Builder, x: Operand, y: Operand) -> Operand:
    n, m = len(b.shape(x)), len(b.shape(y))
    lead = LETTERS[3 : 3 + max(n, m, 2) - 2]
    row, column = "a" * (n > 1), "c" * (m > 1)
    first, second = lead[len(lead) - max(n - 2, 0) :], lead[len(lead) - max(m - 2, 0) :]
    return b.einsum(f"{first}{row}b,{second}b{column}->{lead}{row}{column}", x, y)


def addmm(
    b: Builder, bias: Operand, x: Operand, y: Operand, beta: float = 1, alpha: float = 1
) -> Operand:
    return add(b, mul(b, matmul(b, x, y), alpha), mul(b, bias, beta))


def bilinear(
    b: Builder, x: Operand, y: Operand, weight: Operand, bias: Operand | None = None
) -> Operand:
    out = einsum(b, "...i,oij,...j->...o", [x, weight, y])
    return out if bias is None else add(b, out, bias)


def einsum(
    b: Builder, spec: str, operands: Sequence[Operand], path: Any = None
) -> Operand:
    terms = spec.replace(" ", "").split("->")[0].split(",")
    ranks = [
        len(b.shape(x)) - len(t.replace("...", ""))
        for t, x in zip(terms, operands, strict=True)
    ]
    free = "".join(c for c in LETTERS if c not in spec)[: max(ranks)]
    terms = [
        t.replace("...", free[len(free) - r :])
        for t, r in zip(terms, ranks, strict=True)
    ]
    if "->" in spec:
        result = spec.replace(" ", "").split("->")[1].replace("...", free)
    else:
        letters = sorted({c for t in terms for c in t if c not in free})
        result = free + "".join(
            c for c in letters if sum(t.count(c) for t in terms) == 1
        )
    pairs = [_diagonal(b, t, x) for t, x in zip(terms, operands, strict=True)]
    if len(pairs) == 1:
        pairs.append(("", 1.0))
    while len(pairs) > 1:
        (first, x), (second, y), *rest = pairs
        wanted = set(result).union(*(t for t, _ in rest))
        out = (
            result
            if not rest
            else "".join(c for c in dict.fromkeys(first + second) if c in wanted)
        )
        pairs = [(out, b.einsum(f"{first},{second}->{out}", x, y)), *rest]
    return pairs[0][1]


def _diagonal(b: Builder, term: str, x: Operand) -> tuple[str, Operand]:
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            i, j = term.index(letter), term.rindex(letter)
            x = b.moved(x, lambda a, i=i, j=j: a.diagonal(dim1=i, dim2=j))
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    return term, x


def axes(b: Builder, x: Operand, dim: Dims) -> list[int]:
    rank = len(b.shape(x))
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(rank))
    return (
        sorted(d % rank for d in ([dim] if isinstance(dim, int) else dim))
        if rank
        else []
    )


def last(b: Builder, x: Operand, dim: Dims) -> tuple[Operand, list[int]]:
    """The axes of `dim` put last as one axis; and torch's shape of the reduced value, axes kept."""
    reduced = axes(b, x, dim)
    rest = [d for d in range(len(b.shape(x))) if d not in reduced]
    sizes = [b.shape(x)[d] for d in rest]
    kept = [1 if d in reduced else size for d, size in enumerate(b.shape(x))]
    return b.moved(x, lambda a: a.permute(rest + reduced).reshape([*sizes, -1])), kept


def reduced(reduce: Callable[[Builder, Operand], Operand]) -> Callable:
    """A reduction over `dim` from one over the last axis."""

    def row(
        b: Builder, x: Operand, dim: Dims = None, keepdim: bool = False, *_
    ) -> Operand:
        flat, kept = last(b, x, dim)
        out = reduce(b, flat)
        return b.shaped(out, kept) if keepdim is True else out

    return row


def total(b: Builder, x: Operand) -> Operand:
    """Over the last axis."""
    letters = LETTERS[: len(b.shape(x))]
    return b.einsum(f"{letters},->{letters[:-1]}", x, 1.0)


def average(b: Builder, x: Operand) -> Operand:
    return div(b, total(b, x), float(b.shape(x)[-1]))


def centred(b: Builder, x: Operand) -> Operand:
    """x minus its mean over the last axis, as one linear map: (n I - 1) x / n."""
    n = b.shape(x)[-1]
    return div(b, linear(b, x, n * torch.eye(n, dtype=torch.float64) - 1), float(n))


def squares(b: Builder, x: Operand) -> Operand:
    return total(b, power(b, x, 2))


def tree(
    combine: Callable[[Builder, Operand, Operand], Operand],
) -> Callable[[Builder, Operand], Operand]:
    """Combines the entries of the last axis in halves."""

    def reduce(b: Builder, x: Operand) -> Operand:
        while b.shape(x)[-1] > 1:
            x = _halved(b, combine, x)
        return b.moved(x, lambda a: a[..., 0])

    return reduce


def _halved(
    b: Builder, combine: Callable[[Builder, Operand, Operand], Operand], x: Operand
) -> Operand:
    h, odd = divmod(b.shape(x)[-1], 2)
    both = combine(
        b, b.moved(x, lambda a: a[..., :h]), b.moved(x, lambda a: a[..., h : 2 * h])
    )
    rest = [b.moved(x, lambda a: a[..., 2 * h :])] if odd else []
    return concatenate(b, [both, *rest], len(b.shape(both)) - 1) if odd else both


def extreme(which: str) -> Callable[[Builder, Operand], Operand]:
    """The largest, or the smallest, entry of the last axis."""

    def reduce(b: Builder, x: Operand) -> Operand:
        if b.shape(x)[-1] == 1:
            return b.moved(x, lambda a: a[..., 0])
        return b.along_last("extremum", x, b.shape(x)[:-1], which)

    return reduce


largest, smallest = (reduced(extreme(which)) for which in ("max", "min"))
product = reduced(tree(mul))


def extremum(reduce: Callable) -> Callable:
    """max and min: over all, over an axis (with indices, which nothing may use), or of two operands."""

    def row(b: Builder, x: Operand, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, Value | Tensor):
            return (maximum if reduce is largest else minimum)(b, x, dim)
        return (
            reduce(b, x)
            if dim is None
            else (reduce(b, x, dim, keepdim), NotLowered("use amax or amin"))
        )

    return row


def variance(
    b: Builder, x: Operand, dim: Dims, correction: float | bool | None, keepdim: bool
) -> Operand:
    flat, kept = last(b, x, dim)
    out = div(
        b,
        squares(b, centred(b, flat)),
        float(b.shape(flat)[-1] - (1 if correction is None else correction)),
    )
    return b.shaped(out, kept) if keepdim else out


def logarithm(b: Builder, x: Operand) -> Operand:
    """Of a softmax, log_softmax: the same, and finite where a probability is tiny."""
    scores = b.axis_of.get(x.node) if isinstance(x, Value) else None
    return b.elementwise("log", x) if scores is None else log_softmax(b, *scores)


def with_mean(
    b: Builder, x: Operand, dim: Dims, correction: float | bool | None, keepdim: bool
) -> tuple:
    return variance(b, x, dim, correction, keepdim), reduced(average)(
        b, x, dim, keepdim
    )


def deviation(b: Builder, *args: Any) -> Operand:
    return b.elementwise("sqrt", variance(b, *args))


def norm(
    b: Builder,
    x: Operand,
    order: float = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *_,
) -> Operand:
    size = b.elementwise("abs", x)
    if order in (1, math.inf):
        return (reduced(total) if order == 1 else largest)(b, size, dim, keepdim)
    if order != 2:
        raise NotLowered(f"a norm of order {order}: use 1, 2 or inf")
    return b.elementwise("sqrt", reduced(squares)(b, x, dim, keepdim))


def cumulative(b: Builder, x: Operand, dim: int, *_) -> Operand:
    moved = b.moved(x, lambda a: a.movedim(dim, -1))
    n = b.shape(moved)[-1]
    return b.moved(
        linear(b, moved, torch.ones(n, n, dtype=torch.float64).tril()),
        lambda a: a.movedim(-1, dim),
    )


def scan(combine: Callable[[Builder, Operand, Operand], Operand]) -> Callable:
    """The running combination of the entries along an axis."""

    def row(b: Builder, x: Operand, dim: int, *_) -> Operand:
        rank = max(len(b.shape(x)), 1)
        x = b.shaped(x, b.shape(x) or (1,))
        slices = [
            b.moved(x, lambda a, k=k: a.select(dim, k)) for k in range(b.shape(x)[dim])
        ]
        running = list(
            itertools.accumulate(slices, lambda total, part: combine(b, total, part))
        )
        return b.shaped(stacked(b, running, dim % rank), b.shape(x))

    return row


def concatenate(b: Builder, xs: Sequence[Operand], dim: int = 0) -> Operand:
    parts = [finite(b, x) for x in xs if 0 not in b.shape(x)]
    if not parts:
        return torch.cat([torch.as_tensor(x) for x in xs], dim)
    axis = dim % len(b.shape(parts[0][0]))
    keeps = [
        torch.ones(b.shape(x), dtype=torch.bool) if k is None else k for x, k in parts
    ]
    out = b.concat([x for x, _ in parts], axis)
    return (
        Value(out.node, torch.cat(keeps, axis))
        if any(k is not None for _, k in parts)
        else out
    )


def stacked(b: Builder, xs: Sequence[Operand], dim: int = 0) -> Operand:
    return concatenate(
        b,
        [b.moved(x, lambda a: a.unsqueeze(dim)) for x in xs],
        dim % (len(b.shape(xs[0])) + 1),
    )


def pad(
    b: Builder, x: Operand, widths: Sequence[int], value: float | None = None
) -> Operand:
    source, keep = finite(b, x)
    index = torch.arange(1.0, 1 + math.prod(b.shape(x)), dtype=torch.float64).reshape(
        b.shape(x)
    )
    index = torch.nn.functional.pad(index, list(widths)).long()
    inside, value = index > 0, 0.0 if value is None else float(value)
    filling = 0.0 if value == -math.inf else value
    out = Value(b.move([b.node(filling), b.node(source)], index.numpy()))
    keep = (
        None
        if keep is None
        else torch.nn.functional.pad(keep.double(), list(widths), value=1.0) > 0
    )
    return where(b, inside, out, value) if value != filling else Value(out.node, keep)


def softmax(b: Builder, x: Operand, dim: int, *_) -> Operand:
    return b.softmax(x, dim)


def safe_softmax(b: Builder, x: Operand, dim: int, *_) -> Operand:
    """As softmax, but zero where all entries are masked: so torch's scaled_dot_product_attention."""
    if not isinstance(x, Value) or x.keep is None:
        return b.softmax(x, dim)
    some = x.keep.any(dim, keepdim=True)
    pattern = b.softmax(Value(x.node, x.keep | ~some), dim)
    if bool(some.all()):
        return pattern
    zeroed = mul(b, some.double().expand(b.shape(x)), pattern)
    assert isinstance(zeroed, Value)
    b.softmaxes[-1] = x, zeroed
    return zeroed


def log_sum_exp(b: Builder, x: Operand, y: Operand) -> Operand:
    """log(e^x + e^y) = x + softplus(y - x): finite, and as steep as its operands, whatever their size."""
    (x, keep_x), (y, keep_y) = finite(b, x), finite(b, y)
    both = add(b, x, b.elementwise("softplus", sub(b, y, x)))
    if keep_x is not None:  # of an operand that is minus infinity, the other one
        both = where(b, keep_x, both, y)
    if keep_y is not None:
        both = where(b, keep_y, both, x)
    if keep_x is None or keep_y is None or bool((keep_x | keep_y).all()):
        return both
    return Value(b.node(both), keep_x | keep_y)


log_sum = reduced(tree(log_sum_exp))


def all_but_one(b: Builder, x: Operand) -> Operand:
    """At each entry of the last axis, log-sum-exp of the others: down the tree that `log_sum` goes up."""
    levels = [x]
    while (n := b.shape(levels[-1])[-1]) > 2:
        levels.append(_halved(b, log_sum_exp, levels[-1]))
    out = b.moved(levels.pop(), lambda a: a.flip(-1))
    for level in reversed(levels):
        n = b.shape(level)[-1]
        above = b.moved(out, lambda a, h=n // 2: a[..., [*range(h), *range(h)]])
        beside = b.moved(
            level, lambda a, h=n // 2: a[..., [*range(h, 2 * h), *range(h)]]
        )
        parts = [log_sum_exp(b, above, beside)]
        if n % 2:
            parts.append(b.moved(out, lambda a, h=n // 2: a[..., h:]))
        out = concatenate(b, parts, len(b.shape(x)) - 1)
    return out


def log_softmax(b: Builder, x: Operand, dim: int, *_) -> Operand:
    """-log(1 + e^(r - x)), r being log-sum-exp of the other entries: at most zero, whatever is known of x."""
    last = b.moved(x, lambda a: a.movedim(dim, -1)) if b.shape(x) else b.shaped(x, (1,))
    own, keep = finite(b, last)
    if b.shape(last)[-1] == 1:
        return torch.zeros(b.shape(x), dtype=torch.float64)
    rest, others = finite(b, all_but_one(b, last))
    out = mul(b, b.elementwise("softplus", sub(b, rest, own)), -1)
    if others is not None:  # the only entry that isn't minus infinity
        out = where(b, others, out, 0.0)
    out = out if keep is None else Value(b.node(out), keep)
    return b.moved(out, lambda a: a.movedim(-1, dim).reshape(b.shape(x)))


def loss(of_difference: Callable[[Builder, Operand, float], Operand]) -> Callable:
    """torch's reductions of a function of the difference: 0 none, 1 mean, 2 sum."""

    def row(
        b: Builder, x: Operand, y: Operand, reduction: int = 1, width: float = 1.0
    ) -> Operand:
        out = of_difference(b, sub(b, x, y), width)
        return (
            (reduced(average), reduced(total))[reduction - 1](b, out)
            if reduction
            else out
        )

    return row


def huber(b: Builder, d: Operand, width: float) -> Operand:
    """c (d - c / 2), c being d clamped: quadratic up to the width, linear beyond."""
    c = clamp(b, d, -width, width)
    return mul(b, c, sub(b, d, div(b, c, 2.0)))


ROWS: dict[str, Callable] = {
    "huber_loss": loss(huber), "smooth_l1_loss": loss(lambda b, d, width: div(b, huber(b, d, width), width)),
    "linear": linear, "matmul": matmul, "mm": matmul, "bmm": matmul, "mv": matmul, "dot": matmul,
    "addmm": addmm, "baddbmm": addmm, "addmv": addmm, "bilinear": bilinear, "einsum": einsum,
    "sum": reduced(total), "mean": reduced(average), "amax": largest, "amin": smallest, "prod": product,
    "max": extremum(largest), "min": extremum(smallest), "cumsum": cumulative,
    "cumprod": scan(mul), "logcumsumexp": scan(log_sum_exp),
    "cummax": lambda *args: (scan(maximum)(*args), NotLowered("the index of a maximum jumps")),
    "cummin": lambda *args: (scan(minimum)(*args), NotLowered("the index of a minimum jumps")),
    "var.correction": lambda b, x, dim=None, correction=None, keepdim=False: variance(b, x, dim, correction, keepdim),
    "std.correction": lambda b, x, dim=None, correction=None, keepdim=False: deviation(b, x, dim, correction, keepdim),
    "var": lambda b, x, unbiased=True: variance(b, x, None, unbiased, False),
    "std": lambda b, x, unbiased=True: deviation(b, x, None, unbiased, False),
    "var.dim": lambda b, x, dim, unbiased=True, keepdim=False: variance(b, x, dim, unbiased, keepdim),
    "std.dim": lambda b, x, dim, unbiased=True, keepdim=False: deviation(b, x, dim, unbiased, keepdim),
    "var_mean.correction": lambda b, x, dim=None, correction=None, keep=False: with_mean(b, x, dim, correction, keep),
    "var_mean.dim": lambda b, x, dim, unbiased=True, keepdim=False: with_mean(b, x, dim, unbiased, keepdim),
    "var_mean": lambda b, x, unbiased=True: with_mean(b, x, None, unbiased, False),
    "linalg_vector_norm": norm, "norm": lambda b, x, p, *rest: norm(b, x, 2 if p is None else p, *rest),
    "log": logarithm, "logsumexp": log_sum, "logaddexp": log_sum_exp,
    "cat": concatenate, "stack": stacked, "constant_pad_nd": pad,
    "softmax": softmax, "_softmax": softmax, "_safe_softmax": safe_softmax,
    "log_softmax": log_softmax, "_log_softmax": log_softmax,
}  # fmt: skip

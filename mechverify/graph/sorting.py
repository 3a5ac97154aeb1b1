"""Sorted values, by a network of maxima and minima: Batcher's merge exchange (Knuth, The Art of Computer Programming,
volume 3, 5.2.2, algorithm M). About (log2 n)^2 / 2 rounds; the order itself jumps, so nothing may use the indices."""

from collections.abc import Iterator

from mechverify.graph.arithmetic import finite, maximum, minimum
from mechverify.graph.build import Builder, NotLowered, Operand
from mechverify.graph.reductions import concatenate

INDICES = "the index of a sorted value jumps: use the values"


def rounds(n: int) -> Iterator[list[tuple[int, int]]]:
    """Pairs of entries to be put in order, those of a round at once."""
    step = first = 1 << max(0, (n - 1).bit_length() - 1)
    while step:
        width, rest, apart = first, 0, step
        while True:
            yield [(i, i + apart) for i in range(n - apart) if i & step == rest]
            if width == step:
                break
            apart, width, rest = width - step, width // 2, step
        step //= 2


def ascending(b: Builder, x: Operand, dim: int) -> Operand:
    """The values of an axis, put last, the least one first."""
    if not b.shape(x):
        return x
    if finite(b, x)[1] is not None:
        raise NotLowered("minus infinity among sorted values: mask them after sorting")
    x = b.moved(x, lambda a: a.movedim(dim, -1))
    n, axis = b.shape(x)[-1], len(b.shape(x)) - 1
    for pairs in filter(None, rounds(n)):
        first, second = ([pair[i] for pair in pairs] for i in (0, 1))
        low = b.moved(x, lambda a: a[..., first])  # noqa: B023
        high = b.moved(x, lambda a: a[..., second])  # noqa: B023
        alone = sorted({*range(n)} - {i for pair in pairs for i in pair})
        parts = [minimum(b, low, high), maximum(b, low, high)]
        parts += [b.moved(x, lambda a: a[..., alone])] if alone else []  # noqa: B023
        places = [*(i for i, _ in pairs), *(i for _, i in pairs), *alone]
        back = sorted(range(n), key=places.__getitem__)
        x = b.moved(concatenate(b, parts, axis), lambda a: a[..., back])  # noqa: B023
    return x


def sort(b: Builder, x: Operand, dim: int = -1, descending: bool = False) -> tuple:
    out = ascending(b, x, dim)
    if b.shape(x):
        out = b.moved(out, lambda a: (a.flip(-1) if descending else a).movedim(-1, dim))
    return out, NotLowered(INDICES)


def stable(
    b: Builder,
    x: Operand,
    stable: bool | None = None,
    dim: int = -1,
    descending: bool = False,
) -> tuple:
    return sort(b, x, dim, descending)


def topk(
    b: Builder,
    x: Operand,
    k: int,
    dim: int = -1,
    largest: bool = True,
    in_order: bool = True,
) -> tuple:
    if not in_order:
        raise NotLowered(
            "topk without an order may give its values in any: say sorted=True"
        )
    out, indices = sort(b, x, dim, largest)
    return b.moved(out, lambda a: a.narrow(dim, 0, k)), indices


def kth(b: Builder, x: Operand, k: int, dim: int = -1, keepdim: bool = False) -> tuple:
    """The k-th smallest."""
    out, indices = sort(b, x, dim)
    out = b.moved(out, lambda a: a.select(dim, k - 1))
    return (b.moved(out, lambda a: a.unsqueeze(dim)) if keepdim else out), indices


def median(b: Builder, x: Operand, dim: int = -1, keepdim: bool = False) -> tuple:
    """The lower one of two."""
    return kth(b, x, (b.shape(x)[dim] + 1) // 2, dim, keepdim)


ROWS = {
    "sort": sort, "sort.stable": stable, "topk": topk, "kthvalue": kth, "median.dim": median,
    "msort": lambda b, x: sort(b, x, 0)[0],
}  # fmt: skip

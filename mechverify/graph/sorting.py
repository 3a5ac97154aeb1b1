"""Sorted values; the order itself jumps, so nothing may use the indices."""

from mechverify.graph.arithmetic import finite
from mechverify.graph.build import Builder, NotLowered, Operand

INDICES = "the index of a sorted value jumps: use the values"


def ascending(b: Builder, x: Operand, dim: int) -> Operand:
    """The values of an axis, put last, the least one first."""
    if not b.shape(x):
        return x
    if finite(b, x)[1] is not None:
        raise NotLowered("minus infinity among sorted values: mask them after sorting")
    x = b.moved(x, lambda a: a.movedim(dim, -1))
    if b.shape(x)[-1] == 1:
        return x
    return b.along_last("ascending", x, b.shape(x))


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

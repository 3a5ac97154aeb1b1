"""ATen operations of transformers: attention, embedding, and what else takes rows by token ids."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.arithmetic import add, mul, over_root, where
from mechverify.graph.build import Builder, NotLowered, Operand, Value
from mechverify.graph.reductions import LETTERS, matmul, safe_softmax

Optional = Operand | None


def attention(b: Builder, q: Operand, k: Operand, v: Operand, mask: Optional = None, dropout: float = 0.0,
              causal: bool = False, scale: float | None = None, grouped: bool = False) -> Operand:  # fmt: skip
    """Scaled dot-product attention: q [..., j, e], k [..., i, e], v [..., i, f]."""
    if dropout:
        raise NotLowered("dropout in training: call eval()")
    if grouped:
        times = b.shape(q)[-3] // b.shape(k)[-3]
        k, v = (b.moved(a, lambda t: t.repeat_interleave(times, -3)) for a in (k, v))
    scores = matmul(b, q, b.moved(k, lambda a: a.transpose(-1, -2)))
    products = b.unviewed(b.node(scores))
    scores = (
        over_root(b, scores, b.shape(q)[-1]) if scale is None else mul(b, scores, scale)
    )
    if causal:
        scores = where(
            b, torch.ones(b.shape(scores)[-2:]).tril() > 0, scores, -math.inf
        )
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        scores = where(b, mask, scores, -math.inf)
    elif mask is not None:
        scores = add(b, scores, mask)
    pattern = safe_softmax(b, scores, -1)
    out = matmul(b, pattern, v)
    b.attentions.append(
        ([products], b.joined(b.node(pattern)), [b.unviewed(b.node(out))])
    )
    return out


def checked(b: Builder, ids: Value, rows: int) -> Tensor:
    """What the token ids have become, all rows of a table."""
    table = torch.arange(len(b.graph.values)) if ids.table is None else ids.table.long()
    if not 0 <= int(table.min()) <= int(table.max()) < rows:
        span = f"{int(table.min())} to {int(table.max())}"
        raise NotLowered(
            f"token ids have become {span}, the table has {rows} rows: pass vocab=, or clamp them"
        )
    return table


def embedding(b: Builder, weight: Operand, ids: Operand, *_) -> Value:
    """Rows of a table [rows, ...] at token ids."""
    if not isinstance(ids, Value) or b.graph.nodes[ids.node].kind != "ids":
        raise NotLowered("an embedding of what isn't a token id")
    if isinstance(weight, Value):  # a table that is computed from weights
        rows = b.shape(weight)[0]
        hot = one_hot(b, ids, rows)
        rest = LETTERS[1 : len(b.shape(weight))]
        lead = LETTERS[len(rest) + 1 : len(rest) + 1 + len(b.shape(ids))]
        return b.einsum(f"{lead}a,a{rest}->{lead}{rest}", hot, weight)
    weight = torch.as_tensor(weight)
    table = (
        weight
        if ids.table is None
        else weight.index_select(0, checked(b, ids, len(weight)))
    )
    node = b.graph.add("gather", b.table(table), b.stripped(ids.node))
    return Value(b.reshape(node, b.shape(ids) + b.shape(table)[1:]))


def one_hot(b: Builder, ids: Operand, classes: int) -> Operand:
    return embedding(b, torch.eye(classes, dtype=torch.float64), ids)


def index(b: Builder, x: Operand, indices: Sequence[Any]) -> Operand:
    """x[indices]: of token ids, an embedding; of constants, moved entries."""
    at = [k for k, i in enumerate(indices) if isinstance(i, Value)]
    if not at:
        return b.moved(x, lambda a: torch.ops.aten.index.Tensor(a, indices))
    if sum(i is not None for i in indices) > 1:
        raise NotLowered(
            "an index by token ids and another one together: index one axis at a time, or multiply by one_hot"
        )
    if isinstance(x, Value) and any(
        b.graph.nodes[n].op in ("input", "tokens") for n in b.graph.ancestors([x.node])
    ):
        raise NotLowered(
            "an index by token ids of what depends on the input: multiply by one_hot"
        )
    (axis,), row = at, indices[at[0]]
    if (
        row.table is not None and row.table.dtype != torch.bool
    ):  # as torch: -1 is the last row
        row = Value(
            row.node,
            table=torch.where(row.table < 0, row.table + b.shape(x)[axis], row.table),
        )
    if (
        isinstance(x, Tensor) and not x.is_floating_point() and x.ndim == 1
    ):  # other ids, or whether
        return Value(row.node, table=x[checked(b, row, len(x))])
    if axis == 0:
        return embedding(b, x, row)
    found = embedding(b, b.moved(x, lambda a: a.movedim(axis, 0).contiguous()), row)
    places = range(len(b.shape(row)))
    return b.moved(
        found, lambda a: a.movedim(tuple(places), tuple(axis + k for k in places))
    )


ROWS = {
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
    "one_hot": one_hot,
    "index": index,
}

"""Which of torch's operations compute in float32 what a graph's disturbances cover, and what else a certificate must
say of a module for a theorem about its float32 programs.

The kernel's lemma O4 bounds what a float32 program of each *graph* operation may add. A torch operation is in COVERED
where every float32 program of it is among those of the nodes that it became: where it rounds no more often than they
do, or is one of the functions, softmaxes and normalisations that the axiom `torch:float32` is about. Others are named.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mechverify.graph.build import Builder, Value
from mechverify.graph.lowering import CASTS, EXACT, MOVED, SHAPE_ALONE, name_of
from mechverify.kernel.core.graph import Graph

ATTENTION = "scaled_dot_product_attention"
MOVING = ("view", "concat", "gather", "tokens", "input", "weight", "constant", "select")
FOLDED = {
    "arange",
    "zeros",
    "ones",
    "eye",
    "full",
    "scalar_tensor",
}  # constants that are as they are written


class Programs(NamedTuple):
    """Of a captured graph: how many of its nodes the module computes (the first ones), which of them are normalised
    vectors, why a theorem can't be about its float32 programs (None: it can), and which nodes are scores, patterns and
    averages of fused attentions."""

    rows: int
    norms: tuple[int, ...]
    missing: str | None
    fused: tuple[tuple[int, ...], ...] = ()


class Recording(Graph):
    """A graph in which each call has nodes of its own, but for entries that are moved: what a module computes twice, a
    program may round twice."""

    def __init__(self, length: int, values: tuple[int, ...]):
        super().__init__(length, values)
        self.call: Any = None
        self.by: dict[int, Any] = {}

    def add(self, op: str, *args: int, attr: Any = None) -> int:
        n = super().add(op, *args, attr=attr)
        if self.by.setdefault(n, self.call) != self.call and op not in MOVING:
            del self._ids[op, args, attr]
            n = super().add(op, *args, attr=attr)
            self.by[n] = self.call
        return n


def opened(graph: Graph) -> Graph:
    """A copy for a claim's own nodes. None of these is found among the module's, but for entries that are moved: of
    float32 values, what a claim computes is exact, and what the module computes is not. Nor are moved entries of inputs
    and numbers: a module reads these rounded."""
    copied, told = copy.deepcopy(graph), set()
    for n, node in enumerate(copied.nodes):
        if node.op in ("input", "constant", "weight") or (
            node.op in ("view", "concat") and told & {*node.args}
        ):
            told.add(n)
    copied._ids = {
        key: n
        for key, n in copied._ids.items()
        if (key[0] in MOVING or copied.nodes[n].kind != "real")
        and not (key[1] and n in told)
    }
    return copied


# what leaves subnormal numbers where they are, if it changes nothing
COPIES = (
    MOVED
    | CASTS
    | {
        "where",
        "masked_fill",
        "dropout",
        "cat",
        "stack",
        "tril",
        "triu",
        "embedding",
        "pow",
    }
)


def apart(
    b: Builder, node: torch.fx.Node, args: tuple, kwargs: dict[str, Any], value: Any
) -> Any:
    """What a call gives, as a node of its own where it is an operand over the reals: a program of x * 1 may flush a
    subnormal number. As long as a mask is to come, there is none: nothing but what a softmax reads is made of it, and
    each operation may flush what it reads; entries that are taken out of it, none of them masked, may have been flushed
    before."""
    if isinstance(value, list | tuple) and not isinstance(value, Value):
        return type(value)(apart(b, node, args, kwargs, part) for part in value)
    if (
        not isinstance(value, Value)
        or value.keep is not None
        or b.graph.nodes[value.node].kind != "real"
    ):
        return value
    leaves = pytree.tree_leaves((args, kwargs), is_leaf=_is_value)
    same = [
        a
        for a in leaves
        if isinstance(a, Value) and b.unviewed(a.node) == b.unviewed(value.node)
    ]
    likes = [
        like
        for like in pytree.tree_leaves(node.meta["val"])
        if isinstance(like, Tensor)
    ]
    copied = name_of(cast(Any, node.target)) in COPIES and all(
        a.keep is None for a in same
    )
    if not same or copied or not all(like.is_floating_point() for like in likes):
        return value
    own = b.elementwise("mul", value, 1.0)
    if value.node in b.truths:
        b.truths.add(own.node)
    return own


def missing(
    b: Builder,
    node: torch.fx.Node,
    args: tuple,
    kwargs: dict[str, Any],
    value: Any,
) -> str | None:
    """What stands in the way at a call of the program, and what to do: in words; None if nothing does. `args` and
    `kwargs` are as the program has them, but for values and float64 tensors; `value` is what the graph has."""
    graph, op = b.graph, cast(Any, node.target)
    name = name_of(op)
    leaves = pytree.tree_leaves((args, kwargs), is_leaf=_is_value)
    known = [a for a in leaves if isinstance(a, Value)]
    found = [
        a for a in pytree.tree_leaves(value, is_leaf=_is_value) if isinstance(a, Value)
    ]
    if not known and not found:
        if _as_float32(op, name, args, kwargs, value):
            return None
        return f"{name} of constants, which a program rounds: compute it once, and keep the result as a buffer"
    for like in pytree.tree_leaves(node.meta["val"]):
        if like.is_floating_point() and like.dtype != torch.float32:
            return f"{name} in {like.dtype}: stay in one type"  # casts are no nodes of a graph
    if name in MOVED | CASTS | SHAPE_ALONE:
        return None
    if not _moves_ids(graph, known, found) and not _tabulated_alike(
        graph, op, args, kwargs, known
    ):
        return f"{name} of token ids, which comes out otherwise in float32: look it up in an embedding"
    if name not in COVERED:
        return f"{name}, whose float32 programs no lemma covers: write it with operations that have a row in lemma O4"
    full = [args[k] if k < len(args) else kwargs.get(a.name, a.default_value)
            for k, a in enumerate(op._schema.arguments)]  # fmt: skip
    named = dict(zip([a.name for a in op._schema.arguments], full, strict=True))
    if not COVERED[name](named):
        advice = (
            "scale the queries, and give scale=1.0"
            if name == ATTENTION
            else "write it with simpler operations"
        )
        return f"{name} with these arguments, whose float32 programs no lemma covers: {advice}"
    if name == ATTENTION:
        ops = [{graph.nodes[n].op for n in part} for part in b.attentions[-1]]
        if ops != [{"einsum"}, {"softmax"}, {"einsum"}]:
            return f"{name} to one key, or by heads of one entry, which no lemma covers: write it with softmax and @"
    return None


ROUNDED = {"add", "sub", "rsub", "mul", "div"}  # each entry once, to nearest
SUMS = {"sum", "cumsum"}


def _as_float32(
    op: Any, name: str, args: tuple, kwargs: dict[str, Any], value: Any
) -> bool:
    """Computed from constants, the numbers are those that float32 arithmetic gives, or they are rounded once (the
    kernel sees which); and whatever is compared, or rounded once, comes out so in float32."""
    tensors = [a for a in pytree.tree_leaves(value) if isinstance(a, Tensor)]
    floats = any(a.is_floating_point() for a in tensors)
    if floats and name in ROUNDED | SUMS:
        return _rounded_once(name, args, kwargs, value)
    if floats and name not in MOVED | EXACT | CASTS | SHAPE_ALONE | FOLDED:
        return False
    if name == "index_put" and (args[3] if len(args) > 3 else kwargs.get("accumulate")):
        return False
    if "reduce" in op._overloadname:
        return False
    if name == "arange" and not all(a == int(a) for a in args):
        return False
    computed = _shortly(op, args, kwargs)
    return all(
        not isinstance(a, Tensor) or torch.equal(_shorter(a), b)
        for a, b in zip(
            pytree.tree_leaves(value), pytree.tree_leaves(computed), strict=True
        )
    )


def _rounded_once(
    name: str, args: tuple, kwargs: dict[str, Any], value: Tensor
) -> bool:
    """Every program has the operands as they are here, and rounds the exact result once, to nearest, if it isn't a
    float32 number: then all have the same, and `value` is as near to it as one rounding."""
    numbers = [a for a in args if isinstance(a, Tensor | int | float)]
    if any(a is not None for a in kwargs.values()) or not all(
        map(_in_float32, [*numbers, value.float()])
    ):
        return False
    if name in SUMS:  # of integers so small that all their sums are float32 numbers
        x = args[0].double()
        return bool((x == x.round()).all()) and float(x.abs().sum()) <= 2**24
    x, y = (torch.as_tensor(a, dtype=torch.float64) for a in numbers)
    match name:  # what float64 rounds here could be another number than the same one written down
        case "add" | "sub" | "rsub":
            x, y = (x, -y) if name == "sub" else (-x, y) if name == "rsub" else (x, y)
            back = value - x
            return bool((x == value - back).all()) and bool((y == back).all())
        case "div":  # by powers of two
            return bool((y.frexp()[0].abs() == 0.5).all())
    return True


def _in_float32(a: Any) -> bool:
    """Of float32 numbers that no program flushes."""
    x = torch.as_tensor(a, dtype=torch.float64)
    return bool(((x.float().double() == x) & ((x.abs() >= 2.0**-126) | (x == 0))).all())


def _shortly(op: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a float32 program computes."""
    with _default(torch.float32):
        given = pytree.tree_map(_shorter, (args, kwargs))
        return op(*given[0], **given[1])


def _moves_ids(graph: Graph, known: list[Value], found: list[Value]) -> bool:
    """Of one operand, token ids; and what it gives are ids of the same table, somewhere else."""
    return len(known) == 1 and all(
        graph.nodes[a.node].kind == "ids" and a.table is known[0].table
        for a in [*known, *found]
    )


def _tabulated_alike(
    graph: Graph, op: Any, args: tuple, kwargs: dict[str, Any], known: list[Value]
) -> bool:
    """What is made of token ids is a table: a program looks nothing up, but computes the same numbers."""
    if (
        any(graph.nodes[a.node].kind != "ids" for a in known)
        or name_of(op) == "embedding"
    ):
        return True

    def table(a: Any) -> Any:
        if not isinstance(a, Value):
            return a
        return torch.arange(len(graph.values)) if a.table is None else a.table

    given = pytree.tree_map(table, (args, kwargs), is_leaf=_is_value)
    try:
        with _default(torch.float32):
            single = pytree.tree_map(_shorter, given)
            found = op(*single[0], **single[1])
        with _default(torch.float64):
            expected = op(*given[0], **given[1])
    except (RuntimeError, IndexError, TypeError, ValueError):
        return False  # it needs the ids' own shape, which their table does not have
    return all(
        not isinstance(a, Tensor) or torch.equal(a.double(), b.double())
        for a, b in zip(
            pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True
        )
    )


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _shorter(a: Any) -> Any:
    return a.float() if isinstance(a, Tensor) and a.is_floating_point() else a


def _is_value(a: Any) -> bool:
    return isinstance(a, Value)


def _any(named: dict[str, Any]) -> bool:
    return True


def _plain(*names: str) -> Callable[[dict[str, Any]], bool]:
    """Factors of those names are one."""
    return lambda named: all(named.get(name, 1) == 1 for name in names)


def _scaled(named: dict[str, Any]) -> bool:
    """Factors may be scaled before they are multiplied: by a root that flushes, or makes large, next to nothing."""
    return named["scale"] is None or 2.0**-20 <= named["scale"] <= 1


def _power(named: dict[str, Any]) -> bool:
    x, exponent = named.get("self"), named.get("exponent")
    whole = (
        isinstance(exponent, int | float)
        and exponent == int(exponent)
        and 2 <= exponent <= 16
    )
    return isinstance(x, Value) and (whole or exponent in (-1, -0.5, 0.5, 1))


COVERED: dict[str, Callable[[dict[str, Any]], bool]] = {
    **dict.fromkeys(["linear", "matmul", "mm", "bmm", "mv", "dot", "sum", "mean", "mul", "neg", "square", "relu", "abs",
                     "exp", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "erf", "gelu", "silu", "layer_norm",
                     "rms_norm", "_fused_rms_norm", "embedding", "maximum", "minimum", "clamp", "clamp_min",
                     "clamp_max", "hardtanh", "relu6", "leaky_relu", "softmax", "_softmax", "cat", "stack",
                     "amax", "amin", "tril", "triu", "dropout", "cumsum", "conv1d", "conv2d", "conv3d",
                     "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], _any),
    **dict.fromkeys(["add", "sub", "rsub"], _plain("alpha")),
    **dict.fromkeys(["addmm", "baddbmm", "addmv"], _plain("alpha", "beta")),
    "div": lambda named: named.get("rounding_mode") is None,
    "softplus": _plain("beta"),
    ATTENTION: _scaled,
    "pow": _power,
    "einsum": lambda named: len(named["tensors"]) == 2,
    **dict.fromkeys(["where", "masked_fill"],
                    lambda named: isinstance(named.get("condition", named.get("mask")), Tensor)),
}  # fmt: skip

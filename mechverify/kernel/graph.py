"""The expression graph of a claim: what the model computes and what the mechanism says.

One immutable list of nodes in topological order, hash-consed. Two kinds of value: `real` tensors
(the model) and `int` scalars (the mechanism; truth values are 0 and 1). `LEGAL` is the whole grammar:
an operation is legal if and only if its row accepts its operands, and the row gives the result's shape.
Integer nodes know a range that holds their value, so that int64 arithmetic can't overflow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mechverify.kernel.errors import Rejected

INT_LIMIT = 2**62


@dataclass(frozen=True)
class Node:
    """`shape` without batch axes; `span` encloses an int node's value."""

    op: str
    args: tuple[int, ...]
    attr: Any
    kind: str
    shape: tuple[int, ...]
    span: tuple[int, int] | None = None


class Graph:
    """Nodes 0 .. len-1, each after its operands. `values[i]` is the integer that token id i means."""

    def __init__(self, length: int, values: tuple[int, ...]):
        self.length, self.values = length, values
        self.nodes: list[Node] = []
        self._ids: dict[tuple, int] = {}

    def add(self, op: str, *args: int, attr: Any = None) -> int:
        """The id of the node `op(*args)`, added if it is new; rejects an illegal one."""
        key = (op, args, attr)
        if key not in self._ids:
            if op not in LEGAL:
                raise Rejected(f"unknown operation {op!r}")
            operands = [self.nodes[a] for a in args]
            kind, shape, span = LEGAL[op](self, operands, attr)
            if span is not None and not -INT_LIMIT < span[0] <= span[1] < INT_LIMIT:
                raise Rejected(f"integer operation {op!r} can leave the range of 62 bits")
            self._ids[key] = len(self.nodes)
            self.nodes.append(Node(op, args, attr, kind, tuple(shape), span))
        return self._ids[key]

    def ancestors(self, roots: list[int]) -> list[int]:
        """`roots` and all that they depend on, in topological order."""
        wanted, stack = set(), list(roots)
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack.extend(self.nodes[node].args)
        return sorted(wanted)

    def select(self, node: int, axis: int, index: int) -> int:
        """The slice of `node` at `index` along `axis`, pushed down to the tokens: only what the slice
        needs is computed. Equal to slicing the value, since every case commutes with slicing."""
        n = self.nodes[node]
        if not (0 <= axis < len(n.shape) and 0 <= index < n.shape[axis]):
            raise Rejected(f"index {index} on axis {axis} of a value of shape {n.shape}")
        if n.op == "add" or n.op == "mul" or n.op == "div":
            return self.add(n.op, *(self._select_operand(a, axis - len(n.shape), index) for a in n.args))
        if n.op == "einsum":
            first, rest = n.attr.split(",")
            second, result = rest.split("->")
            letter, args = result[axis], list(n.args)
            for position, term in enumerate((first, second)):
                if letter in term:
                    args[position] = self.select(args[position], term.index(letter), index)
            terms = [t.replace(letter, "") for t in (first, second, result)]
            return self.add("einsum", *args, attr=f"{terms[0]},{terms[1]}->{terms[2]}")
        if n.op == "softmax" and axis < len(n.shape) - 1:
            mask = index + 1 if n.attr == "causal" and axis == len(n.shape) - 2 else n.attr
            return self.add("softmax", self.select(n.args[0], axis, index), attr=mask)
        if n.op == "gather" and axis < len(self.nodes[n.args[1]].shape):
            return self.add("gather", n.args[0], self.add("select", n.args[1], attr=(axis, index)))
        return self.add("select", node, attr=(axis, index))

    def _select_operand(self, node: int, from_right: int, index: int) -> int:
        """Select on an operand that broadcasts (axes aligned on the right, sizes 1 or equal)."""
        shape = self.nodes[node].shape
        axis = len(shape) + from_right
        if axis < 0:
            return node
        return self.select(node, axis, 0 if shape[axis] == 1 else index)


Row = Callable[[Graph, list[Node], Any], tuple[str, tuple[int, ...], tuple[int, int] | None]]


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise Rejected(message)


def _is_int(x: Any) -> bool:
    return type(x) is int


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    result: list[int] = []
    for from_right in range(1, max(map(len, shapes)) + 1):
        sizes = {s[-from_right] for s in shapes if len(s) >= from_right} - {1}
        _need(len(sizes) <= 1, f"shapes {shapes} don't broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(reversed(result))


def _tokens(graph: Graph, args: list[Node], attr: Any):
    _need(not args and attr is None, "tokens takes no operand")
    return "ids", (graph.length,), None


def _weight(graph: Graph, args: list[Node], attr: Any):
    _, shape = attr
    _need(not args, "weight takes no operand")
    return "real", shape, None


def _natural(graph: Graph, args: list[Node], attr: Any):
    """A positive integer as a real number."""
    _need(not args and _is_int(attr) and 0 < attr <= 2**53, "natural needs an integer from 1 to 2^53")
    return "real", (), None


def _elementwise(arity: int) -> Row:
    def row(graph: Graph, args: list[Node], attr: Any):
        _need(len(args) == arity and attr is None, "wrong number of operands")
        _need(all(a.kind == "real" for a in args), "operands must be real")
        return "real", _broadcast([a.shape for a in args]), None

    return row


def _gather(graph: Graph, args: list[Node], attr: Any):
    """Rows of a table [vocab, ...] at token ids [...]."""
    table, ids = args
    _need(table.op == "weight" and ids.kind == "ids" and attr is None, "gather needs a weight and token ids")
    _need(table.shape[0] >= len(graph.values), "the embedding has fewer rows than the vocabulary")
    return "real", ids.shape + table.shape[1:], None


def _select(graph: Graph, args: list[Node], attr: Any):
    (x,), (axis, index) = args, attr
    _need(0 <= axis < len(x.shape) and 0 <= index < x.shape[axis], "select outside the value")
    return x.kind, x.shape[:axis] + x.shape[axis + 1 :], None


def _einsum(graph: Graph, args: list[Node], attr: Any):
    operands, result = attr.split("->")
    terms = operands.split(",")
    _need(len(args) == len(terms) == 2 and all(a.kind == "real" for a in args), "einsum needs two real operands")
    sizes: dict[str, int] = {}
    for term, node in zip(terms, args, strict=True):
        _need(len(set(term)) == len(term) == len(node.shape), f"einsum {attr!r} on shape {node.shape}")
        for letter, size in zip(term, node.shape, strict=True):
            _need(sizes.setdefault(letter, size) == size, f"einsum {attr!r}: sizes of {letter!r} differ")
    summed = set(terms[0]) | set(terms[1])
    _need(set(result) <= summed and len(set(result)) == len(result), f"einsum {attr!r}: bad result")
    _need(summed - set(result) <= set(terms[0]) & set(terms[1]), f"einsum {attr!r} sums one operand alone")
    return "real", tuple(sizes[c] for c in result), None


def _softmax(graph: Graph, args: list[Node], attr: Any):
    """Over the last axis. `attr`: None, "causal" (entry [j, i] kept if i <= j), or the number of entries kept."""
    (x,) = args
    _need(x.kind == "real" and len(x.shape) >= 1, "softmax needs a real tensor")
    if attr == "causal":
        _need(len(x.shape) >= 2 and x.shape[-1] == x.shape[-2], "a causal softmax needs square scores")
    elif attr is not None:
        _need(_is_int(attr) and 1 <= attr <= x.shape[-1], "a softmax keeps at least one entry")
    return "real", x.shape, None


def _value(graph: Graph, args: list[Node], attr: Any):
    """The integer that the token at position `attr` means."""
    _need(not args and _is_int(attr) and 0 <= attr < graph.length, f"no token at position {attr!r}")
    return "int", (), (min(graph.values), max(graph.values))


def _integer(graph: Graph, args: list[Node], attr: Any):
    _need(not args and _is_int(attr), "integer needs an integer")
    return "int", (), (attr, attr)


def _ints(arity: int | None, span: Callable[[list[tuple[int, int]], Any], tuple[int, int]]) -> Row:
    """`arity` integer operands, or one or more where it is None."""

    def row(graph: Graph, args: list[Node], attr: Any):
        _need(len(args) == arity if arity else len(args) >= 1, "wrong number of operands")
        _need(all(a.kind == "int" for a in args), "operands must be integers")
        return "int", (), span([a.span for a in args if a.span is not None], attr)

    return row


def _span_add(spans, attr):
    _need(attr is None and sum(max(abs(lo), abs(hi)) for lo, hi in spans) < INT_LIMIT, "a sum can leave 62 bits")
    return sum(lo for lo, _ in spans), sum(hi for _, hi in spans)


def _span_mul(spans, attr):
    size = 1
    for lo, hi in spans:
        size *= max(abs(lo), abs(hi), 1)
        _need(attr is None and size < INT_LIMIT, "a product can leave 62 bits")
    return -size, size


def _span_hull(spans, attr):
    _need(attr is None, "no attribute expected")
    return min(lo for lo, _ in spans), max(hi for _, hi in spans)


def _span_kth(spans, attr):
    _need(_is_int(attr) and 1 <= attr <= min(len(spans), 8), "kth_largest needs k from 1 to min(operands, 8)")
    return min(lo for lo, _ in spans), max(hi for _, hi in spans)


def _span_truth(spans, attr):
    _need(attr is None, "no attribute expected")
    return 0, 1


def _span_logic(spans, attr):
    _need(all(lo >= 0 and hi <= 1 for lo, hi in spans), "operands of and, or, not must be truth values")
    return _span_truth(spans, attr)


def _span_mod(spans, attr):
    _need(_is_int(attr) and 1 <= attr < INT_LIMIT, "mod needs a positive integer modulus")
    return 0, attr - 1


def _span_floordiv(spans, attr):
    _need(_is_int(attr) and 1 <= attr < INT_LIMIT, "floordiv needs a positive integer divisor")
    return spans[0][0] // attr, spans[0][1] // attr


def _span_where(spans, attr):
    _need(attr is None and spans[0][0] >= 0 and spans[0][1] <= 1, "where needs a truth value first")
    return _span_hull(spans[1:], attr)


MODEL: dict[str, Row] = {  # real tensors
    "tokens": _tokens,
    "select": _select,
    "weight": _weight,
    "natural": _natural,
    "gather": _gather,
    "add": _elementwise(2),
    "mul": _elementwise(2),
    "div": _elementwise(2),
    "sqrt": _elementwise(1),
    "einsum": _einsum,
    "softmax": _softmax,
}
MECHANISM: dict[str, Row] = {  # integers; a certificate may write these
    "value": _value,
    "integer": _integer,
    "sum": _ints(None, _span_add),
    "product": _ints(None, _span_mul),
    "max": _ints(None, _span_hull),
    "min": _ints(None, _span_hull),
    "kth_largest": _ints(None, _span_kth),
    "and": _ints(None, _span_logic),
    "or": _ints(None, _span_logic),
    "not": _ints(1, _span_logic),
    "eq": _ints(2, _span_truth),
    "lt": _ints(2, _span_truth),
    "le": _ints(2, _span_truth),
    "mod": _ints(1, _span_mod),
    "floordiv": _ints(1, _span_floordiv),
    "where": _ints(3, _span_where),
}

LEGAL = MODEL | MECHANISM

"""The operations of a graph, one row each: all that the core knows of an operation stands in its row.

A row says how a file writes the operation, what is legal and what comes out, the value, and the node that a slice of
it equals. Nothing of this has a default: a row that lacks a part can't be made, and an operation without a row is
refused. Elementwise functions (functions.py) and integers (integers.py) are rows of their own tables. What the
relaxation knows of the same operations: relaxation/operations.py.

Lemmas C3, C4, C8 (docs/soundness/core.md).
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve

if TYPE_CHECKING:
    from mechverify.kernel.core.evaluate import Evaluation
    from mechverify.kernel.core.functions import Function
    from mechverify.kernel.core.graph import Graph

Slice = tuple[str, list, Any]  # operation, operands (nodes, or slices (node, axis, index) of earlier ones), attribute
Legal = tuple[str, tuple[int, ...]] | tuple[str, tuple[int, ...], integers.Span]  # kind, shape; an integer's span


class Node(NamedTuple):
    """`shape` without batch axes; `span` encloses an int node's value."""

    op: str
    args: tuple[int, ...]
    attr: Any
    kind: str
    shape: tuple[int, ...]
    span: integers.Span = (0, 0)


class Attribute(NamedTuple):
    """How a file writes an attribute: in words, as a JSON Schema, and how it is read."""

    words: str
    schema: dict[str, Any]
    read: Callable[[Reader], Any]


class Operation(ABC):
    """`operands`: how many, or None for one and more. `attribute`: None where no file names the operation. `meaning`:
    what docs/certificate.md says of it."""

    operands: int | None
    attribute: Attribute | None
    meaning: str

    @abstractmethod
    def shape(self, graph: "Graph", args: list[Node], attr: Any) -> Legal:
        """Kind and shape of the result; rejects operands and attributes that are not legal."""

    @abstractmethod
    def value(self, known: "Evaluation", node: Node, args: list) -> Any:
        """A ball [*batch, *shape]; of ids and integers an int64 array."""

    @abstractmethod
    def slice(self, graph: "Graph", node: int, axis: int, index: int) -> Slice:
        """What equals the slice of the node's value at `index` along `axis`."""


def need(condition: bool, message: str) -> None:
    if not condition:
        raise Rejected(message)


# --- attributes -------------------------------------------------------------------------------------------------------


def sizes(entry: Reader) -> tuple[int, ...]:
    return tuple(v.an_integer(1, 2**24) for v in entry.items(16))


def _nothing(entry: Reader) -> None:
    if entry.value is not None:
        raise Rejected(f"{entry.where}: this operation has no attribute")


def _of(name: str) -> dict[str, str]:
    """A definition of docs/certificate.schema.json."""
    return {"$ref": f"#/$defs/{name}"}


def _row(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": len(entries), "items": False, "prefixItems": [*entries]}


def _whole(low: int, high: int, words: str) -> Attribute:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Attribute(words, schema, lambda entry: entry.an_integer(low, high))


NOTHING = Attribute("null", {"type": "null"}, _nothing)
AXIS = _whole(0, 15, "axis")


# --- rows that share a part -------------------------------------------------------------------------------------------


class Sliced(Operation):
    """A slice of these stays one."""

    def slice(self, graph, node, axis, index):
        return "select", [node], (axis, index)


class Fixed(Sliced):
    """The same on all inputs."""

    operands = 0


class Elementwise(Operation):
    """An entry depends on the operands' entries at its own place, or at the one that they broadcast, alone."""

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        return n.op, [self._operand(graph, a, axis - len(n.shape), index) for a in n.args], n.attr

    def _operand(self, graph: "Graph", node: int, from_right: int, index: int) -> Any:
        """The slice of an operand that broadcasts: axes aligned on the right, sizes 1 or equal."""
        shape = graph.nodes[node].shape
        axis = len(shape) + from_right
        return node if axis < 0 else (node, axis, 0 if shape[axis] == 1 else index)


class OfTwo(Elementwise):
    """Shapes broadcast on the right."""

    operands, attribute = 2, NOTHING

    def shape(self, graph, args, attr):
        first, second = args
        need(first.kind == second.kind == "real", "an elementwise operation needs two real operands")
        try:
            return "real", np.broadcast_shapes(first.shape, second.shape)
        except ValueError:
            raise Rejected(f"shapes {first.shape} and {second.shape} don't fit") from None


class OfOne(Elementwise):
    """A function of each entry."""

    operands = 1

    def shape(self, graph, args, attr):
        need(len(args) == 1 and args[0].kind == "real", "a function takes one real operand")
        return "real", args[0].shape

    def value(self, known, node, args):
        return known.model.function(node.op, self.function(node), args[0])

    @abstractmethod
    def function(self, node: Node) -> "Function":
        """Loaded only where a theorem needs it."""


# --- inputs and fixed values ------------------------------------------------------------------------------------------


class Tokens(Sliced):
    operands, attribute, meaning = 0, NOTHING, "the token ids, [length]"

    def shape(self, graph, args, attr):
        return "ids", (graph.length,)

    def value(self, known, node, args):
        return known.tokens


class Input(Sliced):
    operands, meaning = 0, "a real input"
    attribute = Attribute(
        "`[which, shape]`",
        _row(_of("natural"), _of("shape")),
        lambda entry: _pair(entry, lambda e: e.an_integer(0, 2**10), sizes),
    )

    def shape(self, graph, args, attr):
        return "real", attr[1]

    def value(self, known, node, args):
        return known.model.ar.exact(known.inputs[node.attr[0]])


def _pair(entry: Reader, first: Callable[[Reader], Any], second: Callable[[Reader], Any]) -> tuple:
    a, b = entry.items(2, 2)
    return first(a), second(b)


class Weight(Fixed):
    attribute = Attribute(
        "`[tensor, shape]`", _row({"type": "string"}, _of("shape")), lambda entry: _pair(entry, Reader.text, sizes)
    )
    meaning = "the leading part, of that shape, of a tensor of the weights"

    def shape(self, graph, args, attr):
        return "real", attr[1]

    def value(self, known, node, args):
        value = weight(known.weights, *node.attr)
        return known.model.ar.exact(value.reshape((1,) * known.batch + value.shape))


def weight(weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The leading part of a weight tensor (a shorter sequence uses the first positions)."""
    return np.asarray(weights[name][tuple(slice(s) for s in shape)])


def _constant(entry: Reader) -> tuple:
    shape, values = entry.items(2, 2)
    numbers = tuple(v.float64() for v in values.items(2**16))
    if len(numbers) != math.prod(sizes(shape)):
        raise Rejected(f"{entry.where}: the entries don't fill the shape")
    return sizes(shape), numbers


class Constant(Fixed):
    attribute = Attribute("`[shape, entries]`", _row(_of("shape"), _of("numbers")), _constant)
    meaning = "these numbers, row-major"

    def shape(self, graph, args, attr):
        return "real", attr[0]

    def value(self, known, node, args):
        shape, numbers = node.attr
        return known.model.ar.exact(np.array(numbers, float).reshape((1,) * known.batch + shape))


class Pi(Fixed):
    attribute, meaning = NOTHING, "the number pi"

    def shape(self, graph, args, attr):
        return "real", ()

    def value(self, known, node, args):
        from mechverify.kernel.core.elementary import pi  # only where a theorem needs it

        return pi(known.model.ar).map(lambda a: a.reshape((1,) * known.batch))


def table(weights: dict[str, np.ndarray], node: Node) -> np.ndarray:
    """A weight or a constant."""
    if node.op == "constant":
        return np.array(node.attr[1], float).reshape(node.attr[0])
    return weight(weights, *node.attr)


# --- moving entries ---------------------------------------------------------------------------------------------------


def _read_view(entry: Reader) -> tuple:
    shape, offset, strides = entry.items(3, 3)
    return sizes(shape), offset.an_integer(0), tuple(strides.integers(16))


def entries(view: tuple) -> np.ndarray:
    """The flat indices that a view (shape, offset, strides) reads."""
    shape, offset, strides = view
    reserve(*shape)
    index = np.full(shape, offset)
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        index = index + (np.arange(size) * step).reshape(size, *(1,) * (len(shape) - axis - 1))
    return index


class View(Operation):
    """Reshaping, transposing, slicing, expanding, unfolding."""

    operands = 1
    attribute = Attribute(
        "`[shape, offset, strides]`",
        _row(_of("shape"), _of("natural"), {"type": "array", "items": _of("integer")}),
        _read_view,
    )
    meaning = "entry i is entry offset + sum_k strides[k] i_k of the flattened operand"

    def shape(self, graph, args, attr):
        (operand,), (shape, offset, strides) = args, attr
        need(len(shape) == len(strides), "a view needs a stride for each axis")
        reach = [(size - 1) * step for size, step in zip(shape, strides, strict=True)]
        low = offset + sum(min(r, 0) for r in reach)
        high = offset + sum(max(r, 0) for r in reach)
        need(operand.kind != "int" and all(size > 0 for size in shape), "view needs a tensor and an entry")
        need(0 <= low <= high < math.prod(operand.shape), f"a view reads outside its operand of shape {operand.shape}")
        return operand.kind, shape

    def value(self, known, node, args):
        if node.kind == "ids":
            return args[0].reshape(*args[0].shape[: known.batch], -1)[..., entries(node.attr)]
        at = entries(node.attr)
        return args[0].map(lambda a: a.reshape(*a.shape[: known.batch], -1)[..., at])

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        if n.kind == "ids":
            return "select", [node], (axis, index)
        shape, offset, strides = n.attr
        rest = shape[:axis] + shape[axis + 1 :], offset + index * strides[axis], strides[:axis] + strides[axis + 1 :]
        return self.narrowed(graph, n.args[0], rest)

    def narrowed(self, graph: "Graph", operand: int, view: tuple) -> Slice:
        """A view, read from a slice of its operand if all that it reads lies in one."""
        shape = graph.nodes[operand].shape
        graph.meter.step(math.prod(view[0]) * (1 + len(view[0]) + len(shape)), 10)
        at = entries(view)
        for axis in range(len(shape)):
            block = math.prod(shape[axis + 1 :])
            index = at // block % shape[axis]
            if shape[axis] > 1 and (index == index.flat[0]).all():
                moved = at // (block * shape[axis]) * block + at % block
                steps = tuple(
                    int(moved[tuple(int(i == a) for i in range(at.ndim))] - moved.flat[0]) if size > 1 else 0
                    for a, size in enumerate(at.shape)
                )
                smaller = at.shape, int(moved.flat[0]), steps
                if np.array_equal(entries(smaller), moved):
                    return "view", [(operand, axis, int(index.flat[0]))], smaller
        return "view", [operand], view


class Concat(Sliced):
    operands, attribute, meaning = None, AXIS, "the operands one after another along an axis; all other sizes are equal"

    def shape(self, graph, args, attr):
        shapes = [a.shape for a in args]
        legal = len(args) > 0 and all(a.kind == "real" for a in args) and 0 <= attr < len(shapes[0])
        need(legal, "concat needs an axis")
        rest = {(s[:attr], s[attr + 1 :]) for s in shapes if len(s) > attr}
        need(len(rest) == 1 and len({len(s) for s in shapes}) == 1, f"concat along axis {attr} of shapes {shapes}")
        return "real", (*shapes[0][:attr], sum(s[attr] for s in shapes), *shapes[0][attr + 1 :])

    def value(self, known, node, args):
        """Each operand in its place of an array of zeros, added up: exact, and their exponents may differ."""
        here = np.arange(math.prod(node.shape)).reshape(node.shape)
        start = 0
        parts = []
        for a in args:
            width = a.mid.shape[known.batch + node.attr]
            places = np.take(here, np.arange(start, start + width), node.attr).ravel()
            flat = a.map(lambda v: v.reshape(*v.shape[: known.batch], -1))
            parts.append(known.model.ar.scatter(flat, places, here.size))
            start += width
        total = reduce(known.model.ar.add, parts)
        return total.map(lambda v: v.reshape(*v.shape[: known.batch], *node.shape))


class Gather(Operation):
    operands, attribute, meaning = 2, NOTHING, "rows of a table (a `weight` or a `constant`) at token ids"

    def shape(self, graph, args, attr):
        rows, ids = args
        need(rows.op in ("weight", "constant") and ids.kind == "ids", "gather needs a table and token ids")
        enough = len(rows.shape) > 0 and rows.shape[0] >= len(graph.values)
        need(enough, "the embedding has fewer rows than the vocabulary")
        return "real", ids.shape + rows.shape[1:]

    def value(self, known, node, args):
        return known.model.ar.exact(table(known.weights, known.graph.nodes[node.args[0]])[args[1]])

    def slice(self, graph, node, axis, index):
        rows, ids = graph.nodes[node].args
        if axis < len(graph.nodes[ids].shape):
            return "gather", [rows, (ids, axis, index)], None
        return "select", [node], (axis, index)


class Pick(Sliced):
    operands, attribute = 2, NOTHING
    meaning = "the slice along the first axis of a real value that an integer says; its span lies within the axis"

    def shape(self, graph, args, attr):
        axes = len(args[0].shape)
        legal = [a.kind for a in args] == ["real", "int"] and axes > 0
        need(legal, "pick takes a real axis and an integer")
        low, high = args[1].span
        size = args[0].shape[0]
        need(0 <= low <= high < size, f"pick: the index reaches from {low} to {high}, the axis has {size} entries")
        return "real", args[0].shape[1:]

    def value(self, known, node, args):
        x = args[0]
        index = known.of_batch(args[1])
        batch = np.broadcast_shapes(x.mid.shape[: known.batch], index.shape)
        at = index.reshape(*index.shape, *(1,) * (x.mid.ndim - known.batch))
        wide = x.map(lambda a: np.broadcast_to(a, (*batch, *a.shape[known.batch :])))
        return wide.map(lambda a: np.take_along_axis(a, at, known.batch).squeeze(known.batch))


class Select(Sliced):
    """The slice at an index along an axis: attr = axis, index. `Graph.select` makes it where nothing else will do."""

    operands, attribute, meaning = 1, None, "a slice"

    def shape(self, graph, args, attr):
        axis, _ = attr
        return args[0].kind, args[0].shape[:axis] + args[0].shape[axis + 1 :]

    def value(self, known, node, args):
        axis, index = node.attr
        if node.kind == "ids" and known.graph.nodes[node.args[0]].op == "tokens":
            return known.selected(index)
        if node.kind == "ids":
            return np.take(args[0], index, axis + known.batch)
        return args[0].map(lambda a: np.take(a, index, axis + known.batch))


# --- computing --------------------------------------------------------------------------------------------------------


class Add(OfTwo):
    meaning = "the sum; shapes broadcast on the right"

    def value(self, known, node, args):
        first, second = (known.align(a, len(node.shape)) for a in args)
        return known.model.add(first, second, products(known.graph, node))


class Sub(OfTwo):
    meaning = "the difference; likewise"

    def value(self, known, node, args):
        return known.model.sub(*(known.align(a, len(node.shape)) for a in args))


class Mul(OfTwo):
    meaning = "the product; likewise"

    def value(self, known, node, args):
        return known.model.mul(*(known.align(a, len(node.shape)) for a in args))


class OfEach(OfOne):
    """A row of functions.py."""

    attribute, meaning = NOTHING, "the function of that name, of each entry"

    def function(self, node):
        from mechverify.kernel.core.functions import FUNCTIONS

        return FUNCTIONS[node.op]


class Power(OfOne):
    attribute, meaning = _whole(2, 16, "the exponent, 2 to 16"), "the power, of each entry"

    def shape(self, graph, args, attr):
        need(attr is not None and 2 <= attr <= 16, "power takes an exponent from 2 to 16")
        return super().shape(graph, args, attr)

    def function(self, node):
        from mechverify.kernel.core.functions import power_of

        return power_of(node.attr)


class OverRoot(Elementwise):
    operands, attribute = 1, _whole(1, 2**30, "d, 1 to 2^30")
    meaning = "each entry divided by the square root of d"

    def shape(self, graph, args, attr):
        need(args[0].kind == "real", "over_root takes a real operand")
        return "real", args[0].shape

    def value(self, known, node, args):
        model = known.model
        return model.div(args[0], model.sqrt(model.ar.rational(Fraction(node.attr))))


def is_function(node: Node) -> bool:
    """Whether a node is a function of each entry of its operand."""
    return isinstance(OPERATIONS[node.op], OfOne)


def function_of(node: Node) -> "Function":
    """Precondition: `is_function`."""
    row = OPERATIONS[node.op]
    assert isinstance(row, OfOne)
    return row.function(node)


def _read_einsum(entry: Reader) -> str:
    if not re.fullmatch(r"[a-z]{0,16},[a-z]{0,16}->[a-z]{0,16}", entry.text()):
        raise Rejected(f"{entry.where}: expected a contraction of two operands")
    return entry.text()


class Einsum(Operation):
    """Of two operands; letters are distinct in each term, and a letter of one operand alone is in the result."""

    operands = 2
    attribute = Attribute(
        'as `"ij,jk->ik"`', {"type": "string", "pattern": "^[a-z]{0,16},[a-z]{0,16}->[a-z]{0,16}$"}, _read_einsum
    )
    meaning = "the contraction; letters are distinct in each term, and a summed letter is in both"

    def shape(self, graph, args, attr):
        *terms, result = attr.replace("->", ",").split(",")
        sizes: dict[str, int] = {}
        need(len(terms) == len(args) == 2 and len(set(result)) == len(result), f"einsum {attr!r}")
        for term, node in zip(terms, args, strict=True):
            fits = node.kind == "real" and len(set(term)) == len(term) == len(node.shape)
            need(fits, f"{attr!r} on shape {node.shape}")
            for letter, size in zip(term, node.shape, strict=True):
                need(sizes.setdefault(letter, size) == size, f"einsum {attr!r}: sizes of {letter!r} differ")
        need(set(result) <= set(sizes), f"einsum {attr!r} has a result of unknown size")
        need(set(sizes) - set(result) <= set(terms[0]) & set(terms[1]), f"einsum {attr!r} sums one operand alone")
        return "real", tuple(sizes[c] for c in result)

    def value(self, known, node, args):
        return known.model.contract(node.attr, args[0], args[1])

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        *terms, result = n.attr.replace("->", ",").split(",")
        letter = result[axis]
        operands = [(a, t.index(letter), index) if letter in t else a for a, t in zip(n.args, terms, strict=True)]
        first, second, result = (t.replace(letter, "") for t in (*terms, result))
        return "einsum", operands, f"{first},{second}->{result}"


def products(graph: "Graph", node: Node) -> tuple[int, ...]:
    """Of each operand: how many products it adds up, if it is a contraction; else 0."""

    def terms(n: Node) -> int:
        if n.op != "einsum":
            return 0
        first, second, result = n.attr.replace("->", ",").split(",")
        sizes = zip(first + second, sum((graph.nodes[a].shape for a in n.args), ()), strict=True)
        return math.prod({letter: size for letter, size in sizes if letter not in result}.values())

    return tuple(terms(graph.nodes[a]) for a in node.args)


def _read_mask(entry: Reader) -> Any:
    if type(entry.value) is int:
        return entry.an_integer(1)
    return entry.one_of(["causal"]) if type(entry.value) is str else tuple(r.text() for r in entry.items(2**12, 1))


class Softmax(Operation):
    """Over the last axis. attr: "causal" (entry [j, i] kept if i <= j), or the number of entries kept, or rows of "0"
    and "1" for the last two axes, one row for all if there is but one."""

    operands = 1
    attribute = Attribute(
        'the number of leading entries kept, `"causal"` (entry [j, i] is kept if i <= j), or rows of `0` and `1`',
        {
            "oneOf": [
                {"type": "integer", "minimum": 1},
                {"const": "causal"},
                {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^[01]*1[01]*$"}},
            ]
        },
        _read_mask,
    )
    meaning = "over the kept entries of the last axis, the others zero; rows are for the last two axes, one row for all"

    def shape(self, graph, args, attr):
        shape = args[0].shape
        axes = len(args[0].shape)
        need(args[0].kind == "real" and axes > 0, "softmax takes a real operand with an axis")
        if type(attr) is tuple:
            need(len(attr) == 1 or (axes > 1 and len(attr) == shape[-2]), f"a mask of {len(attr)} rows")
            kept = all(len(r) == shape[-1] and set(r) <= {"0", "1"} and "1" in r for r in attr)
            need(kept, "softmax keeps no entry")
        else:
            known = (attr == "causal" and axes > 1) or (attr != "causal" and 1 <= attr <= shape[-1])
            need(known, "softmax: mask")
        return "real", shape

    def value(self, known, node, args):
        return known.model.softmax(args[0], kept(node))

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        if axis == len(n.shape) - 1:
            return "select", [node], (axis, index)
        mask = n.attr
        if axis == len(n.shape) - 2 and n.attr == "causal":
            mask = min(index + 1, n.shape[-1])
        elif axis == len(n.shape) - 2 and type(n.attr) is tuple:
            mask = (n.attr[index if len(n.attr) > 1 else 0],)
        return "softmax", [(n.args[0], axis, index)], mask


def kept(node: Node) -> np.ndarray:
    """Which entries of scores [..., j, i] a softmax node keeps, as booleans that broadcast to its shape."""
    n = node.shape[-1]
    if type(node.attr) is tuple:
        return np.array([[c == "1" for c in row] for row in node.attr])[slice(None) if len(node.attr) > 1 else 0]
    return np.tri(node.shape[-2], n, dtype=bool) if node.attr == "causal" else np.arange(n) < node.attr


# --- integers of the tokens -------------------------------------------------------------------------------------------


class Number(Elementwise):
    operands, attribute, meaning = 1, NOTHING, "an integer as a real; its span is below 2^53"

    def shape(self, graph, args, attr):
        need(len(args) == 1 and args[0].kind == "int", "number takes an integer")
        need(max(map(abs, args[0].span)) < 2**53, "an integer of more than 53 bits as a real")
        return "real", ()

    def value(self, known, node, args):
        return known.model.ar.whole(known.of_batch(args[0]))


class Whole(Elementwise):
    """An integer. It has no axis, and so no slice."""

    def value(self, known, node, args):
        known.model.ar.spend(len(args) * math.prod(np.broadcast_shapes(*(a.shape for a in args))), 1 + len(args))
        means = known.graph.meanings
        return integers.apply(node.op, node.attr, args, lambda position: means[known.selected(position)])


def _read_integer(entry: Reader) -> int | None:
    return None if entry.value is None else entry.an_integer()


class Value(Whole):
    operands, meaning = 0, "the integer that the token at position i means: an entry of `domain.values`"
    attribute = Attribute("i", _of("position"), _read_integer)

    def shape(self, graph, args, attr):
        need(attr is not None and 0 <= attr < graph.length, f"no token at position {attr!r}")
        return "int", (), graph.span


class Integer(Whole):
    operands, meaning = 0, "that integer"
    attribute = Attribute("an integer", _of("integer"), _read_integer)

    def shape(self, graph, args, attr):
        need(attr is not None, "integer takes its value alone")
        return "int", (), (attr, attr)


class OfIntegers(Whole):
    """A row of integers.py."""

    meaning = "of integers: see [Mechanism](#mechanism)"

    def __init__(self, name: str):
        self.name, self.row = name, integers.OPERATIONS[name]
        self.operands, self.attribute = self.row.arity, self._attribute()

    def _attribute(self) -> Attribute:
        if self.row.table:
            schema = {"type": "array", "minItems": 1, "maxItems": integers.LONGEST, "items": _of("integer")}
            return Attribute("integers", schema, lambda entry: tuple(entry.integers(integers.LONGEST)))
        if self.row.most is None:
            return Attribute("null", {"type": "null"}, _read_integer)
        schema = {"type": "integer", "minimum": 1, "maximum": self.row.most}
        return Attribute(f"k, from 1 to {self.row.most}", schema, _read_integer)

    def shape(self, graph, args, attr):
        need(all(n.kind == "int" for n in args), f"an operand of {self.name!r} is not an integer")
        return "int", (), integers.span(self.name, [n.span for n in args], attr)


# --- what the relaxation alone adds to its copy of a graph (relaxation/rewriting.py) ----------------------------------


class Internal(Operation):
    """No file names it, no graph of a claim holds it, and nothing is known of it but what the relaxation knows."""

    attribute = None

    def value(self, known, node, args):
        raise Rejected(f"{node.op!r} has bounds, and no value")

    def slice(self, graph, node, axis, index):
        return "select", [node], (axis, index)


class Slack(Internal):
    operands, meaning = 2, "a small error"

    def shape(self, graph, args, attr):
        return "real", args[0].shape[:-1]


class Pivot(Internal):
    operands, meaning = 2, "any constants of that shape"

    def shape(self, graph, args, attr):
        return Einsum().shape(graph, args, attr)


FUNCTIONS = (
    "relu",
    "abs",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "tanh",
    "sigmoid",
    "erf",
    "softplus",
    "gelu",
    "gelu_tanh",
    "silu",
    "sin",
    "cos",
)  # the rows of functions.py, which is loaded on demand
OPERATIONS: dict[str, Operation] = {
    "tokens": Tokens(),
    "input": Input(),
    "weight": Weight(),
    "constant": Constant(),
    "view": View(),
    "concat": Concat(),
    "einsum": Einsum(),
    "softmax": Softmax(),
    "power": Power(),
    "over_root": OverRoot(),
    "gather": Gather(),
    "add": Add(),
    "sub": Sub(),
    "mul": Mul(),
    "pi": Pi(),
    "number": Number(),
    "pick": Pick(),
    **{name: OfEach() for name in FUNCTIONS},
    "value": Value(),
    "integer": Integer(),
    **{name: OfIntegers(name) for name in integers.OPERATIONS},
    "select": Select(),
    "slack": Slack(),
    "pivot": Pivot(),
}
INTEGERS = [name for name, row in OPERATIONS.items() if isinstance(row, Whole)]  # what a mechanism is made of
LISTED = {name: row.attribute for name, row in OPERATIONS.items() if row.attribute is not None}  # what a file may name


def row_of(name: str) -> Operation:
    if name not in OPERATIONS:
        raise Rejected(f"unknown operation {name!r:.80}")
    return OPERATIONS[name]

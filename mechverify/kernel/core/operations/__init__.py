"""The operations of a graph, one row each: all that the core knows of an operation stands in its row.

A row says how a file writes the operation, what is legal and what comes out, the value, and the node that a slice of
it equals. Nothing of this has a default: a row that lacks a part can't be made, and an operation without a row is
refused. Rows stand in the modules beside, by group, and are loaded where a graph has the operation. What the relaxation
knows of the same operations stands in modules of the same names: relaxation/operations/.

Lemmas C3, C4, C8 (docs/soundness/core.md).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.loading import Rows

if TYPE_CHECKING:
    from mechverify.kernel.core.evaluate import Evaluation
    from mechverify.kernel.core.graph import Graph

Span = tuple[int, int]  # what holds an integer: least and greatest
Slice = tuple[
    str, list, Any
]  # operation, operands (nodes, or slices (node, axis, index) of earlier ones), attribute
Legal = (
    tuple[str, tuple[int, ...]] | tuple[str, tuple[int, ...], Span]
)  # kind, shape; an integer's span


class Node(NamedTuple):
    """`shape` without batch axes; `span` encloses an int node's value."""

    op: str
    args: tuple[int, ...]
    attr: Any
    kind: str
    shape: tuple[int, ...]
    span: Span = (0, 0)


class Attribute(NamedTuple):
    """How a file writes an attribute: in words, as a JSON Schema, and how it is read."""

    words: str
    schema: dict[str, Any]
    read: Callable[[Reader], Any]


class Operation(ABC):
    """`operands`: how many, or None for one and more. `attribute`: UNWRITTEN where no file names the operation.
    `meaning`: what docs/certificate.md says of it."""

    operands: int | None
    attribute: Attribute
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


def _unwritten(entry: Reader) -> None:
    raise Rejected(f"{entry.where}: no file names this operation")


def of(name: str) -> dict[str, str]:
    """A definition of docs/certificate.schema.json."""
    return {"$ref": f"#/$defs/{name}"}


def row(*entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "array",
        "minItems": len(entries),
        "items": False,
        "prefixItems": [*entries],
    }


def pair(
    entry: Reader, first: Callable[[Reader], Any], second: Callable[[Reader], Any]
) -> tuple:
    a, b = entry.items(2, 2)
    return first(a), second(b)


def whole(low: int, high: int, words: str) -> Attribute:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Attribute(words, schema, lambda entry: entry.an_integer(low, high))


NOTHING = Attribute("null", {"type": "null"}, _nothing)
UNWRITTEN = Attribute("", {}, _unwritten)


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
        return (
            n.op,
            [self._operand(graph, a, axis - len(n.shape), index) for a in n.args],
            n.attr,
        )

    def _operand(self, graph: "Graph", node: int, from_right: int, index: int) -> Any:
        """The slice of an operand that broadcasts: axes aligned on the right, sizes 1 or equal."""
        shape = graph.nodes[node].shape
        axis = len(shape) + from_right
        return node if axis < 0 else (node, axis, 0 if shape[axis] == 1 else index)


# --- which there are --------------------------------------------------------------------------------------------------

# By the modules that hold their rows, here and in relaxation/operations.
GROUPS = {
    "tokens": ("tokens", "gather"),
    "inputs": ("input",),
    "weights": ("weight",),
    "constants": ("constant",),
    "pi": ("pi",),
    "views": ("view",),
    "slices": ("select",),
    "concatenation": ("concat",),
    "contraction": ("einsum",),
    "softmax": ("softmax",),
    "order": ("extremum", "ascending", "choose"),
    "arithmetic": ("add", "sub", "mul", "over_root"),
    "functions": (
        "power", "relu", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "erf", "softplus",
        "gelu", "gelu_tanh", "silu", "sin", "cos", "atan",
    ),
    "conversion": ("number", "pick"),
    "integers": (
        "value", "integer", "sum", "product", "max", "min", "and", "or", "kth_largest", "not", "eq", "lt", "le", "mod",
        "floordiv", "where", "lookup",
    ),
    "internal": ("slack", "pivot"),
    "differences": ("secant", "exchanged", "blend"),
    "rounding": ("rounding",),
}  # fmt: skip
UNNAMED = (
    "select",
    "rounding",
    *GROUPS["internal"],
    *GROUPS["differences"],
)  # by any file
INTEGERS = GROUPS["integers"]  # what a mechanism is made of
OPERATIONS: Rows[Operation] = Rows("core.operations", GROUPS)
LISTED = [name for name in OPERATIONS if name not in UNNAMED]  # what a file may name


def row_of(name: str) -> Operation:
    if name not in OPERATIONS.modules:
        raise Rejected(f"unknown operation {name!r:.80}")
    return OPERATIONS[name]


def is_function(node: Node) -> bool:
    """Whether a node is a function of each entry of its operand."""
    return node.op in GROUPS["functions"]

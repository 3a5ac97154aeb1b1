"""Values of a graph as formulas: a node a line for the whole graph, and nested for the expressions of a claim, down to
the model's own named values. Read off the graph, so that nobody has to trust a text beside it.

Lemma C18 (docs/soundness/core.md).
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.operations import OPERATIONS
from mechverify.kernel.core.words import listed, number, quoted

LONGEST = 2_000  # characters of a formula, with its shared parts
WORK = (
    2**15
)  # nodes of all formulas of a claim: what comes after them is given by number
ENTRIES = 32  # of a constant in a formula
SHARED = 16  # characters: shorter parts are repeated, not named
INFIX = {"add": "+", "sub": "-", "mul": "*", "sum": "+", "product": "*", "eq": "==", "lt": "<", "le": "<=",
         "and": "and", "or": "or"}  # fmt: skip
VOCABULARY = frozenset(
    {*OPERATIONS, "leads", "distinct", "min", "max", "if", "else", "where", "of", "at"}
)


class Listing:
    """The nodes that `roots` need, numbered n0, n1, ... in their order, each after its operands."""

    def __init__(self, graph: Graph, roots: Iterable[int]):
        self.graph = graph
        self.nodes = graph.ancestors(list(roots))
        self.number = {n: i for i, n in enumerate(self.nodes)}

    def name(self, n: int) -> str:
        return f"n{self.number[n]}"

    def lines(self) -> Iterable[str]:
        """`n5 = add(n3, n4)`: operation, operands, attribute."""
        for n in self.nodes:
            node = self.graph.nodes[n]
            yield f"{self.name(n)} = {_call(node, [self.name(a) for a in node.args])}"


class Formulas:
    """Writes expressions of one claim: x3 is the integer that the token at position 3 means, input0 a real input, t1,
    t2, ... parts that are used more than once, `names` the model's own values, which are not taken apart; and n57 the
    node of that number in the listing, where a formula would be too long."""

    def __init__(self, listing: Listing, names: dict[int, str]):
        self.graph, self.listing, self.names = listing.graph, listing, names
        self.used: dict[int, str] = {}  # names in the formulas that were written
        self.left = WORK

    def write(self, roots: list[int]) -> tuple[list[str], list[str]]:
        """Formulas of the nodes, and definitions `t1 = ...` of the parts that they share."""
        needed, uses = set(roots), dict.fromkeys(roots, 1)
        stack = list(needed)
        while stack:
            for a in self._operands(stack.pop()):
                uses[a] = uses.get(a, 0) + 1
                if a not in needed:
                    needed.add(a)
                    stack.append(a)
            if len(needed) > min(LONGEST, self.left):
                return self._by_number(roots)
        self.left -= len(needed)
        texts: dict[int, str] = {}
        definitions: list[str] = []
        for n in sorted(needed):
            text = self._text(n, texts)
            if uses[n] > 1 and len(text) > SHARED and n not in self.names:
                definitions.append(f"t{len(definitions) + 1} = {text}")
                text = f"t{len(definitions)}"
            texts[n] = text
            if len(text) > LONGEST:
                return self._by_number(roots)
        found = [texts[n] for n in roots]
        if sum(map(len, found + definitions)) > LONGEST:
            return self._by_number(roots)
        self.used |= {n: self.names[n] for n in needed if n in self.names}
        return found, definitions

    def _by_number(self, roots: list[int]) -> tuple[list[str], list[str]]:
        return [self.listing.name(n) for n in roots], []

    def _operands(self, n: int) -> tuple[int, ...]:
        """What the text of a node is made of."""
        if (
            n in self.names
            or self._token(n) is not None
            or self._rational(n) is not None
        ):
            return ()
        _, operands = self._spelt(n)
        return operands

    def _spelt(self, n: int) -> tuple[str, tuple[int, ...]]:
        """A node's operation and operands; of one that the graph spells out in several nodes, its short name and the
        operands of all of them."""
        node = self.graph.nodes[n]
        if node.op == "extremum":
            vector = late("statement.leads").vector(self.graph, n)
            return (node.op, node.args) if vector is None else ("leads", (vector,))
        if node.op == "and":
            return node.op, tuple(sum(self._unequal(n), ()))
        if node.op == "sub" and (other := self._beyond(*node.args)) is not None:
            return "min", (node.args[0], other)
        if node.op == "add":
            beyond = self.graph.nodes[node.args[1]]
            exceeds = self.graph.nodes[beyond.args[0]] if beyond.op == "relu" else node
            if exceeds.op == "sub" and exceeds.args[1] == node.args[0]:
                return "max", exceeds.args
        return node.op, node.args

    def _unequal(self, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return late("statement.distinct").unequal(self.graph, n)

    def _beyond(self, a: int, n: int) -> int | None:
        """b, if a node is relu(a - b)."""
        node = self.graph.nodes[n]
        exceeds = self.graph.nodes[node.args[0]] if node.op == "relu" else node
        found = node.op == "relu" and exceeds.op == "sub" and exceeds.args[0] == a
        return exceeds.args[1] if found else None

    def _token(self, n: int) -> int | None:
        """The position, if the node is the integer that the token there means."""
        node = self.graph.nodes[n]
        if node.op == "value":
            return node.attr
        if node.op != "view" or node.shape != () or node.kind != "real":
            return None
        operand = self.graph.nodes[node.args[0]]
        if operand.op != "gather":
            return None
        table, ids = (self.graph.nodes[a] for a in operand.args)
        means = tuple(map(float, self.graph.values))
        known = (ids.op, table.op, table.attr) == (
            "tokens",
            "constant",
            ((len(means),), means),
        )
        return (
            node.attr[1]
            if known and tuple(map(int, means)) == self.graph.values
            else None
        )  # none was rounded

    def _rational(self, n: int) -> Fraction | None:
        """A constant, also one that is written as p times 1/q since no float64 is it."""
        nodes, node = self.graph.nodes, self.graph.nodes[n]
        if node.op == "constant" and node.shape == ():
            return Fraction(node.attr[1][0])
        if node.op != "mul" or nodes[node.args[1]].op != "reciprocal":
            return None
        p, q = nodes[node.args[0]], nodes[nodes[node.args[1]].args[0]]
        if any((c.op, c.shape) != ("constant", ()) for c in (p, q)) or not q.attr[1][0]:
            return None
        return Fraction(p.attr[1][0]) / Fraction(q.attr[1][0])

    def _text(self, n: int, texts: dict[int, str]) -> str:
        if n in self.names:
            return self.names[n]
        if (position := self._token(n)) is not None:
            return f"x{position}"
        if (rational := self._rational(n)) is not None:
            return number(rational)
        node, (name, operands) = self.graph.nodes[n], self._spelt(n)
        if name != node.op:
            return f"{name}({', '.join(texts[a] for a in operands)})"
        if node.op == "and" and (unequal := self._unequal(n)[1]):
            rest = [texts[a] for a in self._unequal(n)[0]]
            apart = f"distinct({', '.join(texts[a] for a in unequal)})"
            return f"({' and '.join([*rest, apart])})" if rest else apart
        args = [texts[a] for a in node.args]
        match node.op:
            case "integer":
                return str(node.attr)
            case "constant" if len(node.shape) == 1:
                return f"[{listed(node.attr[1], number)}]"
            case "constant" if len(node.attr[1]) > ENTRIES:
                return self.listing.name(n)
            case "input":
                return f"input{node.attr[0]}"
            case "pi":
                return "pi"
            case "number":
                return args[0]
            case "view" if node.kind == "real" and (part := _part(self.graph, node)):
                return f"{args[0]}[{part}]"
            case "pick":
                return f"{args[0]}[{args[1]}]"
            case "add" if (negated := self._negated(node.args[1], args[1])) is not None:
                return f"({args[0]} - {negated})"
            case "add" if (negated := self._negated(node.args[0], args[0])) is not None:
                return f"({args[1]} - {negated})"
            case "power":
                plain = args[0].isdigit() or self._rational(node.args[0]) is None
                return f"({args[0] if plain else f'({args[0]})'} ^ {node.attr})"  # (-2) ^ 2 isn't -2 ^ 2
            case "mod" | "floordiv":
                return f"({args[0]} {'mod' if node.op == 'mod' else '//'} {node.attr})"
            case "lookup":
                return f"[{listed(node.attr)}][{args[0]}]"
            case "where":
                return f"({args[1]} if {args[0]} else {args[2]})"
            case op if op in INFIX and len(args) > 1:
                return f"({f' {INFIX[op]} '.join(args)})"
        return _call(node, args)

    def _negated(self, n: int, text: str) -> str | None:
        """a, where the text of a node is (-1 * a)."""
        return (
            text[6:-1]
            if self.graph.nodes[n].op == "mul" and text.startswith("(-1 * ")
            else None
        )


def _call(node: Node, args: list[str]) -> str:
    attr = node.attr
    if attr is None:
        attributes = []
    elif node.op == "constant":
        attributes = [_attribute(attr[0]), f"({', '.join(map(number, attr[1]))})"]
    elif type(attr) is tuple and node.op != "softmax":
        attributes = [_attribute(a) for a in attr]
    else:
        attributes = [_attribute(attr)]
    return (
        f"{node.op}({', '.join([*args, *attributes])})"
        if args or attributes
        else node.op
    )


def _attribute(value: Any) -> str:
    if type(value) is tuple:
        return f"({', '.join(map(_attribute, value))})"
    return quoted(value) if type(value) is str else str(value)


def _part(graph: Graph, node: Node) -> str:
    """The indices of a view that fixes some axes and keeps others whole, in their order; empty for another view."""
    whole, (shape, offset, strides) = graph.nodes[node.args[0]].shape, node.attr
    if not whole:
        return ""
    kept, at = list(zip(shape, strides, strict=True)), np.unravel_index(offset, whole)
    texts = []
    for axis, size in enumerate(whole):
        if kept and kept[0] == (size, math.prod(whole[axis + 1 :])) and at[axis] == 0:
            kept.pop(0)
            texts.append(":")
        else:
            texts.append(str(int(at[axis])))
    return "" if kept else ", ".join(texts)

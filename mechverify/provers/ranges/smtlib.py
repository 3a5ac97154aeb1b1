"""A claim about bounds as an SMT-LIB query, over the exact rationals: is there an input that breaks a threshold?

Real values are kept as affine forms of the query's variables; a ReLU whose sign the form's range shows needs no
variable. What is made of more than these and a few products (exp, attention) can't be asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Node, entries
from mechverify.kernel.core.operations.weights import table
from mechverify.kernel.core.ranges import RangeClaim
from mechverify.kernel.relaxation.order import exchanges

PRODUCTS = 16  # of two values that depend on the input: z3 gives up on more
TABLE = 2**10  # entries of an integer lookup
MOST = 2**16  # entries of one value, and products of one contraction


@dataclass(frozen=True)
class Affine:
    """constant + sum of coefficient times variable."""

    constant: Fraction
    terms: dict[str, Fraction]

    def __add__(self, other: "Affine") -> "Affine":
        terms = dict(self.terms)
        for name, c in other.terms.items():
            terms[name] = terms.get(name, Fraction(0)) + c
        return Affine(
            self.constant + other.constant, {n: c for n, c in terms.items() if c}
        )

    def times(self, c: Fraction) -> "Affine":
        return Affine(
            self.constant * c, {n: v * c for n, v in self.terms.items()} if c else {}
        )


class Query:
    """`text` is the query; `inputs` names its variables for the token ids and the real coordinates, in order."""

    def __init__(
        self,
        claim: RangeClaim,
        low: Sequence[Fraction | float],
        high: Sequence[Fraction | float],
    ):
        """Precondition: `low` and `high` [entries] are the thresholds in question, exactly; infinite where there is
        none. Raises Unsupported with the operation at fault."""
        self.claim, self.lines, self.products = claim, ["(set-logic ALL)"], 0
        self.ranges: dict[str, tuple[Fraction, Fraction]] = {}
        self.inputs: list[str | None] = [
            self._token(i, ids) for i, ids in enumerate(claim.domain.tokens)
        ]
        ends = zip(claim.domain.low.tolist(), claim.domain.high.tolist(), strict=True)
        self.coordinates = [
            self._real(f"x{i}", Fraction(a), Fraction(b))
            for i, (a, b) in enumerate(ends)
        ]
        self.values: dict[
            int, np.ndarray
        ] = {}  # forms of real nodes, names of token ids
        self.names: dict[int, str] = {}  # of integer nodes
        for n in claim.graph.ancestors([claim.output, *claim.where]):
            node = claim.graph.nodes[n]
            if node.kind == "int":
                self.names[n] = self._integer(node, [self.names[a] for a in node.args])
            else:
                self.values[n] = self._node(node)
        for n in claim.where:
            self.lines += [
                f"(assert (>= {_text(v)} 0))" for v in self.values[n].ravel()
            ]
        broken = []
        for value, least, most in zip(
            self.values[claim.output].ravel(), low, high, strict=True
        ):
            broken += (
                [f"(< {_text(value)} {_rational(Fraction(least))})"]
                if least > -np.inf
                else []
            )
            broken += (
                [f"(> {_text(value)} {_rational(Fraction(most))})"]
                if most < np.inf
                else []
            )
        self.lines.append(f"(assert (or {' '.join(broken)} false))")
        self.inputs += [
            next(iter(x.terms)) if x.terms else None for x in self.coordinates
        ]

    @property
    def text(self) -> str:
        names = " ".join(n for n in self.inputs if n)
        values = (
            [f"(get-value ({names}))"] if names else []
        )  # of a point there is nothing to ask
        return "\n".join([*self.lines, "(check-sat)", *values, ""])

    def _token(self, position: int, ids: tuple[int, ...]) -> str:
        name = f"t{position}"
        self.lines.append(f"(declare-const {name} Int)")
        self.lines.append(
            f"(assert (or {' '.join(f'(= {name} {v})' for v in ids)} false))"
        )
        return name

    def _real(self, name: str, low: Fraction, high: Fraction) -> Affine:
        """A variable in a range; a number where that is a point."""
        if low == high:
            return Affine(low, {})
        self.ranges[name] = low, high
        self.lines.append(f"(declare-const {name} Real)")
        self.lines.append(
            f"(assert (and (<= {_rational(low)} {name}) (<= {name} {_rational(high)})))"
        )
        return Affine(Fraction(0), {name: Fraction(1)})

    def _fresh(self, low: Fraction, high: Fraction) -> Affine:
        return self._real(f"v{len(self.ranges)}", low, high)

    def _range(self, x: Affine) -> tuple[Fraction, Fraction]:
        low = high = x.constant
        for name, c in x.terms.items():
            ends = sorted(c * end for end in self.ranges[name])
            low, high = low + ends[0], high + ends[1]
        return low, high

    def _node(self, node: Node) -> np.ndarray:
        args = [self.values[a] for a in node.args if a in self.values]
        if node.kind == "ids":
            return self._ids(node, args)
        if prod(node.shape) > MOST:
            raise Unsupported(
                f"a value of {prod(node.shape)} entries is too much for a solver"
            )
        match node.op:
            case "weight" | "constant":
                whole = table(self.claim.weights, node).astype(float)
                return _array(
                    [Affine(Fraction(v), {}) for v in whole.ravel().tolist()],
                    whole.shape,
                )
            case "input":
                start = sum(prod(s) for s in self.claim.shapes[: node.attr[0]])
                return _array(
                    self.coordinates[start : start + prod(node.shape)], node.shape
                )
            case "number":
                return _array(
                    [
                        self._as_real(
                            self.names[node.args[0]],
                            *self.claim.graph.nodes[node.args[0]].span,
                        )
                    ],
                    (),
                )
            case "view":
                return args[0].ravel()[entries(node.attr).ravel()].reshape(node.shape)
            case "select":
                axis, i = node.attr
                return np.moveaxis(args[0], axis, 0)[i : i + 1].reshape(node.shape)
            case "concat":
                return np.concatenate(args, node.attr)
            case "add":
                return _each(Affine.__add__, *np.broadcast_arrays(*args))
            case "sub":
                return _each(
                    lambda x, y: x + y.times(Fraction(-1)), *np.broadcast_arrays(*args)
                )
            case "mul":
                return _each(self._product, *np.broadcast_arrays(*args))
            case "power":
                return _each(lambda x: reduce(self._product, [x] * node.attr), args[0])
            case "einsum":
                return self._contract(node, *args)
            case "relu":
                return _each(self._relu, args[0])
            case "extremum" | "ascending":
                return self._in_order(node, args[0])
            case "abs":
                return _each(
                    lambda x: self._relu(x) + self._relu(x.times(Fraction(-1))), args[0]
                )
            case "reciprocal" if all(
                not x.terms and x.constant for x in args[0].ravel()
            ):  # of a claim's own numbers
                return _each(lambda x: Affine(1 / x.constant, {}), args[0])
            case "gather" | "pick":
                index = node.args[1]
                return self._chosen(
                    args[0],
                    self.names[index] if index in self.names else self.values[index],
                )
            case op:
                raise Unsupported(
                    f"{op!r} is not piecewise linear; a solver can't be asked"
                )

    def _ids(self, node: Node, args: list[np.ndarray]) -> np.ndarray:
        if node.op == "tokens":
            return np.array(self.inputs[: self.claim.domain.length], object)
        return (
            args[0].ravel()[entries(node.attr)]
            if node.op == "view"
            else np.take(args[0], node.attr[1], node.attr[0])
        )

    def _integer(self, node: Node, args: list[str]) -> str:
        """A name for the value of an integer node."""
        a = args[0] if args else ""
        match node.op:
            case "value":
                term = _cases(
                    str(self.inputs[node.attr]),
                    [str(v) for v in map(_whole, self.claim.graph.values)],
                )
            case "integer":
                term = _whole(node.attr)
            case "sum" | "product":
                term = (
                    f"({'+' if node.op == 'sum' else '*'} {' '.join(args)})"
                    if len(args) > 1
                    else a
                )
            case "and" | "or" | "min" | "max":
                less = "<=" if node.op in ("and", "min") else ">="
                term = a
                for other in args[1:]:
                    term = self._named(f"(ite ({less} {term} {other}) {term} {other})")
            case "not":
                term = f"(- 1 {a})"
            case "eq" | "lt" | "le":
                term = f"(ite ({ {'eq': '=', 'lt': '<', 'le': '<='}[node.op] } {a} {args[1]}) 1 0)"
            case "mod":
                term = f"(mod {a} {node.attr})"
            case "floordiv":
                term = f"(div {a} {node.attr})"
            case "lookup":
                if len(node.attr) > TABLE:
                    raise Unsupported(
                        f"a table of {len(node.attr)} integers; a solver is asked up to {TABLE}"
                    )
                term = _cases(a, [_whole(v) for v in node.attr])
            case "where":
                term = f"(ite (= {a} 1) {args[1]} {args[2]})"
            case op:
                raise Unsupported(f"{op!r} is not translated for a solver")
        return self._named(term)

    def _named(self, term: str) -> str:
        name = f"n{len(self.lines)}"
        self.lines.append(f"(define-fun {name} () Int {term})")
        return name

    def _as_real(self, term: str, low: int, high: int) -> Affine:
        x = self._fresh(Fraction(low), Fraction(high))
        self.lines += [f"(assert (= {name} (to_real {term})))" for name in x.terms]
        return x

    def _relu(self, x: Affine) -> Affine:
        low, high = self._range(x)
        if low >= 0:
            return x
        if high <= 0:
            return Affine(Fraction(0), {})
        y = self._fresh(Fraction(0), high)
        name, text = next(iter(y.terms)), _text(x)
        self.lines.append(
            f"(assert (and (>= {name} {text}) (or (= {name} 0) (= {name} {text}))))"
        )
        return y

    def _excess(self, x: Affine, y: Affine) -> Affine:
        """By how much x exceeds y, if it does."""
        return self._relu(x + y.times(Fraction(-1)))

    def _in_order(self, node: Node, x: np.ndarray) -> np.ndarray:
        """Of the last axis, the smaller one of two entries after another put first."""
        rows = x.copy().reshape(-1, x.shape[-1])
        n = rows.shape[1]
        ends = {"max": [(i, n - 1) for i in range(n - 1)], "min": [(0, i) for i in range(1, n)]}  # fmt: skip
        pairs = ends[node.attr] if node.op == "extremum" else [*exchanges(n)]
        for row in rows:
            for i, j in pairs:
                more = self._excess(row[i], row[j])
                row[i], row[j] = row[i] + more.times(Fraction(-1)), row[j] + more
        if node.op == "extremum":
            rows = rows[:, -1 if node.attr == "max" else 0]
        return rows.reshape(node.shape)

    def _product(self, x: Affine, y: Affine) -> Affine:
        if not (x.terms and y.terms):
            return x.times(y.constant) if not y.terms else y.times(x.constant)
        self.products += 1
        if self.products > PRODUCTS:
            raise Unsupported(
                f"more than {PRODUCTS} products of values that depend on the input are too many"
            )
        corners = [a * b for a in self._range(x) for b in self._range(y)]
        z = self._fresh(min(corners), max(corners))
        self.lines.append(f"(assert (= {_text(z)} (* {_text(x)} {_text(y)})))")
        return z

    def _contract(self, node: Node, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        first, second, result = node.attr.replace("->", ",").split(",")
        letters = result + "".join(c for c in first if c not in result)
        sizes = dict(zip(first + second, x.shape + y.shape, strict=True))
        if prod(sizes.values()) > MOST:
            raise Unsupported(
                f"a contraction of {prod(sizes.values())} products is too much for a solver"
            )
        spread = []
        for a, term in ((x, first), (y, second)):
            order = [term.index(c) for c in letters if c in term]
            spread.append(
                a.transpose(order).reshape(
                    [sizes[c] if c in term else 1 for c in letters]
                )
            )
        products = _each(self._product, *np.broadcast_arrays(*spread))
        summed = tuple(range(len(result), len(letters)))
        return (
            np.add.reduce(products, axis=summed, keepdims=True).reshape(node.shape)
            if summed
            else products
        )

    def _chosen(self, rows: np.ndarray, index: np.ndarray | str) -> np.ndarray:
        """rows[index] for a token id, several, or an integer node."""
        if isinstance(index, np.ndarray) and index.ndim:
            return np.stack([self._chosen(rows, i) for i in index.ravel()]).reshape(
                *index.shape, *rows.shape[1:]
            )
        found = []
        for column in rows.reshape(len(rows), -1).T:
            ranges = [self._range(x) for x in column]
            x = self._fresh(
                min(low for low, _ in ranges), max(high for _, high in ranges)
            )
            if x.terms:
                self.lines.append(
                    f"(assert (= {_text(x)} {_cases(str(index), [_text(v) for v in column])}))"
                )
            found.append(x)
        return _array(found, rows.shape[1:])


def _array(items: list, shape: tuple[int, ...]) -> np.ndarray:
    """An array of forms, of any shape."""
    result = np.empty(len(items), object)
    for i, item in enumerate(items):
        result[i] = item
    return result.reshape(shape)


def _each(f: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    flat = [
        f(*items)
        for items in zip(*(np.asarray(a, object).ravel() for a in arrays), strict=True)
    ]
    return _array(flat, np.shape(arrays[0]))


def _cases(index: str, values: list[str]) -> str:
    text = values[-1]
    for i, value in reversed(list(enumerate(values[:-1]))):
        text = f"(ite (= {index} {i}) {value} {text})"
    return text


def _whole(value: int) -> str:
    return str(value) if value >= 0 else f"(- {-value})"


def _rational(value: Fraction) -> str:
    sign, value = value < 0, abs(value)
    text = (
        f"{value.numerator}.0"
        if value.denominator == 1
        else f"(/ {value.numerator}.0 {value.denominator}.0)"
    )
    return f"(- {text})" if sign else text


def _text(x: Affine) -> str:
    parts = [_rational(x.constant)] if x.constant or not x.terms else []
    parts += [
        name if c == 1 else f"(* {_rational(c)} {name})" for name, c in x.terms.items()
    ]
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"

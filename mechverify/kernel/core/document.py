"""Graphs as a certificate lists them: rows [operation, [operands], attribute] that refer back to earlier ones."""

import re
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.functions import FUNCTIONS
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.integers import LONGEST, OPERATIONS

FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")  # that a module may have been given in


def add_expression(graph: Graph, entry: Reader) -> int:
    """Add a mechanism, written as a list of nodes that refer back to earlier ones, and return its root.

    Each node is [op, [operands], attribute]; operands are indices into the same list.
    """
    ids: list[int] = []
    for row in entry.items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(["value", "integer", *OPERATIONS])
        args = operands.integers(2**12)
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        ids.append(graph.add(name, *(ids[a] for a in args), attr=ATTRIBUTES[name](attribute)))
    return ids[-1]


def captured(graph: Graph, weights: dict[str, np.ndarray], entry: Reader, shapes: list) -> dict[str, int]:
    """Add a captured model's nodes, rows [op, [operands], attribute], and return its sites, names of nodes."""
    ids: list[int] = []
    for row in entry["nodes"].items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(ATTRIBUTES)
        args, attr = operands.integers(2**12), ATTRIBUTES[name](attribute)
        if len(args) != OPERANDS.get(name, 1) and not (args and name in ("concat", *OPERATIONS)):
            raise Rejected(f"{row.where}: {name!r} on {len(args)} operands")
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        if name == "weight" and (attr[0] not in weights or not _fits(attr[1], weights[attr[0]].shape)):
            raise Rejected(f"the graph reads a tensor {attr[0]!r} of shape {attr[1]}, which the weights don't hold")
        if name == "input" and (attr[0] >= len(shapes) or attr[1] != shapes[attr[0]]):
            raise Rejected(f"the graph reads input {attr[0]} of shape {attr[1]}; the domain's inputs are {shapes}")
        ids.append(graph.add(name, *(ids[a] for a in args), attr=attr))
    sites = {}
    for row in entry["sites"].items(2**16, 1):
        name, node = row.items(2, 2)
        if name.text() in sites:
            raise Rejected(f"{name.where}: two sites of one name")
        sites[name.text()] = ids[node.an_integer(0, len(ids) - 1)]
    replayed = entry["replayed"]
    replayed["inputs"].an_integer(0), replayed["difference"].number(), replayed["module"].text()
    replayed.close()
    if "compared" in entry.value:  # not in files of earlier versions
        compared = entry["compared"]
        compared["dtype"].one_of(FLOATS), compared["inputs"].an_integer(0)
        compared["difference"].number(), compared["tolerance"].number()
        compared.close()
    entry.close()
    return sites


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(shape) == len(whole) and all(0 < a <= b for a, b in zip(shape, whole, strict=True))


def sizes(entry: Reader) -> tuple[int, ...]:
    return tuple(v.an_integer(1, 2**24) for v in entry.items(16))


def _pair(first: Callable[[Reader], Any], second: Callable[[Reader], Any]) -> Callable[[Reader], tuple]:
    def read(entry: Reader) -> tuple:
        a, b = entry.items(2, 2)
        return first(a), second(b)

    return read


def _view(entry: Reader) -> tuple:
    shape, offset, strides = entry.items(3, 3)
    return sizes(shape), offset.an_integer(0), tuple(strides.integers(16))


def _constant(entry: Reader) -> tuple:
    shape, values = entry.items(2, 2)
    numbers = tuple(v.float64() for v in values.items(2**16))
    if len(numbers) != prod(sizes(shape)):
        raise Rejected(f"{entry.where}: the entries don't fill the shape")
    return sizes(shape), numbers


def _einsum(entry: Reader) -> str:
    if not re.fullmatch(r"[a-z]{0,16},[a-z]{0,16}->[a-z]{0,16}", entry.text()):
        raise Rejected(f"{entry.where}: expected a contraction of two operands")
    return entry.text()


def _mask(entry: Reader) -> Any:
    if type(entry.value) is int:
        return entry.an_integer(1)
    return entry.one_of(["causal"]) if type(entry.value) is str else tuple(r.text() for r in entry.items(2**12, 1))


def _nothing(entry: Reader) -> None:
    if entry.value is not None:
        raise Rejected(f"{entry.where}: this operation has no attribute")


def _integer(entry: Reader) -> int | None:
    return None if entry.value is None else entry.an_integer()


def _table(entry: Reader) -> tuple[int, ...]:
    return tuple(entry.integers(LONGEST))


# The operations of a captured graph, and how their attribute is read.
ATTRIBUTES: dict[str, Callable[[Reader], Any]] = {
    "tokens": _nothing,
    "input": _pair(lambda e: e.an_integer(0, 2**10), sizes),
    "weight": _pair(Reader.text, sizes),
    "constant": _constant,
    "view": _view,
    "concat": lambda e: e.an_integer(0, 15),
    "einsum": _einsum,
    "softmax": _mask,
    "power": lambda e: e.an_integer(2, 16),
    "over_root": lambda e: e.an_integer(1, 2**30),
    **dict.fromkeys(["gather", "add", "sub", "mul", "pi", "number", "pick", *FUNCTIONS], _nothing),
    **{name: _table if name in OPERATIONS and OPERATIONS[name].table else _integer
       for name in ("value", "integer", *OPERATIONS)},
}  # fmt: skip


OPERANDS = {**dict.fromkeys(["tokens", "input", "weight", "constant", "pi", "value", "integer"], 0),
            **dict.fromkeys(["gather", "add", "sub", "mul", "einsum", "pick"], 2)}  # fmt: skip

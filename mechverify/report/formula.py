"""Expressions of a claim as formulas, read off its graph, so that nobody has to trust a text beside it."""

import hashlib
import math

import numpy as np

from mechverify.kernel.claim import Claim
from mechverify.kernel.functions import FUNCTIONS
from mechverify.kernel.graph import Graph, Node, entries

OPERATORS = {"add": "+", "sub": "-", "mul": "*"}
LONG, LONGEST = 400, 4_000  # characters of a formula; of an integer one
_INFIX = {"sum": " + ", "product": "*", "eq": " == ", "lt": " < ", "le": " <= ", "and": " and ", "or": " or "}


def integer(graph: Graph, root: int) -> str:
    """An integer expression in infix notation; tokens are x0, x1, ... One that is too long to print is cut,
    with the SHA-256 of all of it."""
    nodes = graph.ancestors([root])
    whole = hashlib.sha256(
        repr([(n, graph.nodes[n].op, graph.nodes[n].args, graph.nodes[n].attr) for n in nodes]).encode()
    )
    text: dict[int, str] = {}
    for n in nodes:
        node = graph.nodes[n]
        args = [text[a] for a in node.args]
        if sum(map(len, args)) > LONGEST:
            return f"a mechanism of {len(nodes)} operations, sha256 {whole.hexdigest()}"
        match node.op:
            case "value":
                text[n] = f"x{node.attr}"
            case "integer":
                text[n] = str(node.attr)
            case "mod" | "floordiv":
                text[n] = f"({args[0]} {'mod' if node.op == 'mod' else '//'} {node.attr})"
            case "kth_largest":
                text[n] = f"kth_largest({node.attr}; {', '.join(args)})"
            case "lookup":
                text[n] = f"{_table(list(map(str, node.attr)))}[{args[0]}]"
            case "where":
                text[n] = f"({args[1]} if {args[0]} else {args[2]})"
            case op if op in _INFIX:
                text[n] = f"({_INFIX[op].join(args)})"
            case op:
                text[n] = f"{op}({', '.join(args)})"
    return text[root]


def _table(entries: list[str]) -> str:
    """A table; one that is too long to print by its first entries, their number and the SHA-256 of all, with commas
    between."""
    if len(entries) <= 16:
        return f"[{', '.join(entries)}]"
    whole = hashlib.sha256(",".join(entries).encode()).hexdigest()
    return f"[{', '.join(entries[:8])}, ...; {len(entries)} entries, sha256 {whole}]"


def real(claim: Claim, n: int) -> str:
    """A real node as a formula of the model's sites and of the inputs: `x0[3]` is an entry of the first one, `token 2`
    the integer that a token means. A long formula is cut."""
    node, texts = claim.graph.nodes[n], _texts(claim, n)
    if node.op == "view" and (inner := node.args[0]) in texts and claim.graph.nodes[inner].op == "concat":
        shown = entries(node.attr).ravel()
        if np.array_equal(shown, np.arange(math.prod(claim.graph.nodes[inner].shape))):
            return texts[inner]  # the same entries in the same order
    return texts[n]


def sites(claim: Claim, n: int) -> dict[str, int]:
    """The entries of sites that a formula speaks of, by their text."""
    graph, found = claim.graph, {}
    texts = _texts(claim, n)
    names = _names(claim, n)
    for m in texts:
        node = graph.nodes[m]
        if node.op in ("view", "pick") and node.shape == () and node.kind == "real" and set(node.args) & set(names):
            found[texts[m]] = m
    return found


def _names(claim: Claim, n: int) -> dict[int, str]:
    """The module's own values; what was added for the claim comes after them."""
    own = {*claim.where, *claim.cases, n}
    return {m: name for name, m in claim.sites.items() if m not in own and claim.graph.nodes[m].op != "tokens"}


def _texts(claim: Claim, n: int) -> dict[int, str]:
    names, texts, graph = _names(claim, n), {}, claim.graph
    needed, stack = set(), [n]
    while stack:
        m = stack.pop()
        if m not in needed:
            needed.add(m)
            stack += [] if m in names else graph.nodes[m].args
    for m in sorted(needed):
        text = names.get(m) or (integer(graph, m) if graph.nodes[m].kind == "int" else _formula(graph, m, texts, names))
        texts[m] = text if len(text) <= LONG else f"{text[:LONG]}... (node {m})"
    return texts


def _formula(graph: Graph, n: int, texts: dict[int, str], names: dict[int, str]) -> str:
    node = graph.nodes[n]
    args = [texts[a] for a in node.args if graph.nodes[a].kind == "real"]
    match node.op:
        case "view" if node.shape == () and node.kind == "real":
            operand = graph.nodes[node.args[0]]
            at = [int(i) for i in np.unravel_index(node.attr[1], operand.shape)]
            if operand.op == "gather":
                table, ids = (graph.nodes[a] for a in operand.args)
                meant = (len(graph.values),), tuple(map(float, graph.values))
                if ids.op == "tokens" and (table.op, table.attr) == ("constant", meant):
                    return f"token {at[0]}"
            return f"{args[0]}{at}"
        case "view" if node.args[0] in names and (part := _part(graph, node)):
            return f"{args[0]}[{part}]"
        case "view" if node.shape == (1,) and graph.nodes[node.args[0]].shape == ():
            return args[0]
        case "input":
            return f"x{node.attr[0]}"
        case "constant" if node.shape == ():
            return f"{node.attr[1][0]:.17g}"
        case "constant" if len(node.shape) == 1:
            return _table([f"{v:.17g}" for v in node.attr[1]])
        case "pi" | "number":
            return "pi" if node.op == "pi" else texts[node.args[0]]
        case "pick":
            return f"{args[0]}[{texts[node.args[1]]}]"
        case "add" if args[1].startswith("(-1 * ") and graph.nodes[node.args[1]].op == "mul":
            return f"({args[0]} - {args[1][6:-1]})"
        case "add" | "sub" | "mul":
            return f"({args[0]} {OPERATORS[node.op]} {args[1]})"
        case "power":
            return f"{args[0]}^{node.attr}"
        case "concat":
            return f"[{', '.join(args)}]"
    name = node.op if node.op in FUNCTIONS else f"{node.op}, node {n},"  # what its attribute does, the graph says
    return f"{name}({', '.join(args)})"


def _part(graph: Graph, node: Node) -> str:
    """The indices of a view that fixes some axes and keeps others whole, in their order; empty for another view."""
    whole, (shape, offset, strides) = graph.nodes[node.args[0]].shape, node.attr
    kept, at = list(zip(shape, strides, strict=True)), np.unravel_index(offset, whole) if whole else ()
    texts = []
    for axis, size in enumerate(whole):
        if kept and kept[0] == (size, math.prod(whole[axis + 1 :])) and at[axis] == 0:
            kept.pop(0)
            texts.append(":")
        else:
            texts.append(str(int(at[axis])))
    return "" if kept else ", ".join(texts)

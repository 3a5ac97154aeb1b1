"""The proof tree of a checked certificate, for the terminal."""

import json

from rich.tree import Tree

from mechverify.kernel import Theorem
from mechverify.kernel.core import container
from mechverify.kernel.core.accuracy import AccuracyTheorem

DEPTH = 12  # levels shown


def proof_tree(certificate: bytes, theorem: Theorem) -> Tree:
    proof = json.loads(container.unpack(certificate)["certificate.json"])["proof"]
    root = Tree("proof")
    todo = [(root, proof, 0)]
    while todo:
        parent, node, depth = todo.pop()
        branch = parent.add(_label(node, theorem))
        if depth == DEPTH:
            branch.add("...")
            continue
        for name in ("second", "first", "outside", "inside"):
            if name in node:
                todo.append((branch, node[name], depth + 1))
    return root


def _label(node: dict, theorem: Theorem) -> str:
    match node["rule"]:
        case "fold":
            listed = sum(1 for c in node["cells"] if c[2] is None)
            cells = theorem.cells if isinstance(theorem, AccuracyTheorem) else []
            decided = sum(1 for *_, wrong in cells if wrong.high == 0)
            return (
                f"fold: {len(cells)} cells, {decided} of them right everywhere, "
                f"{len(node['cells']) - listed} counted on a grid, {listed} added up input by input"
            )
        case "counterexample":
            return f"counterexample: {len(node['inputs'])} wrong inputs, replayed"
        case "split" if "coordinate" in node:
            return f"split: coordinate {node['coordinate']} at {float.fromhex(node['at']):.6g}"
        case "point":
            return f"point: {len(node['inputs'])} inputs, replayed"
        case "linear":
            lines = node["lines"]
            return "linear: the kernel's own lines" if lines is None else f"linear: {len(lines)} sets of given lines"
        case "split":
            return f"split: the token at position {node['position']} is in {node['first']}, or not"
        case "both":
            return "both: the better of two proofs' bounds"
        case rule:
            return rule

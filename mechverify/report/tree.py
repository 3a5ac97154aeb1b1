"""The proof tree of a checked certificate, for the terminal."""

import json

from rich.text import Text
from rich.tree import Tree

from mechverify.kernel import Theorem
from mechverify.kernel.core import container
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.words import listed, number

DEPTH = 12  # levels shown


def proof_tree(certificate: bytes, theorem: Theorem) -> Tree:
    proof = json.loads(container.unpack(certificate)["certificate.json"])["proof"]
    cells = theorem.cells if isinstance(theorem, CountingTheorem) else []
    decided = sum(1 for *_, wrong in cells if wrong.high == 0)
    root = Tree(
        f"proof: {len(cells)} cells, {decided} of them right everywhere"
        if cells
        else "proof"
    )
    todo = [(root, proof, 0)]
    while todo:
        parent, node, depth = todo.pop()
        branch = parent.add(Text(_label(node)))
        if depth == DEPTH:
            branch.add("...")
            continue
        for name in ("second", "first", "outside", "inside"):
            if type(node.get(name)) is dict:  # `first` of a split is a set of tokens
                todo.append((branch, node[name], depth + 1))
    return root


def _label(node: dict) -> str:
    match node["rule"]:
        case "fold":
            alone = sum(1 for c in node["cells"] if c[2] is None)
            return f"fold: {len(node['cells']) - alone} cells counted on a grid, {alone} added up input by input"
        case "ratios":
            return f"ratios: {len(node['cells'])} cells, the heads' ratios bounded together in each"
        case "nested":
            cells = sum(len(family["cells"]) for family in node["families"])
            return f"nested: {cells} cells of two layers, in {len(node['families'])} families"
        case "mixtures":
            return f"mixtures: {len(node['cells'])} cells, the model behind attention bounded by lines in each"
        case "counterexample":
            return f"counterexample: {len(node['inputs'])} wrong inputs, replayed"
        case "split" if "coordinate" in node:
            return f"split: coordinate {node['coordinate']} at {number(Reader(node['at'], 'at').number())}"
        case "split" if "node" in node:
            at = number(Reader(node["at"], "at").number())
            return f"split: entry {node['entry']} of a value of the model at {at}"
        case "point":
            return f"point: {len(node['inputs'])} inputs, replayed"
        case "relaxation" | "interval" | "linear" | "farkas":
            return _relaxation(node)
        case "split":
            return f"split: the token at position {node['position']} is in [{listed(node['first'])}], or not"
        case "both":
            return "both: the better of two proofs' bounds"
        case rule:
            return rule


def _relaxation(node: dict) -> str:
    if "lines" not in node:
        return "relaxation: intervals alone"
    if node["lines"] is None and "multipliers" not in node:
        return "relaxation: the kernel's own lines"
    multipliers = (
        f" and {len(node['multipliers'])} of multipliers"
        if "multipliers" in node
        else ""
    )
    return f"relaxation: {len(node['lines'] or [])} sets of given lines{multipliers}"

"""The proof of a checked certificate as a tree: its steps in words, for the terminal and for a page."""

import json
from collections import deque
from dataclasses import dataclass, field

from rich.text import Text
from rich.tree import Tree

from mechverify.kernel import Theorem
from mechverify.kernel.core import container
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.words import listed, number

DEPTH = 12  # levels shown
MOST = 400  # steps shown


@dataclass
class Step:
    """`below` counts the steps under it that aren't shown."""

    label: str
    steps: "list[Step]" = field(default_factory=list)
    below: int = 0


def outline(certificate: bytes, theorem: Theorem) -> Step:
    """The proof from above, as far as it is shown: those with fewer levels above them first."""
    cells = theorem.cells if isinstance(theorem, CountingTheorem) else []
    decided = sum(1 for *_, wrong in cells if wrong.high == 0)
    root = Step(
        f"proof: {len(cells)} cells, {decided} of them right everywhere"
        if cells
        else "proof"
    )
    waiting, left = deque([(root, _proof(certificate), DEPTH)]), MOST
    while waiting:
        parent, node, levels = waiting.popleft()
        if left and levels:
            left -= 1
            step = Step(_label(node))
            parent.steps.append(step)
            waiting += [(step, below, levels - 1) for below in _next(node)]
        else:
            parent.below += _size(node)
    return root


def terminal(root: Step) -> Tree:
    tree = Tree(Text(root.label))
    todo = [(tree, root)]
    while todo:
        branch, step = todo.pop()
        if step.below:
            branch.add(f"... {step.below:,} more")
        todo += [(branch.add(Text(child.label)), child) for child in step.steps]
    return tree


def cuts(certificate: bytes, domain: Domain) -> list[Domain]:
    """The boxes into which a proof cuts its domain at coordinates; one where it doesn't."""
    parts, todo = [], [(domain, _proof(certificate))]
    while todo:
        part, node = todo.pop()
        if node["rule"] == "split" and "coordinate" in node:
            at = Reader(node["at"], "at").float64()
            halves = part.cut(node["coordinate"], at)
            todo += [(halves[1], node["outside"]), (halves[0], node["inside"])]
        else:
            parts.append(part)
    return parts


def _proof(certificate: bytes) -> dict:
    return json.loads(container.unpack(certificate)["certificate.json"])["proof"]


def _next(node: dict) -> list[dict]:
    """The proofs that a step is made of, in their order; `first` of a split is a set of tokens."""
    match node["rule"]:
        case "split":
            return [node["inside"], node["outside"]]
        case "both":
            return [node["first"], node["second"]]
        case "cut":
            return [*(row["proof"] for row in node["lemmas"]), node["proof"]]
        case "differences":
            return [node["proof"]]
        case "faces":
            return [*node["faces"]]
        case "union":
            return [*node["parts"]]
    return []


def _size(node: dict) -> int:
    count, todo = 0, [node]
    while todo:
        count += 1
        todo += _next(todo.pop())
    return count


def _label(node: dict) -> str:
    match node["rule"]:
        case "fold":
            alone = sum(1 for c in node["cells"] if c[2] is None)
            return f"fold: {len(node['cells']) - alone} cells counted on a grid, {alone} added up input by input"
        case "ratios" if "trials" in node:
            return "ratios: the range of a sum of ratios, for each token of the query"
        case "nested" if "other" in node:
            return "nested: how much a head of the second layer attends to a position"
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
        case "cut":
            return f"cut: {len(node['lemmas'])} lemmas, and the output from them"
        case "differences":
            return "differences: of a graph that computes differences from differences"
        case "faces":
            return f"faces: of a cone, {len(node['faces'])} faces of the box"
        case "solver":
            return (
                "solver: z3's word that no input leaves a range, which nobody checked"
            )
        case "enumerate":
            return "enumerate: every input of the part, run"
        case "open":
            return "open: nothing is said of the part"
        case "relaxation" if "to" in node:
            signs = (
                f", told apart by the signs of {node['signs']} values"
                if node.get("signs")
                else ""
            )
            return f"relaxation: half-spaces{signs}, on a grid down to 2^-{node['to']} of the whole"
        case "relaxation" | "interval" | "linear" | "farkas":
            return _relaxation(node)
        case "split":
            return f"split: the token at position {node['position']} is in [{listed(node['first'])}], or not"
        case "union":
            return f"union: a proof for each of {len(node['parts'])} boxes"
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

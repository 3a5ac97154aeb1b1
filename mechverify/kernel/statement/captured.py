"""What the sentences of both kinds of claims say of a graph that the file lists: how its values are called, what the
file says of them, and which were added for the claim.
"""

from fractions import Fraction

from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.texts import printable
from mechverify.kernel.core.words import about, listed, name, quoted
from mechverify.kernel.statement.formula import VOCABULARY, Formulas, Listing


def names(claim: Claim, nodes: Listing, own: set[int]) -> dict[int, str]:
    """How the model's own values are called: as the file calls them, or by their number. What was added for the claim,
    `own`, is taken apart instead."""
    found: dict[int, str] = {}
    for text in (
        *claim.sites,
        claim.site,
    ):  # of several names the claim's, else the last without quotes
        n, said = claim.sites[text], name(text, VOCABULARY)
        if n in nodes.number and n not in own and claim.graph.nodes[n].kind == "real":
            if said and not (said.startswith("'") and n in found):
                found[n] = said
            found.setdefault(n, nodes.name(n))
    return {n: text for n, text in found.items() if claim.graph.nodes[n].op != "input"}


def added(claim: Claim) -> list[int]:
    """The entries' nodes, where the claim is about a list of expressions."""
    node = claim.graph.nodes[claim.sites[claim.site]]
    if claim.position is not None:
        return []
    return entries(claim, claim.sites[claim.site]) if node.op == "concat" else []


def entries(claim: Claim, n: int) -> list[int]:
    """The nodes that a concatenation lists one by one."""
    nodes = claim.graph.nodes
    if any(nodes[a].shape != (1,) for a in nodes[n].args):
        return []
    return [nodes[a].args[0] if nodes[a].op == "view" and nodes[nodes[a].args[0]].shape == () else a
            for a in nodes[n].args]  # fmt: skip


def asserted(claim: Claim, formulas: Formulas, nodes: Listing) -> tuple[str, ...]:
    """What the certificate's author says of the graph, and the nodes that the names in the sentence stand for: asked
    once all that has names is written."""
    graph = claim.stated["graph"]
    replayed = graph["replayed"]
    times, difference = replayed["inputs"], Fraction(_rational(replayed["difference"]))
    how = (
        f"replayed on {times} inputs: within {about(difference, up=True)}"
        if times
        else "not replayed"
    )
    named = [
        (n, text) for n, text in sorted(formulas.used.items()) if text != nodes.name(n)
    ]
    called = (
        [
            f"nodes are called {listed([f'{nodes.name(n)}: {text}' for n, text in named])}"
        ]
        if named
        else []
    )
    return (
        f"the graph is the module {quoted(printable(replayed['module'], 400))}, {how}",
        *_compared(**graph.get("compared", {})),
        *(_programs(graph["module"]) if claim.semantics == "float32" else ()),
        *called,
    )


def _compared(
    dtype: str = "", inputs: int = 0, difference: str = "0/1", tolerance: str = "0/1"
) -> list[str]:
    """Of the module as it was given; nothing in files of earlier versions."""
    off, allowed = Fraction(_rational(difference)), Fraction(_rational(tolerance))
    return [f"the module itself, in {dtype}, differs on {inputs} inputs by at most {about(off, up=True)} of a site's "
            f"size, where rounding explains {about(allowed, up=False)}"] * bool(dtype)  # fmt: skip


def _programs(module: dict) -> list[str]:
    """Of a claim about float32 programs."""
    norms = [f"number {n}" for n in module["norms"]]
    whole = (
        f"; of these {listed(norms)}, counted from 0, each with what it takes, are normalisations"
        if norms
        else ""
    )
    fused = [n for part in module.get("fused", ()) for n in part]
    kernels = (
        f"; by fused attention {listed([f'number {n}' for n in fused])}"
        if fused
        else ""
    )
    return [f"the module computes the first {module['rows']} nodes of its list, in float32, of inputs that are rounded "
            f"first{whole}{kernels}; other nodes, and the claim's expressions, are exact"]  # fmt: skip


def _rational(text: str) -> Fraction:
    return Fraction(text) if "/" in text else Fraction(float.fromhex(text))

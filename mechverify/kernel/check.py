"""Decide whether a certificate establishes its claim.

The kernel builds the graph from the weights itself, derives every cell of the proof itself, and compares
what it proved with what the certificate concludes. Anything unknown or unproved rejects.
"""

import hashlib
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mechverify.kernel import container
from mechverify.kernel.architectures import ARCHITECTURES
from mechverify.kernel.errors import NotACertificate, Rejected
from mechverify.kernel.evaluate import Evaluation, batch_size
from mechverify.kernel.fields import Reader
from mechverify.kernel.graph import Graph
from mechverify.kernel.job import Bounds, Domain, Job, add_expression
from mechverify.kernel.rounding import Float64, check_environment
from mechverify.kernel.rules import counterexample, enumerate, fold, split

FORMAT, VERSION = "mechverify-certificate", 1
EXPLAINED = 16  # replayed inputs that a theorem shows
VERDICTS = ("PROVED", "REFUTED", "BOUNDED")
AXIOMS = {
    "ieee754": "float64 + - * / and sqrt round to nearest with gradual underflow, and a matrix product is a sum "
    "of its products in some order",
}
LEAVES = {"enumerate": enumerate.check, "fold": fold.check, "counterexample": counterexample.check}


@dataclass(frozen=True)
class Claim:
    """Accuracy of `site`'s row `position` against a mechanism (root node `target`), over a token domain."""

    semantics: str
    architecture: str
    weights_sha256: str
    site: str
    position: int
    at_least: Fraction | None
    domain: Domain
    graph: Graph
    target: int


class Counterexample(NamedTuple):
    tokens: list[int]
    expected: int
    decoded: int


@dataclass(frozen=True)
class Theorem:
    """What an accepted certificate establishes: of `claim.domain.size` inputs, at least `right.low` and at
    most `right.high` are right (the bounds that the certificate states; those proved are at least as good).
    `counterexamples` are some that were replayed: each is surely wrong, and comes with the mechanism's
    value and the output whose enclosure has the largest centre. `cells` are the cells of rule fold, as
    (pinned tokens, key, size, bounds of the wrong inputs).
    """

    claim: Claim
    verdict: str
    right: Bounds
    axioms: tuple[str, ...]
    counterexamples: list[Counterexample]
    rules: dict[str, int]
    cells: list[tuple]
    kernel_ops: int
    brute_force_ops: int


def check(data: bytes) -> Theorem:
    """Check the bytes of a certificate file.

    Raises NotACertificate if it can't be read as one, Rejected if it doesn't establish what it says.
    Nothing else is raised on any input.
    """
    contents = container.unpack(data)
    document = container.read_json(contents["certificate.json"])
    if type(document) is not dict or document.get("format") != FORMAT:
        raise NotACertificate(f"certificate.json doesn't say that its format is {FORMAT!r}")
    if type(document.get("version")) is not int or document["version"] != VERSION:
        raise NotACertificate(f"format version {document.get('version')!r}; this kernel reads version {VERSION}")
    try:
        with np.errstate(all="ignore"):  # what isn't finite is rejected, or bounds nothing: docs/soundness.md
            check_environment()
            return _decide(Reader(document, "certificate"), contents["weights.safetensors"])
    except (Rejected, NotACertificate):
        raise
    except Exception as error:  # fail closed: what the kernel can't finish, it doesn't accept
        raise Rejected(f"internal error, please report it: {type(error).__name__}: {error}") from error


def _decide(document: Reader, weights_data: bytes) -> Theorem:
    for name in ("format", "version"):
        document[name]
    claim, weights = read_claim(document["claim"], weights_data)
    sites = ARCHITECTURES[claim.architecture](claim.graph, weights)
    if claim.site not in sites:
        raise Rejected(f"the model has no site {claim.site!r}; it has {', '.join(sites)}")
    output = claim.graph.select(sites[claim.site], 0, claim.position)
    if claim.graph.nodes[output].kind != "real" or len(claim.graph.nodes[output].shape) != 1:
        raise Rejected(f"row {claim.position} of site {claim.site!r} is not a vector of outputs")
    job = Job(claim.graph, weights, output, claim.target, Float64())
    right, wrong, rules = prove(job, claim.domain, document["proof"])
    axioms = tuple(a.text() for a in document.list("axioms", limit=16))
    if axioms != ("ieee754",):  # what the rules above use, in alphabetical order; no rule needs another yet
        raise Rejected(f"the proof uses the axioms ['ieee754'], the certificate lists {list(axioms)}")
    verdict, right = _conclude(document["conclusion"], claim, right, len(wrong) > 0)
    document.close()
    cost = Float64()
    some_input = np.array([[tokens[0] for tokens in claim.domain.tokens]])
    Evaluation(claim.graph, weights, cost, some_input)[output]
    brute_force = cost.ops * claim.domain.size
    counterexamples = _explain(job, wrong)
    return Theorem(claim, verdict, right, axioms, counterexamples, rules, job.cells, job.arithmetic.ops, brute_force)


def _explain(job: Job, wrong: np.ndarray) -> list[Counterexample]:
    wrong = wrong[: min(EXPLAINED, batch_size(job.graph, [job.output, job.target]))]
    if not len(wrong):
        return []
    values = Evaluation(job.graph, job.weights, Float64(), wrong, ordered=False)
    expected = np.broadcast_to(values[job.target], len(wrong)).tolist()
    decoded = np.broadcast_to(values[job.output].mid.argmax(-1), len(wrong)).tolist()
    return [Counterexample(*row) for row in zip(wrong.tolist(), expected, decoded, strict=True)]


def read_claim(claim: Reader, weights_data: bytes) -> tuple[Claim, dict[str, np.ndarray]]:
    """The claim as data, and the weights it speaks of (by hash)."""
    if claim["kind"].text() != "accuracy":
        raise Rejected(f"unknown kind of claim {claim['kind'].text()!r}")
    semantics = claim["semantics"].text()
    if semantics != "real":
        raise Rejected(f"unknown semantics {semantics!r}")
    architecture = claim["architecture"].text()
    if architecture not in ARCHITECTURES:
        raise Rejected(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    stated = claim["weights_sha256"].text()
    if stated != hashlib.sha256(weights_data).hexdigest():
        raise Rejected("the weights in the file are not those that the claim names (SHA-256 differs)")
    try:
        weights = container.read_weights(weights_data)
    except ValueError as error:
        raise Rejected(f"weights: {error}") from None
    domain, values = read_domain(claim["domain"])
    graph = Graph(domain.length, values)
    target = add_expression(graph, claim["equals"])
    at_least = _fraction(claim["at_least"])
    site, position = claim["site"].text(), claim.integer("position", 0, domain.length - 1)
    claim.close()
    return Claim(semantics, architecture, stated, site, position, at_least, domain, graph, target), weights


def read_domain(entry: Reader) -> tuple[Domain, tuple[int, ...]]:
    """Token sets by position (ids, ascending) and the integer that each id of the vocabulary means."""
    values = tuple(entry["values"].integers(limit=2**20))
    tokens = tuple(tuple(row.integers()) for row in entry.list("tokens", limit=2**10))
    entry.close()
    if not values or not tokens or not all(tokens):
        raise Rejected("the domain is empty")
    for here in tokens:
        ascending = all(a < b for a, b in pairwise(here))
        if not ascending or here[0] < 0 or here[-1] >= len(values):
            raise Rejected("a token set of the domain is not ascending, or not within the vocabulary")
    return Domain(tokens), values


def _fraction(entry: Reader) -> Fraction | None:
    if entry.value is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,400})/([1-9][0-9]{0,399})", entry.text())
    if parts is None or int(parts[1]) > int(parts[2]):
        raise Rejected(f"{entry.where}: expected null or a fraction 'p/q' of at most one")
    return Fraction(int(parts[1]), int(parts[2]))


def prove(job: Job, domain: Domain, proof: Reader) -> tuple[Bounds, np.ndarray, dict[str, int]]:
    """Bounds for the right inputs of the domain, the inputs that were replayed as wrong, and how often each
    rule was used. The tree is walked with a stack: its depth is the certificate's to choose."""
    results: list[Bounds] = []
    replayed: list[np.ndarray] = []
    used: dict[str, int] = {}
    todo: list[tuple] = [("visit", domain, proof)]
    while todo:
        action, part, node = todo.pop()
        if action == "add":
            a, b = results.pop(), results.pop()
            results.append(Bounds(a.low + b.low, a.high + b.high))
            continue
        if action == "meet":
            a, b = results.pop(), results.pop()
            results.append(Bounds(max(a.low, b.low), min(a.high, b.high)))
            if results[-1].low > results[-1].high:
                raise Rejected("two proofs of the same part contradict each other")
            continue
        rule = node["rule"].text()
        used[rule] = used.get(rule, 0) + 1
        if rule == "split":
            todo.append(("add", None, None))
            todo.extend(("visit", *child) for child in split.children(part, node))
        elif rule == "both":
            todo.append(("meet", None, None))
            todo.extend(("visit", part, node[name]) for name in ("first", "second"))
            node.close()
        elif rule in LEAVES:
            if rule == "counterexample":
                replayed.append(counterexample.inputs(part, node))
            results.append(LEAVES[rule](job, part, node))
        else:
            raise Rejected(f"unknown rule {rule!r}")
    (bounds,) = results
    if not 0 <= bounds.low <= bounds.high <= domain.size:
        raise Rejected("the proved bounds contradict each other")
    return bounds, np.concatenate(replayed) if replayed else np.zeros((0, domain.length), np.int64), used


def _conclude(entry: Reader, claim: Claim, proved: Bounds, has_counterexample: bool) -> tuple[str, Bounds]:
    """The certificate's conclusion, if the proved bounds imply it."""
    verdict = entry["verdict"].text()
    stated = Bounds(entry["right_at_least"].natural(), entry["right_at_most"].natural())
    entry.close()
    if verdict not in VERDICTS:
        raise Rejected(f"unknown verdict {verdict!r}")
    if stated.low > proved.low or stated.high < proved.high:
        raise Rejected(f"right inputs stated: {stated.low} to {stated.high}; proved: {proved.low} to {proved.high}")
    if verdict != "BOUNDED" and claim.at_least is None:
        raise Rejected(f"a claim without a threshold can't be {verdict}")
    if verdict == "PROVED" and not stated.low >= claim.at_least * claim.domain.size:
        raise Rejected(f"{stated.low} right inputs don't reach the claimed accuracy {claim.at_least}")
    if verdict == "REFUTED" and not (stated.high < claim.at_least * claim.domain.size and has_counterexample):
        raise Rejected("the claim is not refuted: its bound can be reached, or no wrong input is given")
    return verdict, stated

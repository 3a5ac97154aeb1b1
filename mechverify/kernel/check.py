"""Decide whether a certificate establishes its claim.

The kernel builds the graph from the weights itself, derives every cell of the proof itself, and compares
what it proved with what the certificate concludes. Anything unknown or unproved rejects.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from mechverify.kernel import container
from mechverify.kernel.claim import Bounds, Claim, Job
from mechverify.kernel.errors import NotACertificate, Rejected
from mechverify.kernel.exact import Exact
from mechverify.kernel.fields import Reader
from mechverify.kernel.float64 import Float64, check_environment
from mechverify.kernel.rules import evaluation, fold
from mechverify.kernel.semantics import SEMANTICS

FORMAT, VERSION = "mechverify-certificate", 2
READS = (2,)  # every later kernel reads these as well; version 1 was never released
LIMIT = 5e9  # units of work: five to nine seconds
AXIOMS = {
    "ieee754": "elementwise float64 + - * / and sqrt of numpy round to nearest with gradual underflow",
    "libm:float32": "the float32 program's exp(d), d <= 0, is within 2^-21 e^d + 2^-126 of e^d",
}
LEAVES = {"enumerate": evaluation.enumerate, "counterexample": evaluation.counterexample, "fold": fold.check}


class Theorem(NamedTuple):
    """What an accepted certificate establishes: of `claim.domain.size` inputs, at least `right.low` and at
    most `right.high` are right (the bounds that the certificate states; those proved are at least as good).
    `wrong` are inputs [number, length] that were replayed; `cells` those of rule fold, as (query token, class,
    size, bounds of the wrong inputs); `rules` how often each was used; `work` is in units that `limit` bounds."""

    claim: Claim
    verdict: str
    right: Bounds
    axioms: tuple[str, ...]
    wrong: np.ndarray
    rules: dict[str, int]
    cells: list[tuple]
    kernel_ops: int
    work: int
    exact: bool


def check(data: bytes, *, exact: bool = False, forbid: Collection[str] = (), limit: float = LIMIT) -> Theorem:
    """Check the bytes of a certificate file, in exact arithmetic if asked to (slow, and without the axiom
    `ieee754`), with no axiom in `forbid`, in at most `limit` units of work (counted in exact arithmetic as well).

    Raises NotACertificate if it can't be read as one, Rejected if it doesn't establish what it says, and nothing else.
    """
    contents = container.unpack(data)
    document = container.read_json(contents["certificate.json"])
    if type(document) is not dict or document.get("format") != FORMAT:
        raise NotACertificate(f"certificate.json doesn't say that its format is {FORMAT!r}")
    version = document.get("version")
    if type(version) is not int or version not in READS:
        what = f"format version {version!r:.60}; this kernel reads version {VERSION}"
        raise NotACertificate(f"{what}: prove again, or check with a release of mechverify that reads it")
    try:
        with np.errstate(all="ignore"):  # what isn't finite is rejected, or bounds nothing: docs/soundness.md
            check_environment()
            arithmetic = (Exact if exact else Float64)(limit)
            return _decide(Reader(document, "certificate"), contents["weights.safetensors"], arithmetic, forbid)
    except Exception as error:  # fail closed: what the kernel can't finish, it doesn't accept
        if isinstance(error, Rejected | NotACertificate):
            raise
        raise Rejected(f"internal error, please report it: {type(error).__name__}: {error}") from error


def _decide(document: Reader, weights: bytes, arithmetic: Float64 | Exact, forbid: Collection[str]) -> Theorem:
    _ = document["format"], document["version"]
    claim = Claim(document["claim"], weights)
    needed = ["ieee754", *SEMANTICS[claim.semantics].axioms]
    if (listed := [a.text() for a in document["axioms"].items(16)]) != needed:
        raise Rejected(f"the proof needs the axioms {needed}, the certificate lists {listed}")
    axioms = tuple(a for a in needed if a != "ieee754" or type(arithmetic) is Float64)
    if refused := sorted(set(axioms) & set(forbid)):
        raise Rejected(f"the proof rests on {', '.join(refused)}, which you forbid")
    job = Job(claim, arithmetic)
    proved, rules = prove(job, document["proof"])
    verdict, right = _conclude(document["conclusion"], claim, proved, len(job.wrong) > 0)
    document.close()
    wrong = np.concatenate([np.zeros((0, claim.domain.length), np.int64), *job.wrong])
    ar = job.ar
    return Theorem(claim, verdict, right, axioms, wrong, rules, job.cells, ar.ops, ar.work, type(ar) is Exact)


def prove(job: Job, proof: Reader) -> tuple[Bounds, dict[str, int]]:
    """Bounds for the right inputs of the job's domain, and how often each rule was used.

    The tree is walked with a stack: its depth is the certificate's to choose. A `split` cuts a token set in two;
    the halves are made here, not listed, so they are disjoint and cover their parent whatever the file says,
    and their bounds add up. `both` proves one part twice and keeps the better of each bound.
    """
    results: list[Bounds] = []
    used: dict[str, int] = {}
    todo: list[tuple] = [(None, job.claim.domain, proof)]
    while todo:
        combine, part, node = todo.pop()
        if combine is not None:
            results.append(combine(results.pop(), results.pop()))
            continue
        job.ar.spend(0)
        rule = node["rule"].one_of([*LEAVES, "split", "both"])
        used[rule] = used.get(rule, 0) + 1
        if rule == "split":
            position = node["position"].an_integer(0, part.length - 1)
            job.ar.spend(20 * len(part.tokens[position]) + 100 * part.length)
            halves = part.split(position, set(node["first"].integers()))
            if not halves[0].size or not halves[1].size:
                raise Rejected("a split leaves one half empty")
            todo += [(_add, None, None), (None, halves[0], node["inside"]), (None, halves[1], node["outside"])]
            node.close()
        elif rule == "both":
            todo += [(_meet, None, None), (None, part, node["first"]), (None, part, node["second"])]
            node.close()
        else:
            results.append(LEAVES[rule](job, part, node))
    return _meet(results.pop(), Bounds(0, job.claim.domain.size)), used


def _add(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.low + b.low, a.high + b.high)


def _meet(a: Bounds, b: Bounds) -> Bounds:
    both = Bounds(max(a.low, b.low), min(a.high, b.high))
    if both.low > both.high:
        raise Rejected("two proofs of the same part contradict each other")
    return both


def _conclude(entry: Reader, claim: Claim, proved: Bounds, has_counterexample: bool) -> tuple[str, Bounds]:
    """The certificate's conclusion, if the proved bounds imply it."""
    verdict = entry["verdict"].one_of(["PROVED", "REFUTED", "BOUNDED"])
    stated = Bounds(entry["right_at_least"].natural(), entry["right_at_most"].natural())
    entry.close()
    if stated.low > proved.low or stated.high < proved.high:
        raise Rejected(f"right inputs stated: {stated.low} to {stated.high}; proved: {proved.low} to {proved.high}")
    if verdict != "BOUNDED" and claim.at_least is None:
        raise Rejected(f"a claim without a threshold can't be {verdict}")
    needed = 0 if verdict == "BOUNDED" else claim.at_least * claim.domain.size
    if verdict == "PROVED" and not stated.low >= needed:
        raise Rejected(f"{stated.low} right inputs don't reach the claimed accuracy {claim.at_least}")
    if verdict == "REFUTED" and not (stated.high < needed and has_counterexample):
        raise Rejected("the claim is not refuted: its bound can be reached, or no wrong input is given")
    return verdict, stated

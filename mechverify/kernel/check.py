"""Decide whether a certificate establishes its claim.

The kernel builds the graph from the weights itself, derives every cell of the proof itself, and compares
what it proved with what the certificate concludes. Anything unknown or unproved rejects.

Lemmas C6, C7 (docs/soundness/core.md).
"""

import json
from collections.abc import Collection
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel import container
from mechverify.kernel.claim import Bounds, Claim, Domain, Job, ProvedLemma, Range
from mechverify.kernel.errors import NotACertificate, OverLimit, Rejected
from mechverify.kernel.exact import Exact
from mechverify.kernel.fields import Reader
from mechverify.kernel.float64 import Float64, check_environment
from mechverify.kernel.meter import Meter, Watch, reserve
from mechverify.kernel.rules import compact, cut, evaluation, fold, linear
from mechverify.kernel.words import NAME, names_a_value, printable

FORMAT = "mechverify-certificate"
VERSION = 4  # of the format that is written
VERSIONS = {2: ("accuracy",), 3: ("bounds",), VERSION: ("accuracy", "bounds")}  # what is claimed in those that are read
NAMED_AT_WILL = {2, 3}  # versions whose files may name sites and tensors in any way
FACTS = 2**8  # of a part
LIMIT = 5e9  # units of work where a certificate doesn't announce its own: five to nine seconds
MOST_WORK = 10**18  # that a certificate may announce: decades
SECONDS = 1.7e-9  # that a unit of work takes, about
IN_EXACT = 50  # as much work, at most, in exact arithmetic
PER_BYTE, PER_WEIGHT = 200, 2  # units of work for reading a byte of the document, and of the weights
AXIOMS = {
    "ieee754": "elementwise float64 + - * / and sqrt of numpy round to nearest with gradual underflow",
    "capture": "the graph is the torch module's, on whose inputs it was replayed (see the claim)",
    "solver:z3": "z3, and what mechverify asked it, are right that no input of the part leaves the certificate's range",
    "libm:float32": "the float32 program's exp(d), d <= 0, is within 2^-21 e^d + 2^-126 of e^d",
}
LEAVES = {
    "accuracy": {
        "enumerate": evaluation.enumerate,
        "counterexample": evaluation.counterexample,
        "fold": fold.check,
        "compact": compact.check,
    },
    "bounds": {
        "point": evaluation.point,
        "solver": evaluation.solver,
        **dict.fromkeys(["interval", "linear", "farkas"], linear.check),
    },
}


class Theorem(NamedTuple):
    """What an accepted certificate establishes. Of an accuracy claim: of `claim.domain.size` inputs, at least
    `right.low` and at most `right.high` are right; of one about bounds: every entry is in `range` (these are the bounds
    that the certificate states; those proved are at least as good). `wrong` are inputs [number, length] and `points`
    [number, coordinates] that were replayed, `attained` what the value is there; `cells` those of rule fold, as
    (query token, class, size, bounds of the wrong inputs); `rules` how often each was used; `work` is in units that
    `limit` bounds; `lemmas` those of rule cut; `broken` tells of each of `points` whether it was shown to break a
    threshold."""

    claim: Claim
    verdict: str
    right: Bounds | None
    range: Range | None
    axioms: tuple[str, ...]
    wrong: np.ndarray
    points: np.ndarray
    attained: Range | None
    rules: dict[str, int]
    cells: list[tuple]
    kernel_ops: int
    work: int
    exact: bool
    lemmas: list[ProvedLemma]
    broken: np.ndarray


def check(
    data: bytes, *, exact: bool = False, forbid: Collection[str] = (), limit: float | None = None,
    watch: Watch | None = None,
) -> Theorem:  # fmt: skip
    """Check the bytes of a certificate file, in exact arithmetic if asked to (slow, and without the axiom
    `ieee754`), with no axiom in `forbid`, in as many units of work as it announces, and at most `limit` (without one:
    LIMIT, where nothing is announced). `watch` is told how many units are done and allowed, first before any work, and
    may raise Stopped.

    Raises NotACertificate if it can't be read as one, Rejected if it doesn't establish what it says, OverLimit (a
    Rejected) if `limit` doesn't allow to find out, and nothing else.
    """
    contents = container.unpack(data)
    try:
        document = container.read_json(contents["certificate.json"])
    except NotACertificate as error:
        raise NotACertificate(printable(str(error))) from None
    if type(document) is not dict or document.get("format") != FORMAT:
        raise NotACertificate(f"certificate.json doesn't say that its format is {FORMAT!r}")
    version = document.get("version")
    if type(version) is not int or version not in VERSIONS:
        what = f"format version {version!r:.60}; this kernel reads versions {', '.join(map(str, VERSIONS))}"
        raise NotACertificate(f"{what}: prove again, or check with a release of mechverify that reads it")
    announced = None
    try:
        with np.errstate(all="ignore"):  # what isn't finite is rejected, or bounds nothing: docs/soundness.md
            check_environment()
            reader, weights = Reader(document, "certificate"), contents["weights.safetensors"]
            announced = _announced(reader)
            arithmetic = (Exact if exact else Float64)(_allowed(announced, exact, limit), watch)
            arithmetic.look()
            arithmetic.step(PER_BYTE * _size(contents["certificate.json"], document) + PER_WEIGHT * len(weights), 1, 1)
            return _decide(reader, weights, arithmetic, forbid)
    except OverLimit as error:
        if announced is None or (limit is not None and limit < announced):
            raise
        raise Rejected(f"it takes more than the {announced:.3g} units of work that it announces") from error
    except Exception as error:  # fail closed: what the kernel can't finish, it doesn't accept
        if isinstance(error, Rejected | NotACertificate):  # whatever names the file has, they don't forge a line
            raise type(error)(printable(str(error))) from None
        raise Rejected(printable(f"internal error, please report it: {type(error).__name__}: {error}")) from error


def _size(text: bytes, document: dict) -> int:
    """Bytes of the document, but for spaces, so that it may be written in another way, and for its cost, so that saying
    it costs nothing."""
    return len(text) - sum(map(text.count, (b" ", b"\n", b"\r", b"\t"))) - len(json.dumps(document.get("cost")))


def _announced(document: Reader) -> int | None:
    """The units of work that the certificate says a check takes; None if it doesn't say."""
    if document["version"].value != VERSION or document["cost"].value is None:
        return None
    cost = document["cost"].natural()
    if cost > MOST_WORK:
        raise Rejected(f"it announces more than {MOST_WORK:.0e} units of work")
    return cost


def _allowed(announced: int | None, exact: bool, limit: float | None) -> float:
    if announced is None:
        return LIMIT if limit is None else limit
    if limit is not None and limit < announced:
        said = f"it announces {announced:.3g} units of work, more than the limit of {limit:.3g}"
        raise OverLimit(f"{said}; --limit allows more")
    return announced * (IN_EXACT if exact else 1)


def _decide(document: Reader, weights: bytes, arithmetic: Float64 | Exact, forbid: Collection[str]) -> Theorem:
    _, version = document["format"], document["version"].an_integer()
    claim = Claim(document["claim"], weights, arithmetic)
    if claim.kind not in VERSIONS[version]:
        raise Rejected(f"a claim of kind {claim.kind} isn't written in version {version} of the format")
    if version not in NAMED_AT_WILL and (unfit := [n for n in claim.names if not names_a_value(n)]):
        raise Rejected(f"a name is not printable, or longer than {NAME} characters: {unfit[0]!r:.100}")
    if claim.kind == "bounds" and type(arithmetic) is Exact:
        raise Rejected("a claim about bounds is checked in float64 only")
    listed = [a.text() for a in document["axioms"].items(16)]
    axioms = tuple(a for a in listed if a != "ieee754" or type(arithmetic) is Float64)
    if refused := sorted(set(axioms) & set(forbid)):
        raise Rejected(f"the proof rests on {', '.join(refused)}, which you forbid")
    job = Job(claim, arithmetic)
    proved, rules = prove(job, document["proof"])
    if listed != (needed := [*claim.axioms, *sorted(job.axioms)]):
        raise Rejected(f"the proof needs the axioms {needed}, the certificate lists {listed}")
    verdict, stated = _conclude(document["conclusion"], job, proved)
    document.close()
    claim.graph.meter = Meter()  # what a report asks of it is no work of the check
    right, range_ = (stated, None) if claim.kind == "accuracy" else (None, stated)
    wrong = np.concatenate([np.zeros((0, claim.domain.length), np.int64), *job.wrong])
    points = np.concatenate([np.zeros((0, len(claim.domain.low))), *job.points])
    attained = Range(*map(np.concatenate, zip(*job.attained, strict=True))) if job.attained else None
    ar = job.ar
    return Theorem(claim, verdict, right, range_, axioms, wrong, points, attained, rules, job.cells, ar.ops, ar.work,
                   type(ar) is Exact, job.lemmas, np.concatenate([np.zeros(0, bool), *job.broken]))  # fmt: skip


def prove(job: Job, proof: Reader) -> tuple[Bounds | Range, dict[str, int]]:
    """Bounds for the right inputs of the job's domain, or for the value there, and how often each rule was used.

    The tree is walked with a stack: its depth is the certificate's to choose. A `split` cuts a token set, or the box
    at a coordinate, or the inputs by a model's value, in two; the halves are made here, not listed, so they cover their
    parent whatever the file says (token sets disjointly), and their bounds are combined. `both` proves one part twice
    and keeps the better of each bound; `cut` proves lemmas and what follows from them. Leaves of rules that relax are
    checked side by side.
    """
    leaves, everything, held = LEAVES[job.claim.kind], _everything(job.claim), 0
    used: dict[str, int] = {}
    steps: list[tuple] = []  # what to do with the leaves' results, last step first
    linear_leaves: list[tuple[int, Domain, Reader]] = []
    todo: list[tuple] = [(None, job.claim.domain, proof)]
    while todo:
        combine, part, node = todo.pop()
        if combine is not None:
            steps.append((combine, None))
            continue
        job.ar.spend(0)
        rule = node["rule"].one_of([*leaves, "split", "both", *(["cut"] if job.claim.kind == "bounds" else [])])
        used[rule] = used.get(rule, 0) + 1
        held += everything.low.size if job.claim.kind == "bounds" else 1
        reserve(held // 4)  # all ranges together
        if rule == "split":
            halves = _halves(job, part, node)
            combine = _add if job.claim.kind == "accuracy" else _unite
            todo += [(combine, None, None), (None, halves[0], node["inside"]), (None, halves[1], node["outside"])]
            node.close()
        elif rule == "both":
            todo += [(_meet, None, None), (None, part, node["first"]), (None, part, node["second"])]
            node.close()
        elif rule == "cut":
            found, inside = cut.check(job, part, node, prove)
            steps.append((None, found))
            for name, times in inside.items():
                used[name] = used.get(name, 0) + times
        elif leaves[rule] is linear.check:
            linear_leaves.append((len(steps), part, node))
            steps.append((None, None))
        else:
            steps.append((None, leaves[rule](job, part, node)))
    if linear_leaves:
        places, parts, nodes = zip(*linear_leaves, strict=True)
        for place, result in zip(places, linear.check(job, list(parts), list(nodes)), strict=True):
            steps[place] = None, result
    results: list = []
    for combine, result in steps:
        results.append(result if combine is None else combine(results.pop(), results.pop()))
    return _meet(results.pop(), everything), used


def _halves(job: Job, part: Domain, node: Reader) -> tuple[Domain, Domain]:
    if job.claim.kind == "accuracy" or "position" in node.value:  # halves of a box hold the same token sequences
        position = node["position"].an_integer(0, part.length - 1)
        job.ar.spend(20 * len(part.tokens[position]) + 100 * part.length)
        halves = part.split(position, set(node["first"].integers()))
        if not halves[0].size or not halves[1].size:
            raise Rejected("a split leaves one half empty")
        return halves
    if "node" in node.value:
        n = node["node"].an_integer()
        if n not in job.roots.values or len(part.facts) >= FACTS:
            raise Rejected(f"node {n} is none of the model's values, or more than {FACTS} facts are known in this part")
        job.ar.spend(len(part.facts))
        entry = node["entry"].an_integer(0, prod(job.claim.graph.nodes[n].shape) - 1)
        return part.sides(n, entry, node["at"].float64())
    coordinate, at = node["coordinate"].an_integer(0, len(part.low) - 1), node["at"].float64()
    job.ar.spend(10 * len(part.low))
    if not part.low[coordinate] <= at <= part.high[coordinate]:
        raise Rejected(f"coordinate {coordinate} is cut outside its interval")
    return part.cut(coordinate, at)


def _everything(claim: Claim) -> Bounds | Range:
    if claim.kind == "accuracy":
        return Bounds(0, claim.domain.size)
    return Range(np.full(claim.outputs, -np.inf), np.full(claim.outputs, np.inf))


def _add(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.low + b.low, a.high + b.high)


def _unite(a: Range, b: Range) -> Range:
    return Range(np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def _meet(a: Bounds | Range, b: Bounds | Range) -> Bounds | Range:
    if isinstance(a, Range):
        if (empty := next((r for r in (a, b) if r.low[0] > r.high[0]), None)) is not None:
            return empty
        both = Range(np.maximum(a.low, b.low), np.minimum(a.high, b.high))
        contradictory = not (both.low <= both.high).all()
    else:
        both = Bounds(max(a.low, b.low), min(a.high, b.high))
        contradictory = both.low > both.high
    if contradictory:
        raise Rejected("two proofs of the same part contradict each other")
    return both


def _conclude(entry: Reader, job: Job, proved: Bounds | Range) -> tuple[str, Bounds | Range]:
    """The certificate's conclusion, if the proved bounds imply it."""
    verdict = entry["verdict"].one_of(["PROVED", "REFUTED", "BOUNDED"])
    conclude = _conclude_accuracy if job.claim.kind == "accuracy" else _conclude_bounds
    return verdict, conclude(entry, verdict, job, proved)


def _conclude_accuracy(entry: Reader, verdict: str, job: Job, proved: Bounds) -> Bounds:
    claim = job.claim
    stated = Bounds(entry["right_at_least"].natural(), entry["right_at_most"].natural())
    entry.close()
    if stated.low > proved.low or stated.high < proved.high:
        raise Rejected(f"right inputs stated: {stated.low} to {stated.high}; proved: {proved.low} to {proved.high}")
    if verdict != "BOUNDED" and claim.at_least is None:
        raise Rejected(f"a claim without a threshold can't be {verdict}")
    needed = 0 if verdict == "BOUNDED" else claim.at_least * claim.domain.size
    if verdict == "PROVED" and stated.low < needed:
        raise Rejected("the proved number of right inputs doesn't reach the claim's threshold")
    if verdict == "REFUTED" and not (stated.high < needed and job.wrong):
        raise Rejected("the claim is not refuted: too many inputs may be right, or none was shown to be wrong")
    return stated


def _conclude_bounds(entry: Reader, verdict: str, job: Job, proved: Range) -> Range:
    """Ends that aren't stated are null; thresholds are compared as rational numbers."""
    if proved.low[0] > proved.high[0]:
        raise Rejected("no input satisfies the claim's conditions")
    claim, ends = job.claim, []
    for name, nothing in (("low", -np.inf), ("high", np.inf)):
        numbers = [nothing if v.value is None else v.float64() for v in entry[name].items(claim.outputs, claim.outputs)]
        ends.append(np.array(numbers))
    entry.close()
    stated = Range(*ends)
    if not ((stated.low <= proved.low).all() and (stated.high >= proved.high).all()):  # nor may a NaN pass
        raise Rejected("the bounds stated are tighter than those proved")
    if verdict != "BOUNDED" and claim.least is None and claim.most is None:
        raise Rejected(f"a claim without a threshold can't be {verdict}")
    least, most = claim.least or [], claim.most or []
    reached = _all_at_least(stated.low, least) and _all_at_least(-stated.high, [-t for t in most])
    if verdict == "PROVED" and not reached:
        raise Rejected("the proved bounds don't reach the claim's thresholds")
    if verdict == "REFUTED" and not any(b.any() for b in job.broken):
        raise Rejected("the claim is not refuted: no input was shown to break a threshold")
    return stated


def _all_at_least(values: np.ndarray, thresholds: list[Fraction]) -> bool:
    """Exactly; no thresholds are reached by all."""
    return all(value >= t for value, t in zip(values.tolist(), thresholds, strict=False))

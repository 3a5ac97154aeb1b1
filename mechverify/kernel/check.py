"""Decide whether a certificate establishes its claim.

The kernel builds the graph from the weights itself, derives every cell of the proof itself, and compares
what it proved with what the certificate concludes. Anything unknown or unproved rejects.

Lemma C7 (docs/soundness/core.md).
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from mechverify.kernel.core import container
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Job, Theorem
from mechverify.kernel.core.errors import NotACertificate, OverLimit, Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64, check_environment
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import Meter, Watch
from mechverify.kernel.core.texts import NAME, names_a_value, printable
from mechverify.kernel.proof import prove

FORMAT = "mechverify-certificate"
VERSION = 5  # of the format that is written
CAPTURED, GUARDED = "accuracy of a captured graph", "accuracy on a guarded domain"
VERSIONS = {  # what is claimed in those that are read
    2: ("accuracy",), 3: ("bounds",), 4: ("accuracy", "bounds"),
    VERSION: ("accuracy", "bounds", CAPTURED, GUARDED, "share"),
}  # fmt: skip
COSTED = 4  # the first version whose files say what their check costs
NAMED = 5  # the first version whose proofs name the document's nodes
NAMED_AT_WILL = {2, 3}  # versions whose files may name sites and tensors in any way
LIMIT = 5e9  # units of work where a certificate doesn't announce its own: five to nine seconds
MOST_WORK = 10**18  # that a certificate may announce: decades
SECONDS = 1.7e-9  # that a unit of work takes, about
ALLOWANCE = 1.25  # what a later kernel may count more than the one that wrote the file
IN_EXACT = 50  # as much work, at most, in exact arithmetic
PER_BYTE, PER_WEIGHT = (
    200,
    2,
)  # units of work for reading a byte of the document, and of the weights
AXIOMS = {
    "ieee754": "elementwise float64 + - * / and sqrt of numpy round to nearest with gradual underflow; "
    "matmul adds integers exactly while all sums are below 2^53",
    "capture": "the graph is what the claim's author meant: the file says of which module, and how they were compared",
    "solver:z3": "z3, and what mechverify asked it, are right that no input of the part leaves the certificate's range",
    "torch:float32": "the module's operations run one by one, in float32 alone (no TF32), and err at most as O4 says",
    "libm:float32": "the float32 program's exp(d), d <= 0, is within 2^-21 e^d + 2^-126 of e^d",
}


def check(
    data: bytes,
    *,
    exact: bool = False,
    forbid: Collection[str] = (),
    limit: float | None = None,
    watch: Watch | None = None,
) -> Theorem:
    """Check the bytes of a certificate file, in exact arithmetic if asked to (slow, and without the axiom
    `ieee754`), with no axiom in `forbid`, in as many units of work as it announces (and a quarter: ALLOWANCE; in exact
    arithmetic IN_EXACT times as many), and at most `limit` (without one: LIMIT, where nothing is announced). `watch` is
    told how many units are done and allowed, first before any work, and may raise Stopped.

    Raises NotACertificate if it can't be read as one, Rejected if it doesn't establish what it says, OverLimit (a
    Rejected) if `limit` doesn't allow to find out, and nothing else.
    """
    contents = container.unpack(data)
    announced = None
    try:
        document = container.read_json(contents["certificate.json"])
        if type(document) is not dict or document.get("format") != FORMAT:
            raise NotACertificate(
                f"certificate.json doesn't say that its format is {FORMAT!r}"
            )
        version = document.get("version")
        if type(version) is not int or version not in VERSIONS:
            raise NotACertificate(
                f"format version {version!r:.60}; this kernel reads versions {', '.join(map(str, VERSIONS))}: "
                "prove again, or check with a release of mechverify that reads it"
            )
        with np.errstate(
            all="ignore"
        ):  # what isn't finite is rejected, or bounds nothing: docs/soundness.md
            check_environment()
            reader, weights = (
                Reader(document, "certificate"),
                contents["weights.safetensors"],
            )
            announced = _announced(reader)
            kind = late("core.exact").Exact if exact else Float64
            arithmetic = kind(_allowed(announced, exact, limit), watch)
            arithmetic.look()
            arithmetic.step(
                PER_BYTE * _size(contents["certificate.json"], announced)
                + PER_WEIGHT * len(weights),
                1,
                1,
            )
            return _decide(reader, weights, arithmetic, forbid)
    except OverLimit as error:
        if announced is None or (limit is not None and limit < _most(announced, exact)):
            raise
        raise Rejected(
            f"it takes more than the {announced:.3g} units of work that it announces"
        ) from error
    except (
        Exception
    ) as error:  # fail closed: what the kernel can't finish, it doesn't accept
        if isinstance(
            error, Rejected | NotACertificate
        ):  # whatever names the file has, they don't forge a line
            raise type(error)(printable(str(error))) from None
        raise Rejected(
            printable(
                f"internal error, please report it: {type(error).__name__}: {error}"
            )
        ) from error


def _size(text: bytes, announced: int | None) -> int:
    """Bytes of the document, but for spaces, so that it may be written in another way, and with null for its cost, so
    that saying it costs nothing."""
    said = 0 if announced is None else len(f'"{announced}"') - len("null")
    return len(text) - sum(map(text.count, (b" ", b"\n", b"\r", b"\t"))) - said


def _announced(document: Reader) -> int | None:
    """The units of work that the certificate says a check takes; None if it doesn't say."""
    if document["version"].an_integer() < COSTED or document["cost"].value is None:
        return None
    cost = document["cost"].natural()
    if cost > MOST_WORK:
        raise Rejected(f"it announces more than {MOST_WORK:.0e} units of work")
    return cost


def _most(announced: int, exact: bool) -> float:
    """Units of work that a file may take."""
    return announced * ALLOWANCE * (IN_EXACT if exact else 1)


def _allowed(announced: int | None, exact: bool, limit: float | None) -> float:
    if announced is None:
        return LIMIT if limit is None else limit
    if limit is not None and limit < announced:
        raise OverLimit(
            f"it announces {announced:.3g} units of work, more than the limit of {limit:.3g}; --limit allows more"
        )
    return (
        _most(announced, exact)
        if limit is None
        else min(limit, _most(announced, exact))
    )


def _decide(
    document: Reader, weights: bytes, arithmetic: Arithmetic, forbid: Collection[str]
) -> Theorem:
    _, version = document["format"], document["version"].an_integer()
    claim = read_claim(document["claim"], weights, arithmetic)
    kind = CAPTURED if claim.kind == "accuracy" and claim.captured else claim.kind
    kind = GUARDED if claim.kind == "accuracy" and claim.guarded else kind
    if kind not in VERSIONS[version]:
        raise Rejected(
            f"a claim of kind {kind} isn't written in version {version} of the format"
        )
    if version not in NAMED_AT_WILL and (
        unfit := [n for n in claim.names if not names_a_value(n)]
    ):
        raise Rejected(
            f"a name is not printable, or longer than {NAME} characters: {unfit[0]!r:.100}"
        )
    if arithmetic.is_exact and not claim.in_exact:
        raise Rejected(f"a claim about {claim.kind} is checked in float64 only")
    listed = [a.text() for a in document["axioms"].items(16)]
    axioms = tuple(a for a in listed if a != "ieee754" or not arithmetic.is_exact)
    if refused := sorted(set(axioms) & set(forbid)):
        raise Rejected(f"the proof rests on {', '.join(refused)}, which you forbid")
    job = Job(claim, arithmetic, old=version < NAMED)
    proved, rules = prove(job, document["proof"])
    if listed != (needed := [*claim.axioms, *sorted(job.axioms)]):
        raise Rejected(
            f"the proof needs the axioms {needed}, the certificate lists {listed}"
        )
    conclusion = document["conclusion"]
    verdict = conclusion["verdict"].one_of(["PROVED", "REFUTED", "BOUNDED"])
    stated = claim.conclude(conclusion, verdict, job, proved)
    document.close()
    read = replace(
        claim, graph=claim.graph.copy(Meter())
    )  # what a report asks of it is no work of the check
    return claim.theorem(
        {
            "claim": read,
            "verdict": verdict,
            "axioms": axioms,
            "rules": rules,
            "kernel_ops": arithmetic.ops,
            "work": arithmetic.work,
            "exact": arithmetic.is_exact,
            "tokens": np.concatenate(
                [np.zeros((0, claim.domain.length), np.int64), *job.found.tokens]
            ),
        },
        stated,
        job.found,
    )

"""A theorem in lines for people: the kernel's statement, and how it was proved."""

from contextlib import suppress

import numpy as np

from mechverify.kernel.core.claim import Job, Theorem
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.judging import decide
from mechverify.kernel.core.words import scientific
from mechverify.kernel.statement.sentence import state


def lines(theorem: Theorem) -> list[tuple[str, str]]:
    """(label, text) pairs: the whole theorem, its assumptions and its cost."""
    statement = state(theorem)
    return [*statement.rows(), *proof(theorem), *statement.examples]


def proof(theorem: Theorem) -> list[tuple[str, str]]:
    """How it was proved, and what that cost."""
    cost = f"{scientific(theorem.kernel_ops)} operations"
    if isinstance(theorem, CountingTheorem):
        brute = brute_force_ops(theorem) or 0
        times = brute // max(theorem.kernel_ops, 1)
        ratio = f", {scientific(times)} times as many" if times > 1 else ""
        cost += "" if not brute else f"; brute force takes {scientific(brute)}{ratio}"
    return [
        (
            "proof",
            ", ".join(
                f"{times:,} {rule}" for rule, times in sorted(theorem.rules.items())
            ),
        ),
        (
            "arithmetic",
            "exact rationals" if theorem.exact else "float64 with outward rounding",
        ),
        ("cost", cost),
    ]


def brute_force_ops(theorem: CountingTheorem) -> int | None:
    """The operations of one evaluation, counted as the kernel counts its own, times the number of inputs; None where
    these can't be counted."""
    if not theorem.claim.by_example:
        return None
    job = Job(theorem.claim, Float64())
    one = (
        theorem.wrong[:1]
        if len(theorem.wrong)
        else [[tokens[0] for tokens in theorem.claim.domain.tokens]]
    )
    with (
        np.errstate(all="ignore"),
        suppress(Rejected),
    ):  # an input that overflows counts so far
        decide(job, np.array(one))
    return job.ar.ops * theorem.claim.total

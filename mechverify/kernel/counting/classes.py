"""The classes of a mechanism: a domain, cut by its value, and those of further mechanisms.

Lemmas F2 (docs/soundness/fold.md), S2 (docs/soundness/shares.md).
"""

from collections.abc import Callable, Sequence

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.counting.automaton import derive, towards
from mechverify.kernel.counting.recursion import completions


class Classes:
    """`keys` lists the classes' values, of the claim's mechanism and of the expressions that are given, for inputs that
    satisfy the claim's guard; `places` where they stand in `automaton`. Of the other inputs there is only the number,
    `unguarded`."""

    def __init__(
        self,
        job: Job,
        domain: Domain,
        keys: Sequence[Reader],
        instead: Callable = lambda _, roots: roots,
    ):
        """`instead`: makes other nodes of the mechanism's, the keys' and the guard's, which are equal on the domain; of
        the guard, what is 1 wherever it is."""
        self.job, self.ar, self.domain = job, job.ar, domain
        claim, graph = job.claim, job.further()
        roots = [claim.target, *(add_expression(graph, key) for key in keys)]
        roots += [claim.guard] if claim.guarded else []
        self.automaton = derive(
            self.ar, graph, instead(graph, roots), [np.array(t) for t in domain.tokens]
        )
        values = self.automaton.classes
        inside = (values[:, -1] == 1) | (not claim.guarded)
        self.places = {
            tuple(values[i, : 1 + len(keys)].tolist()): i
            for i in np.flatnonzero(inside).tolist()
        }
        self.unguarded = 0
        if not inside.all():
            layers = towards(self.ar, self.automaton, np.flatnonzero(~inside))
            self.unguarded = completions(self.ar, layers)[0][0]

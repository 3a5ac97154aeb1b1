"""The tree of a proof: parts of the domain, and the rules that bound each.

Lemma C6 (docs/soundness/core.md).
"""

from collections import Counter
from typing import Any

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.rules import Rule, rules


def prove(job: Job, proof: Reader) -> tuple[Any, dict[str, int]]:
    """What the proof bounds on the job's domain (counts, or a range, as the claim's kind says), and how often each rule
    was used."""
    return united(job, [(job.claim.domain, proof)])


def united(job: Job, proofs: list[tuple[Domain, Reader]]) -> tuple[Any, dict[str, int]]:
    """The same, of parts of it together, each with its proof.

    The tree is walked with a stack: its depth is the certificate's to choose. A `split` cuts a part in two: the halves
    are made here, not listed, so they cover their parent whatever the file says, and their bounds are united. `both`
    proves one part twice and keeps the better of each bound. Leaves of rules that work on many parts side by side are
    checked at the end.
    """
    claim, known = job.claim, rules(job.claim.kind, job.old)
    used: Counter[str] = Counter()
    # results, and how to combine the last two of them, in the order of a postfix walk
    steps: list[Any] = []
    waiting: dict[
        Rule, list[tuple[int, Domain, Reader]]
    ] = {}  # leaves by their place among the steps
    todo: list[Any] = [*[claim.unite] * (len(proofs) - 1), *proofs]
    held = 0
    while todo:
        task = todo.pop()
        if callable(task):
            steps.append(task)
            continue
        part, node = task
        job.ar.spend(0)
        name = node["rule"].one_of([*known, "split", "both"])
        used[name] += 1
        held += claim.size
        reserve(held // 4)  # all bounds together
        if name == "split":
            first, second = claim.halves(job, part, node)
            todo += [
                claim.unite,
                (first, node["inside"]),
                (second, node["outside"]),
            ]
            node.close()
        elif name == "both":
            todo += [claim.meet, (part, node["first"]), (part, node["second"])]
            node.close()
        elif known[name].together:
            waiting.setdefault(known[name], []).append((len(steps), part, node))
            steps.append(None)
        elif known[name].nested:
            found, inside = known[name].check(job, part, node, united)
            used.update(inside)
            steps.append(found)
        else:
            steps.append(known[name].check(job, part, node))
    for rule, leaves in waiting.items():
        places, parts, nodes = zip(*leaves, strict=True)
        for place, result in zip(
            places, rule.check(job, list(parts), list(nodes)), strict=True
        ):
            steps[place] = result
    results: list = []
    for step in steps:
        results.append(step(results.pop(), results.pop()) if callable(step) else step)
    return claim.meet(results.pop(), claim.everything), dict(used)

"""Rule `cut`: bounds of an output from lemmas about sites, and from what the model does after those sites alone.

A lemma bounds site - mechanism, entry by entry. In the graph of the output the site is then replaced by mechanism +
error, the error a further real input in the lemma's box: nothing else is known there of how the site came about.

Lemma O2 (docs/soundness/options.md).
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.ranges import ProvedLemma, Range
from mechverify.kernel.core.semantics import Real


class Lemma(NamedTuple):
    """Nodes of one shape, and bounds [entries] of their difference."""

    site: int
    mechanism: int
    range: Range


def check(
    job: Job, part: Domain, witness: Reader, prove: Callable
) -> tuple[Range, dict[str, int]]:
    """Precondition: nothing but its box and tokens is known of the part. Postcondition: every entry of the output is in
    the range, everywhere in the part: the input's own site - mechanism is one of the errors. The range is empty if a
    lemma's is: then no input of the part satisfies the claim's conditions. Complexity: that of the proofs."""
    if type(job.semantics) is not Real:
        raise Unsupported("lemmas are for semantics real: leave out using=")
    sites, lemmas, vacuous = job.claim.sites, [], False
    used: Counter[str] = Counter()
    for row in witness["lemmas"].items(16, 1):
        site, mechanism = (row[name].one_of(sites) for name in ("site", "mechanism"))
        about = lemma(job, part, sites[site], sites[mechanism])
        found, inside = prove(about, [(part, row["proof"])])
        size = about.claim.outputs
        stated = Range(
            *(
                np.array([v.float64() for v in row[end].items(size, size)])
                for end in ("low", "high")
            )
        )
        row.close()
        vacuous |= found.empty
        if not (
            found.empty
            or ((stated.low <= found.low).all() and (stated.high >= found.high).all())
        ):
            raise Rejected(
                f"{row.where}: the bounds stated are tighter than those proved"
            )
        lemmas.append(Lemma(sites[site], sites[mechanism], stated))
        job.found.lemmas.append(
            ProvedLemma(site, mechanism, None if found.empty else stated, part)
        )
        used.update(inside)
    about = conclusion(job, part, lemmas)
    found, inside = prove(about, [(about.claim.domain, witness["proof"])])
    witness.close()
    if vacuous:
        found = job.claim.nothing
    used.update(inside)
    return found, dict(used)


def lemma(job: Job, part: Domain, site: int, mechanism: int) -> Job:
    """About site - mechanism on that part."""
    graph = job.further()
    if part.facts:
        raise Rejected("a cut stands above splits at a model's values")
    if any(graph.nodes[n].kind != "real" for n in (site, mechanism)) or _shape(
        graph, site
    ) != _shape(graph, mechanism):
        raise Rejected("a lemma compares two real values of one shape")
    claim = job.claim.about(
        graph, graph.add("sub", site, mechanism), part, job.claim.shapes
    )
    return job.about(claim)


def conclusion(job: Job, part: Domain, lemmas: list[Lemma]) -> Job:
    """About the output, on that part and all errors within the lemmas."""
    graph = job.further()
    shapes, low, high = list(job.claim.shapes), [part.low], [part.high]
    errors: dict[int, tuple[int, int]] = {}
    for site, mechanism, (least, most) in lemmas:
        ranged = (np.isfinite(least) & np.isfinite(most) & (least <= most)).all()
        if site in errors or not ranged:
            raise Rejected("a site is cut twice, or at a range that isn't one")
        errors[site] = (
            mechanism,
            graph.add("input", attr=(len(shapes), _shape(graph, site))),
        )
        shapes, low, high = [*shapes, _shape(graph, site)], [*low, least], [*high, most]
    new = _substituted(graph, job.claim.output, errors)
    graph.listed, output = [new.get(n, n) for n in graph.listed], new[job.claim.output]
    if output == job.claim.output:
        raise Rejected("the output doesn't depend on any site of the lemmas")
    box = part._replace(low=np.concatenate(low), high=np.concatenate(high))
    return job.about(job.claim.about(graph, output, box, shapes))


def _shape(graph: Graph, n: int) -> tuple[int, ...]:
    return graph.nodes[n].shape


def _substituted(
    graph: Graph, root: int, errors: dict[int, tuple[int, int]]
) -> dict[int, int]:
    """`root`, and what it needs, with every site in `errors` (also those that mechanisms speak of) as its mechanism
    plus its error."""
    new: dict[int, int] = {}
    path, begun = [root], set()
    while path:
        n = path[-1]
        node = graph.nodes[n]
        missing = [
            a for a in ((errors[n][0],) if n in errors else node.args) if a not in new
        ]
        if n in new or not missing:
            path.pop()
            if n in errors:
                mechanism, error = errors[n]
                new[n] = graph.add("add", new[mechanism], error)
            elif n not in new:
                new[n] = graph.add(
                    node.op, *(new[a] for a in node.args), attr=node.attr
                )
            continue
        begun.add(n)
        if begun & set(missing):
            raise Rejected("a mechanism depends on the site that it describes")
        path += missing
    return new

"""Rule `ratios` of claims about ranges: what a sum of ratios lies between, wherever the tokens of a part go.

An attention pattern's entry is a ratio too: the mean of a vector that is one there and zero elsewhere. For each token
that the query may be, and each end of each entry, the lead of the entry over a trial value that the witness names is
bounded as that of an output over a rival. One layer with one head is exact, if the trial value is reached.

Lemma R8 (docs/soundness/ratios.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import MOST, Graph
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.ranges import Range, read_range
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.form import row_by_row, sum_of_ratios
from mechverify.kernel.ratios.linear import Expansion, Lead, Tables

ENDS = 2**6  # of entries, at which sums are bounded at a time


def check(job: Job, part: Domain, witness: Reader) -> Range:
    """`trials`: an end of each entry's range, or null, for which none is sought. `points`: for each token that the
    query may be, in order, a sequence of tokens of the part for each of these ends, the low ones first; or null.

    Precondition: the domain has tokens alone; the output is a sum of ratios, of rows that a pattern of attention may be
    among. Postcondition: on every sequence of the part, also on those that don't satisfy the claim's conditions, every
    entry is in the range, whatever the witness says. Complexity: for each token of the query that of `Expansion`, for
    each point.
    """
    if len(part.low) or part.facts:
        raise Rejected("rule ratios is for token sequences alone")
    tables = job.once(tables_of)
    trials = witness["trials"]
    trial = read_range(trials, job.claim.outputs)
    trials.close()
    tokens = [np.array(sorted(here)) for here in part.tokens]
    ends = _ends(trial)
    queries = tokens[tables.form.pin]
    points = [None] * len(queries)
    if witness["points"].value is not None:
        points = [*witness["points"].items(len(queries), len(queries))]
    witness.close()
    least = np.full(len(ends), np.inf)
    for query, named in zip(queries.tolist(), points, strict=True):
        layers = [
            _layer(np.array([query]) if i == tables.form.pin else here)
            for i, here in enumerate(tokens)
        ]
        rows = [query if i == tables.form.pin else t[0] for i, t in enumerate(tokens)]
        around = [rows] * len(ends)
        if named is not None:
            read = named.items(len(ends), len(ends))
            around = [p.integers(len(tokens)) for p in read]
        least = np.minimum(least, _least(tables, layers, query, trial, ends, around))
    return _range(tables, trial, ends, least)


def tables_of(job: Job) -> Tables:
    """Of the claim's output, by its form. Raises Unsupported."""
    claim, graph = job.claim, job.further()
    output = row_by_row(graph, attending(graph, row_by_row(graph, claim.output)))
    form = sum_of_ratios(graph, claim.weights, job.semantics, output)
    return Tables(job.ar, form)


def attending(graph: Graph, output: int) -> int:
    """A node of equal value, in which what reads a softmax and doesn't contract it reads a mean of unit vectors."""
    made: dict[int, int] = {}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        args = [made[a] for a in node.args]
        if node.op != "einsum":
            args = [_mean(graph, a) for a in args]
        made[n] = graph.add(node.op, *args, attr=node.attr)
    return _mean(graph, made[output])


def _mean(graph: Graph, n: int) -> int:
    """Of unit vectors, where `n` is a softmax: its own value."""
    node = graph.nodes[n]
    if node.op != "softmax":
        return n
    size, letters = node.shape[-1], "abcdefgh"[: len(node.shape) - 1]
    if size > MOST or len(node.shape) > 8:
        raise Rejected(f"a softmax of shape {node.shape} is too large")
    reserve(size, size)
    units = graph.add("constant", attr=((size, size), tuple(np.eye(size).ravel())))
    return graph.add("einsum", n, units, attr=f"{letters}y,yz->{letters}z")


def _layer(tokens: np.ndarray) -> Layer:
    """Any of these tokens, with nothing remembered."""
    return Layer(1, [(tokens, np.zeros(1, np.int64))])


def _ends(trial: Range) -> list[tuple[int, int]]:
    """The sign and the entry of each that is sought: 1 for a low one, -1 for a high one."""
    return [
        (sign, int(i))
        for sign, values in ((1, trial.low), (-1, trial.high))
        for i in np.flatnonzero(np.isfinite(values))
    ]


def _least(
    tables: Tables,
    layers: list[Layer],
    query: int,
    trial: Range,
    ends: list[tuple[int, int]],
    around: list[list[int]],
) -> np.ndarray:
    """For each end, at least so much every entry exceeds its trial value (of a high end: stays below it), or zero."""
    ar, box = tables.ar, tables.box(layers, query)
    if not box.usable:
        raise Rejected("the sum of a part's exponentials is not known to be positive")
    found = np.full(len(ends), -np.inf)
    of = {tuple(p): [e for e, q in enumerate(around) if q == p] for p in around}
    for point, same in of.items():
        for start in range(0, len(same), ENDS):
            some = np.array(same[start : start + ENDS])
            lead = _lead(tables, query, box.tokens, trial, [ends[e] for e in some])
            expansion = Expansion(box, lead, point)
            apart = ar.lower(expansion.total)
            together = expansion.linear(np.arange(len(some))).least
            found[some] = np.maximum(apart, np.minimum(together, 0.0))
    return np.minimum(found, 0.0)


def _lead(
    tables: Tables,
    query: int,
    tokens: np.ndarray,
    trial: Range,
    ends: list[tuple[int, int]],
) -> Lead:
    """Of entries over their low trial values, and of high ones over entries."""
    ar, whole = tables.ar, tables.outputs(query, tokens)
    signs, entries = (np.array(x) for x in zip(*ends, strict=True))
    sign = ar.exact(signs.astype(float))

    def of(x: Ball, axes: int) -> Ball:
        flat = x.map(lambda a: a.reshape(*a.shape[:axes], -1)[..., entries])
        return ar.mul(flat, sign)

    trials = np.where(signs > 0, trial.low[entries], -trial.high[entries])
    base, value = of(whole.base, 0), of(whole.value, 3)
    return Lead(ar.sub(base, ar.exact(trials)), value)


def _range(
    tables: Tables, trial: Range, ends: list[tuple[int, int]], least: np.ndarray
) -> Range:
    """Trial values, as far as they are reached, rounded outwards."""
    ar = tables.ar
    low, high = np.full(len(trial.low), -np.inf), np.full(len(trial.low), np.inf)
    for (sign, entry), beyond in zip(ends, least.tolist(), strict=True):
        if np.isfinite(beyond):
            value = trial.low[entry] if sign > 0 else -trial.high[entry]
            end = ar.lower(ar.add(ar.exact(value), ar.exact(beyond)))
            if sign > 0:
                low[entry] = end
            else:
                high[entry] = -end
    return Range(low, high)

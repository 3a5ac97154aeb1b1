"""Rule `compact`: cells are (query token, class of the mechanism); a cell is right where its tokens are kept ones.

The softmax denominator is cleared as in rule fold, and the tables stay in parts (parts.py), so that the term of token t
at position i is

    e^B[q, i] * h[q, t],    h[q, t] = e^A[q, t] * (the smallest lead over a rival, in q's part + t's part),

with a positive first factor: positions cost nothing. The witness names, for each cell that is worth it, which tokens
are kept: those with h above a threshold, or up to some token. A sum of lower bounds over the automaton that is positive
shows all sequences of kept tokens right, and these are counted. Everything else may be wrong.

Lemmas K5, K6 (docs/soundness/compact.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.compact.enclosed import Enclosed
from mechverify.kernel.compact.leads import RIVALS, Lead, Leads
from mechverify.kernel.core.arithmetic import Ball, aligned, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.automaton import Layer, derive, towards
from mechverify.kernel.counting.recursion import sizes_by_token

LOOSE = 8  # tokens of a sequence that may be kept by a wider threshold
TOKENS = ("each", "ascending", "descending")


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Precondition: semantics real, a ratio form with one head and no neurons, and a mechanism that is a short fold.

    Postcondition: at least so many inputs of `domain` are right; of the others nothing is said. Complexity: two matrix
    products of vocabulary^2 and one of vocabulary x outputs (less where the witness has enclosures instead); for each
    cell listed: the query's and each token's leads over the rivals (leads.py), two operations a token and threshold
    (two a threshold in order), and positions x states x groups for each number of loose tokens.
    """
    job.claim.need_whole("compact")
    scores, peeled = witness["scores"], None
    if scores.value is not None:
        from mechverify.kernel.compact.peeled import read

        peeled = read(scores)
    mean = witness["base"].one_of(["exact", "mean"]) == "mean"
    tables = Enclosed(job, domain, peeled, mean)
    passes = [_pass(entry) for entry in witness["passes"].items(8)]
    witness.close()
    claim, leads, seen, right = job.claim, Leads(tables), set(), 0
    automaton = derive(
        job.ar, claim.graph, [claim.target], [np.array(t) for t in domain.tokens]
    )
    places = {int(key[0]): i for i, key in enumerate(automaton.classes)}
    for rivals, tokens, cells in passes:
        for key, listed in cells.items():
            if key not in places or not 0 <= key < claim.outputs:
                raise Rejected(f"{key} is no value of the mechanism that is an output")
            if seen & (here := {(query, key) for query in listed}):
                raise Rejected(f"cell {min(seen & here)} is listed twice")
            seen |= here
            queries = np.array(sorted(listed))
            input_class = InputClass(
                tables, towards(job.ar, automaton, places[key]), key, queries
            )
            thresholds, lead = (
                np.array([listed[q] for q in queries.tolist()]),
                input_class.lead(leads, rivals),
            )
            if tokens == "each":
                kept = input_class.kept_above(input_class.each(lead), thresholds)
            else:
                from mechverify.kernel.compact.order import kept_in_order

                kept = kept_in_order(
                    input_class, lead, thresholds, tokens == "descending"
                )
            found = input_class.shown(kept)
            right += sum(found.tolist())
            sizes = sizes_by_token(job.ar, input_class.layers, tables.form.pin)
            job.found.cells += [(q, (key,), sizes.get(q, 0), Counts(0, sizes.get(q, 0) - n))
                          for q, n in zip(queries.tolist(), found.tolist(), strict=True)]  # fmt: skip
    return Counts(right, domain.size)


def _pass(entry: Reader) -> tuple[str, str, dict[int, dict[int, list]]]:
    """How rivals and tokens are read, and thresholds by class and query token."""
    rivals, tokens = entry["rivals"].one_of(RIVALS), entry["tokens"].one_of(TOKENS)
    loose = entry["loose"].an_integer(0, LOOSE)
    cells: dict[int, dict[int, list]] = {}
    for row in entry["cells"].items(2**20):
        query, key, thresholds = row.items(3, 3)
        limits = thresholds.items(loose + 1, loose + 1)
        numbers = [
            t.float64() if tokens == "each" else t.an_integer(0, 2**20) for t in limits
        ]
        input_class = cells.setdefault(key.an_integer(), {})
        if query.an_integer(0, 2**20) in input_class:
            raise Rejected(f"cell {[query.value, key.value]} is listed twice")
        input_class[query.value] = numbers
    entry.close()
    return rivals, tokens, cells


class Kept(NamedTuple):
    """Of each group of tokens that act alike, what is kept tightly (level 0) or, where just c tokens are loose, loosely
    (level c): lower bounds of h [groups, levels, queries] (any where nothing is kept), and the number of tokens [the
    same]. `own` [queries] is h of the query's own token."""

    least: Ball
    number: np.ndarray
    own: Ball


class InputClass:
    """Cells of one class. `groups` are the sets of tokens that act alike at some position before the query's, by name;
    `alive` all of their tokens and the queries. A token that is a group by itself is kept in any case."""

    def __init__(
        self, tables: Enclosed, layers: list[Layer], right: int, queries: np.ndarray
    ):
        self.tables, self.ar, self.layers, self.right, self.queries = (
            tables,
            tables.ar,
            layers,
            right,
            queries,
        )
        if queries.max() >= tables.vocab or tables.wide[queries].any():
            raise Rejected(
                "a query token is outside the vocabulary, or its scores are not known closely enough"
            )
        groups = {}
        for i, layer in enumerate(layers[: tables.form.attended]):
            if i != tables.form.pin:
                groups |= {tokens.tobytes(): tokens for tokens, _ in layer.groups}
        self.index = {name: g for g, name in enumerate(groups)}
        self.groups = list(groups.values())
        self.alive = np.unique(np.concatenate([queries, *self.groups]))

    def lead(self, leads: Leads, rivals: str) -> Lead:
        unit = np.flatnonzero(np.array(self.tables.values)[self.alive] == self.right)
        return leads.lead(
            rivals,
            self.right,
            self.queries,
            self.alive,
            int(unit[0]) if len(unit) else None,
        )

    def each(self, lead: Lead) -> Ball:
        """Lower bounds of h [queries, alive]."""
        factor = self.tables.factor.map(lambda a: a[self.queries][:, self.alive])
        return self.ar.bottom(self.ar.mul(factor, lead.table(self.ar)))

    def kept_above(self, h: Ball, thresholds: np.ndarray) -> Kept:
        """Tokens whose h is at least a threshold [queries, levels]; so is then their least."""
        h, limits = aligned(self.ar, h, self.ar.exact(thresholds))
        self.ar.spend(h.mid.size * thresholds.shape[1])
        above = [h.mid >= limits.mid[:, [c]] for c in range(thresholds.shape[1])]
        above[1:] = [a & ~above[0] for a in above[1:]]
        least, count = [], []
        for tokens in self.groups:
            at = np.searchsorted(self.alive, tokens)
            if len(at) == 1:
                least.append([h.mid[:, at[0]]] * len(above))
                count.append([np.full(len(h.mid), c == 0) for c in range(len(above))])
            else:
                self.ar.step(
                    len(h.mid) * len(at) * len(above), len(above), 4
                )  # positions may have groups of their own
                least.append(list(limits.mid.T))
                count.append([a[:, at].sum(1) for a in above])
        own = h.map(
            lambda a: a[np.arange(len(a)), np.searchsorted(self.alive, self.queries)]
        )
        return self.stacked(least, count, own, thresholds.shape)

    def stacked(
        self, least: list, count: list, own: Ball, shape: tuple[int, ...]
    ) -> Kept:
        shape = len(self.groups), *shape[::-1]
        bounds = points(np.array(least, self.ar.dtype).reshape(shape), own.exponent)
        return Kept(bounds, np.array(count, np.int64).reshape(shape), own)

    def own(self, lead: Lead, tokens: np.ndarray) -> Ball:
        """Lower bounds of h at one token for each query."""
        factor = self.tables.factor.at[self.queries, tokens]
        return self.ar.bottom(
            self.ar.mul(factor, lead.of(self.ar, np.searchsorted(self.alive, tokens)))
        )

    def shown(self, kept: Kept) -> np.ndarray:
        """How many inputs of each cell are shown right [queries], as integers of any size: for each number of loose
        tokens, all sequences with just so many, if the least sum over them is positive."""
        terms, number, shown = (
            self.terms(kept),
            kept.number.astype(object),
            np.zeros(len(self.queries), object),
        )
        for loose in range(kept.number.shape[1]):
            least, found = self.sums(*terms, number, loose, loose)
            shown += np.where(least > 0, found, 0)
        return shown

    def terms(self, kept: Kept) -> tuple[np.ndarray, np.ndarray]:
        """Lower bounds of the terms of groups [attended, groups, levels, queries], and of the query's own."""
        ar, form = self.ar, self.tables.form
        reserve(form.attended, kept.number.size)
        place = self.tables.place.map(
            lambda a: (
                np.broadcast_to(a, (self.tables.vocab, form.attended))[self.queries].T
            )
        )
        terms = ar.bottom(ar.mul(place.at[:, None, None], kept.least))
        terms, own = aligned(ar, terms, ar.bottom(ar.mul(place.at[form.pin], kept.own)))
        return terms.mid, own.mid

    def sums(
        self,
        terms: np.ndarray,
        own: np.ndarray,
        count: np.ndarray,
        level: int,
        loose: int,
    ) -> tuple[np.ndarray, ...]:
        """Over the accepted sequences with each query token and `loose` loose tokens (by thresholds of that level): the
        least sum, rounded down, and their number, [queries] each. Complexity: four operations for each position, state,
        group and number of loose tokens."""
        ar, form, n, bits = self.ar, self.tables.form, len(self.queries), 0
        nothing = np.full(n, ar.infinity, ar.dtype), np.zeros(n, count.dtype)
        reached = {(0, 0): (np.zeros(n, ar.dtype), np.ones(n, count.dtype))}
        for i, layer in enumerate(self.layers):
            after: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
            bits += sum(
                len(tokens) for tokens, _ in layer.groups
            ).bit_length()  # of a count: long ones take longer
            ar.step(
                len(reached) * len(layer.groups), 1, 400
            )  # also of transitions that lead nowhere
            for tokens, following in layer.groups:
                steps = [
                    (np.zeros(n, ar.dtype), len(tokens), 0)
                ]  # of a position that isn't attended to
                if i == form.pin:
                    steps = [
                        (own, np.isin(self.queries, tokens).astype(count.dtype), 0)
                    ]
                elif i < form.attended:
                    g = self.index[tokens.tobytes()]
                    used_levels = [
                        c for c in sorted({0, level}) if c == 0 or count[g, c].any()
                    ]
                    steps = [
                        (terms[i, g, c], count[g, c], int(c > 0)) for c in used_levels
                    ]
                for (state, used), (least, ways) in reached.items():
                    for term, number, more in steps:
                        target = int(following[state]), used + more
                        if target[0] < 0 or target[1] > loose:
                            continue
                        if target not in after:
                            reserve(len(after) + 1, n)
                        ar.spend(4 * n, 4, 10 + bits // 64)
                        old, paths = after.get(target, nothing), ways * number
                        total = np.where(paths > 0, ar.down(least + term), ar.infinity)
                        after[target] = np.minimum(old[0], total), old[1] + paths
            reached = after
        return reached.get((0, loose), nothing)

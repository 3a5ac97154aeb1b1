"""Rule `fold`: cells are (query token, class of the mechanism); the softmax denominator is cleared.

With one head, logit_m - logit_t > margin is equivalent to

    sum_i exp(s_i) * (base[m] - base[t] + u_i[m] - u_i[t] - margin) > 0,

a sum of one-token terms once the query token is fixed. ReLU neurons between attention and output are bounded in each
cell and replaced there by lines (neurons.py), so that the sum is a bound. A cell where its minimum is positive for
every t is right everywhere. In another cell the witness says how to count: groups of rival outputs t, whose terms are
replaced by the smallest of the group, bound the wrong inputs from above; one rival bounds them from below. Or the terms
of every input are added up.

Lemmas F6, F8, F9 (docs/soundness/fold.md).
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.arithmetic import Ball, aligned
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import ROOM, reserve
from mechverify.kernel.core.series import exp_parts, relative_exponentials
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.automaton import towards
from mechverify.kernel.counting.classes import Classes
from mechverify.kernel.counting.smallest import smallest
from mechverify.kernel.fold.factors import Factors
from mechverify.kernel.fold.ratio import RatioForm, ratio_form

if TYPE_CHECKING:
    from mechverify.kernel.fold.neurons import Reach

LISTED = 2**22  # inputs times rivals of a cell that is listed
Group = tuple[int, tuple[int, ...]]  # exponent of the grid's step, rivals


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Precondition: the output has a ratio form with one head, and the mechanism is a short fold.

    Postcondition: the bounds hold for the number of right inputs in `domain`. Complexity: classes x query tokens
    x positions x vocabulary x outputs for the minima (times the states that lead to a class), and positions x
    vocabulary x grid a counted group; for neurons see `reach`.
    """
    keys = [*witness["keys"].items(8)]
    trials = (
        witness["trials"].an_integer(1, 2**8) if "trials" in witness.value else None
    )
    only, n = witness["only"], 1 + len(keys)
    only = (
        None
        if only.value is None
        else {tuple(v.an_integer() for v in k.items(n, n)) for k in only.items()}
    )
    cells = _cells(witness["cells"])
    witness.close()
    partition = Partition(job, domain, keys, trials)
    right_min = right_max = covered = partition.unguarded
    for key in partition.places:
        if only is not None and key not in only:
            continue
        for cell in InputClass(partition, key).cells():
            wrong = cell.wrong(*cells.pop((cell.query, key), ((), None)))
            job.found.cells.append((cell.query, key, cell.size, wrong))
            covered += cell.size
            right_min += cell.size - wrong.high
            right_max += cell.size - wrong.low
    if cells:
        raise Rejected(f"the witness counts in {len(cells)} cells that don't exist")
    if only is None and covered != domain.size:
        raise Rejected(f"the cells hold {covered} inputs, the domain {domain.size}")
    return Counts(
        right_min, right_max + domain.size - covered
    )  # `only`: nothing is said of other classes


def output_form(job: Job) -> RatioForm:
    """The claim's output as a ratio form."""
    graph, output = job.slim()
    return ratio_form(graph, job.claim.weights, job.semantics, output)


def _cells(entry: Reader) -> dict[tuple, tuple]:
    """(query token, class) -> how to count: (groups, or None to list the cell; the group of one rival that
    counts the surely wrong, or None)."""
    result = {}
    for row in entry.items(2**20):
        query, key, above, below = row.items(4, 4)
        where = query.an_integer(), tuple(key.integers())
        groups = (
            None
            if above.value is None
            else tuple(_group(g, 2**20) for g in above.items())
        )
        if where in result:
            raise Rejected(f"cell {where} is counted twice")
        result[where] = groups, None if below.value is None else _group(below, 1)
    return result


def _group(entry: Reader, most: int) -> Group:
    step, rivals = entry.items(2, 2)
    return step.an_integer(-1_000, 1_000), tuple(rivals.integers(most))


class Partition(Classes):
    """The domain cut into families of cells, one for each class of the mechanism and `keys`, further mechanisms."""

    def __init__(
        self,
        job: Job,
        domain: Domain,
        keys: Sequence[Reader],
        trials: int | None = None,
    ):
        self.trials = trials
        self.form = job.once(output_form)
        self.exponentials = exp_parts(
            job.ar, self.form.score
        )  # mantissas and exponents: nothing underflows yet
        self.queries = domain.tokens[self.form.pin]
        super().__init__(job, domain, keys)
        if (trials is None) != (self.form.neurons is None):
            raise Rejected(
                "trials are needed where, and only where, the output goes through neurons"
            )

    def factors(self, queries: np.ndarray, alive: np.ndarray) -> Factors:
        """Of query tokens; c is the largest exponent among the tokens `alive` [queries, vocab, attended]."""
        ar, (mantissa, k) = self.ar, self.exponentials
        parts = mantissa.map(lambda a: _rows(a, queries)), _rows(k, queries)
        factor = relative_exponentials(ar, parts, alive, (1, 2))
        low = np.where(alive, np.maximum(ar.lower(factor), 0), 0)
        high = np.where(alive, ar.upper(factor), 0)
        return Factors(low, high, factor.exponent, alive)

    @cached_property
    def reach(self) -> "Reach":
        """What the neurons read, in every cell."""
        from mechverify.kernel.fold.neurons import in_cells  # only where there are some

        return in_cells(self)


class InputClass:
    """The cells of one class, one for each query token. `key` are the values of the mechanism and of the witness's
    keys; `impossible`: no output decodes to the mechanism's value, so that every input is wrong."""

    def __init__(
        self, partition: Partition, key: tuple[int, ...], margin: Fraction | None = None
    ):
        self.margin = partition.job.claim.margin if margin is None else margin
        self.ar, self.form = partition.ar, partition.form
        self.partition, self.key = partition, key
        self.index = partition.places[key]
        self.layers = towards(self.ar, partition.automaton, self.index)
        self.sizes = recursion.sizes_by_token(
            self.ar, self.layers, self.form.pin
        )  # of the cells with an input
        self.right, self.outputs = key[0], partition.job.claim.outputs
        self.impossible = not 0 <= self.right < self.outputs

    @cached_property
    def weights(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        """Bounds of the terms' weights w = (base + u)[right] - (base + u)[t] - margin, as the raw sums base_low + u_low
        and base_high + u_high (a slack covers that addition's rounding), base [q or 1, out], u [q or 1, vocab,
        attended, out]; and their exponent. Neurons are replaced by lines below, or above, what they add."""
        ar, form, right = self.ar, self.form, self.right
        base = self._lead(form.base.at[:, 0])
        base = ar.sub(base, ar.rational(self.margin)) if self.margin else base
        low = high = base, self._lead(form.value)
        if form.neurons is not None:
            from mechverify.kernel.fold.neurons import replaced

            start, stop = (b.at[self.index] for b in self.partition.reach)
            lines = (
                replaced(ar, form.neurons, start, stop, right, upper)
                for upper in (False, True)
            )
            low, high = (
                [ar.add(x, y) for x, y in zip(low, line, strict=True)] for line in lines
            )
        low_base, low_value, high_base, high_value = aligned(ar, *low, *high)
        bases = ar.lower(low_base), ar.upper(high_base)
        values = ar.lower(low_value), ar.upper(high_value)
        size = sum(max(np.abs(a).max(), np.abs(b).max()) for a, b in (bases, values))
        slack = ar.slack(2 * size, 1)  # rejects sizes near overflow
        return (
            ar.down(bases[0] - slack),
            ar.up(bases[1] + slack),
            *values,
            low_base.exponent,
        )

    def _lead(self, x: Ball) -> Ball:
        """The right output's entry [.., out] minus each."""
        return self.ar.sub(x.at[..., self.right, None], x)

    def cells(self) -> Iterator["Cell"]:
        """Every cell of the family that has an input."""
        queries = list(self.sizes)
        states = max(layer.states for layer in self.layers)
        reserve(states, self.outputs)
        vocab, attended = self.form.score.mid.shape[1:]
        rows = max(
            1,
            min(
                self.ar.chunk // (self.outputs * (4 * vocab + states)),
                ROOM // (vocab * attended),
            ),
        )
        for start in range(0, len(queries), rows):
            some = queries[start : start + rows]
            terms = None if self.impossible else Terms(self, np.array(some))
            for row, query in enumerate(some):
                yield Cell(self, query, terms, row)


class Terms:
    """The one-token terms 2^-c e^s w of some cells of a family; `factors` are those of the tokens that can occur."""

    def __init__(self, input_class: InputClass, queries: np.ndarray):
        form, self.input_class, self.queries = input_class.form, input_class, queries
        vocab, attended = form.score.mid.shape[1:]
        reserve(len(queries), vocab, attended)
        alive = np.zeros((len(queries), vocab, attended), bool)
        for i, layer in enumerate(input_class.layers[:attended]):
            for tokens, _ in layer.groups:
                alive[:, tokens, i] = True
        alive[:, :, form.pin] &= np.arange(vocab) == queries[:, None]
        factors = input_class.partition.factors(queries, alive)
        self.low_factor, self.high_factor = factors.low, factors.high
        self.exponent = factors.exponent + input_class.weights[4]

    def below(self, position: int, tokens: np.ndarray) -> np.ndarray:
        """Lower bounds [rows, tokens, out] of the terms, before the last rounding."""
        base, _, value, _, _ = self.input_class.weights
        w = _rows(base, self.queries)[:, None] + _rows(
            value[:, tokens, position], self.queries
        )
        small, large = (
            f[:, tokens, position, None] for f in (self.low_factor, self.high_factor)
        )
        self.input_class.ar.spend(4 * w.size, 4, 2)
        return w * np.where(w >= 0, small, large)

    @cached_property
    def minima(self) -> np.ndarray:
        """Lower bounds [rows, out] over each cell of the sum of terms; the right output has no minimum."""
        input_class, ar = self.input_class, self.input_class.ar

        def term(position: int, tokens: np.ndarray) -> np.ndarray:
            if position >= self.low_factor.shape[2]:
                return np.zeros((1, len(tokens), 1), ar.dtype)
            terms = self.below(position, tokens)
            if position == input_class.form.pin:
                other = tokens[None, :] != self.queries[:, None]
                terms = np.where(other[..., None], ar.infinity, terms)
            return terms

        result = smallest(
            ar, input_class.layers, term, (len(self.queries), input_class.outputs)
        )
        result[:, input_class.right] = ar.infinity
        return result

    def of_rivals(self, row: int, rivals: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds [length, vocab, rivals] of the terms of some rivals in one cell."""
        ar, query = self.input_class.ar, int(self.queries[row])
        reserve(len(self.input_class.layers), len(self.low_factor[row]), len(rivals))
        low_base, high_base, low_value, high_value = (
            a[query if len(a) > 1 else 0][..., rivals]
            for a in self.input_class.weights[:4]
        )
        small, large = self.low_factor[row, ..., None], self.high_factor[row, ..., None]
        low, high = low_base + low_value, high_base + high_value
        low = ar.down(low * np.where(low >= 0, small, large))
        high = ar.up(high * np.where(high >= 0, large, small))
        both = np.zeros(
            (2, len(self.input_class.layers), len(low), len(rivals)), ar.dtype
        )
        both[:, : low.shape[1]] = low.swapaxes(0, 1), high.swapaxes(0, 1)
        ar.spend(8 * both.size, 10, 2)
        return both[0], both[1]


def _rows(a: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The rows of the queries, or the one row of an array that doesn't depend on the query token."""
    return a[queries] if len(a) > 1 else a


class Cell:
    """The inputs of a class with a given query token."""

    def __init__(
        self, input_class: InputClass, query: int, terms: Terms | None, row: int
    ):
        self.input_class, self.query, self._terms, self.row = (
            input_class,
            query,
            terms,
            row,
        )
        self.size = input_class.sizes[query]

    @property
    def terms(self) -> Terms:
        """Precondition: the class is possible."""
        assert self._terms is not None
        return self._terms

    @cached_property
    def layers(self) -> list:
        return recursion.pin(
            self.input_class.layers, self.input_class.form.pin, self.query
        )

    @cached_property
    def undecided(self) -> list[int]:
        """The rivals that may win somewhere in the cell."""
        return (
            []
            if self._terms is None
            else np.flatnonzero(~(self.terms.minima[self.row] > 0)).tolist()
        )

    def wrong(self, groups: tuple[Group, ...] | None, certain: Group | None) -> Counts:
        """Bounds for the wrong inputs, counting for `groups` and the rival `certain`, or (None) input by input."""
        if self.input_class.impossible:
            return Counts(self.size, self.size)
        if not self.undecided:
            return Counts(0, 0)
        if groups is None:
            if certain is not None:
                raise Rejected("a listed cell is not counted for a rival as well")
            return self.list_wrong()
        if not groups and certain is None:
            return Counts(0, self.size)
        from mechverify.kernel.fold.counted import wrong

        return wrong(self, groups, certain)

    def list_wrong(self) -> Counts:
        """Bounds for the wrong inputs by adding up the terms of every input for the undecided rivals; they differ
        only where rounding leaves a margin open."""
        from mechverify.kernel.counting.sums import sums  # only where a cell is listed

        ar, rivals = self.input_class.ar, self.undecided
        if self.size * len(rivals) > LISTED:
            raise Rejected(
                f"a cell of {self.size} inputs and {len(rivals)} rivals is too large to list"
            )
        certain, possible = np.zeros((2, self.size), bool)
        for start in range(
            0,
            len(rivals),
            width := max(1, ar.chunk // max(self.size, self.terms.low_factor[0].size)),
        ):
            low, high = self.terms.of_rivals(self.row, rivals[start : start + width])
            slack = ar.slack(
                np.maximum(np.abs(low), np.abs(high)).max((1, 2)).sum(),
                len(self.layers) + 1,
            )
            possible |= (sums(ar, self.layers, low) <= slack).any(1)
            certain |= (sums(ar, self.layers, high) <= -slack).any(1)
        return Counts(int(certain.sum()), int(possible.sum()))

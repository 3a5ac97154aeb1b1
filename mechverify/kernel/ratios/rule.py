"""Rule `ratios`: cells are (query token, class of the mechanism), and in each the heads' ratios are bounded together.

The output is a sum of ratios, one for each head (form.py). In a cell they are linearised around a point that the
witness names (linear.py), a rival at a time, so that the lead is bounded by one sum of one-token terms wherever it
isn't positive. Where that sum's minimum is positive, the rival never wins. In another cell the witness says how to
count: groups of rivals, whose terms are replaced by the smallest of the group, bound the wrong inputs from above; one
rival bounds them from below. Or every input's ratios are computed. A cell may be cut by how many tokens of a set it has
at some positions.

Lemmas R5, R7 (docs/soundness/ratios.md).
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from mechverify.kernel.core.arithmetic import Array, Ball, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.automaton import Layer, towards
from mechverify.kernel.counting.classes import Classes
from mechverify.kernel.counting.form import sum_of_ratios
from mechverify.kernel.counting.split import by_count
from mechverify.kernel.counting.tally import Tally
from mechverify.kernel.ratios.linear import Box, Expansion, Lead, Linear, Tables

LISTED = 2**22  # inputs times heads of a cell that is listed
BLOCK = 2**16  # numbers of its leads at a time: they stay near a core
DEEPEST = 8  # cuts of a cell within each other
POINTS = 2**8  # of one cell


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Precondition: the output is a sum of ratios, and the mechanism a short fold.

    Postcondition: the bounds hold for the number of right inputs in `domain`, whatever the witness says. Complexity:
    for each point of a cell that of `Expansion`, for each counted group positions x vocabulary x grid.
    """
    keys = [*witness["keys"].items(8)]
    tally = Tally(witness["cells"])
    witness.close()
    partition = Partition(job, domain, keys)
    for input_class in partition.classes():
        key = input_class.key
        for query, size in input_class.sizes.items():
            wrong = input_class.wrong(query, tally.take(query, key))
            tally.add(query, key, size, wrong)
    return tally.right(partition)


class Partition(Classes):
    """The domain cut into families of cells, one for each class of the mechanism and `keys`, further mechanisms."""

    def __init__(self, job: Job, domain: Domain, keys: Sequence[Reader]):
        self.tables = job.once(_tables)
        self.form = self.tables.form
        super().__init__(job, domain, keys)

    def classes(self) -> Iterator["InputClass"]:
        for key, i in self.places.items():
            yield InputClass(self, i, key)


def _tables(job: Job) -> Tables:
    """The form of the claim's output."""
    claim = job.claim
    form = sum_of_ratios(claim.graph, claim.weights, job.semantics, claim.output)
    return Tables(job.ar, form)


class InputClass:
    """The cells of one class, one for each query token. `key` are the values of the mechanism and of the witness's
    keys; `impossible`: no output decodes to the mechanism's value, so that every input is wrong."""

    def __init__(self, partition: Partition, index: int, key: tuple[int, ...]):
        self.partition, self.ar, self.form, self.key = (
            partition,
            partition.ar,
            partition.form,
            key,
        )
        self.layers = towards(self.ar, partition.automaton, index)
        self.sizes = recursion.sizes_by_token(
            self.ar, self.layers, self.form.pin
        )  # of the cells with an input
        self.right, outputs = key[0], partition.job.claim.outputs
        self.impossible = not 0 <= self.right < outputs
        self.rivals = np.array([t for t in range(outputs) if t != self.right], int)

    def cell(self, query: int) -> "Cell":
        return Cell(self, query, recursion.pin(self.layers, self.form.pin, query))

    def wrong(self, query: int, node: Reader | None) -> Counts:
        """Bounds for the wrong inputs of a cell, as its entry of the witness says; without one, none."""
        if self.impossible:
            return Counts(self.sizes[query], self.sizes[query])
        return self.cell(query).wrong(node)


class Cell:
    """Inputs of a class with one query token: those that `layers` accept."""

    def __init__(self, input_class: InputClass, query: int, layers: list[Layer]):
        self.input_class, self.query, self.layers, self.ar = (
            input_class,
            query,
            layers,
            input_class.ar,
        )
        self.size = recursion.completions(self.ar, layers)[0][0]

    def wrong(self, node: Reader | None, depth: int = 0) -> Counts:
        """Bounds for the wrong inputs; `node`: null, a cut, or points, and groups of rivals to count, or null."""
        if node is None or node.value is None or not self.size:
            return Counts(0, self.size)
        if "cut" in node.value:
            return self._cut(node, depth)
        undecided = self.rivals
        forms = []
        for point in node["points"].items(POINTS):
            forms.append(tuple(point.integers(len(self.layers))))
            undecided = self.undecided(forms[-1], undecided)
        groups, certain = node["groups"], node["certain"]
        node.close()
        if not len(undecided):
            return Counts(0, 0)
        if groups.value is None:
            if certain.value is not None:
                raise Rejected("a listed cell is not counted for a rival as well")
            return self.listed(undecided)
        counted = [self._group(g, forms, 2**20) for g in groups.items(2**20)]
        lost = sum(self.lost(*group) for group in counted)
        low = (
            0
            if certain.value is None
            else self.surely_lost(*self._group(certain, forms, 1))
        )
        covered = set(undecided.tolist()) <= {
            t for _, _, rivals in counted for t in rivals
        }
        return Counts(low, min(lost, self.size) if covered else self.size)

    def _cut(self, node: Reader, depth: int) -> Counts:
        """The parts with 0, 1, 2, ... tokens of a set at some positions; together they are the cell."""
        if depth == DEEPEST:
            raise Rejected(f"a cell is cut more than {DEEPEST} times")
        cut, parts = node["cut"], node["parts"]
        node.close()
        positions, tokens = (
            cut[name].integers(2**16) for name in ("positions", "tokens")
        )
        cut.close()
        if (
            not positions
            or len(set(positions)) < len(positions)
            or not set(positions) <= set(range(len(self.layers)))
        ):
            raise Rejected(f"{positions!s:.100} are not positions to count tokens at")
        cells = self.parts(positions, tokens)
        wrong = [
            c.wrong(p, depth + 1)
            for c, p in zip(cells, parts.items(len(cells), len(cells)), strict=True)
        ]
        return Counts(sum(w.low for w in wrong), sum(w.high for w in wrong))

    def parts(self, positions: Sequence[int], tokens: Sequence[int]) -> list["Cell"]:
        parts = by_count(self.ar, self.layers, positions, tokens)
        return [Cell(self.input_class, self.query, layers) for layers in parts]

    def _group(
        self, entry: Reader, forms: list[tuple[int, ...]], most: int
    ) -> tuple[tuple[int, ...], int, list[int]]:
        """A point, the exponent of the grid's step, and rivals: other outputs than the right one, which loses to itself
        by nothing."""
        point, step, rivals = entry.items(3, 3)
        named = rivals.integers(most)
        if not named or not set(named) <= set(self.rivals.tolist()):
            raise Rejected(
                f"{named!s:.100} are not rivals of output {self.input_class.right}"
            )
        return (
            forms[point.an_integer(0, len(forms) - 1)],
            step.an_integer(-1_000, 1_000),
            named,
        )

    @property
    def rivals(self) -> np.ndarray:
        return self.input_class.rivals

    @cached_property
    def box(self) -> Box:
        return self.input_class.partition.tables.box(self.layers, self.query)

    def lead(self, rivals: Sequence[int] | np.ndarray) -> Lead:
        """Of the right output over each of the rivals."""
        ar, right, some = self.ar, self.input_class.right, np.asarray(rivals, int)
        tables = self.input_class.partition.tables
        base, value = (
            ar.sub(x.map(lambda a: a[..., right, None]), x.map(lambda a: a[..., some]))
            for x in tables.outputs(self.query, self.box.tokens)
        )
        margin = self.input_class.partition.job.claim.margin
        return Lead(ar.sub(base, ar.rational(margin)) if margin else base, value)

    def expansion(
        self,
        point: Sequence[int],
        rivals: Sequence[int] | np.ndarray,
        upper: bool = False,
    ) -> Expansion:
        """Of the lead over some rivals; `upper`: of the negated one."""
        lead = self.lead(rivals)
        if not self.box.usable:
            raise Rejected(
                "the sum of a cell's exponentials is not known to be positive"
            )
        return Expansion(self.box, -lead if upper else lead, point)

    def undecided(self, point: Sequence[int], rivals: np.ndarray) -> np.ndarray:
        """Those of the rivals that may win somewhere, as far as an expansion around the point tells."""
        if not len(rivals):
            return rivals
        around = self.expansion(point, rivals)
        left = np.flatnonzero(~around.decided)
        if not len(left):
            return rivals[left]
        return rivals[left[~(around.linear(left).least > 0)]]

    def linear(
        self, point: Sequence[int], rivals: Sequence[int], upper: bool
    ) -> Linear:
        return self.expansion(point, rivals, upper).linear(np.arange(len(rivals)))

    def lost(self, point: Sequence[int], step: int, rivals: Sequence[int]) -> int:
        """At most this many inputs are lost to one of the rivals."""
        form = self.linear(point, rivals, upper=False)
        return self._count(
            self.ar.lower(form.terms).min(-1), form.terms.exponent, step, upwards=True
        )

    def surely_lost(
        self, point: Sequence[int], step: int, rivals: Sequence[int]
    ) -> int:
        """At least this many inputs are lost to the one rival (a tie is lost)."""
        form = self.linear(point, rivals, upper=True)
        return self._count(
            -self.ar.lower(form.terms)[..., 0], form.terms.exponent, step, upwards=False
        )

    def _count(self, terms: np.ndarray, exponent: int, step: int, upwards: bool) -> int:
        """Inputs whose sum of `terms` [tokens, length] is not positive."""
        vocab = len(self.input_class.partition.job.claim.graph.values)
        reserve(len(self.layers), vocab)
        integers = np.zeros((len(self.layers), vocab), np.int64)
        integers[:, self.box.tokens] = self.ar.to_grid(
            terms, exponent, step, upwards=not upwards
        ).T
        from mechverify.kernel.counting.nonpositive import (
            count_nonpositive,
        )  # only where some are counted

        return count_nonpositive(self.ar, self.layers, integers, upwards)

    def listed(self, rivals: Sequence[int] | np.ndarray) -> Counts:
        """Bounds for the wrong inputs by every input's own ratios; they differ where rounding leaves a lead open."""
        ar, heads = self.ar, len(self.box.factor.mid)
        if self.size * heads > LISTED:
            raise Rejected(
                f"a cell of {self.size} inputs and {heads} heads is too large to list"
            )
        reserve(self.size, heads)
        certain, possible = np.zeros((2, self.size), bool)
        low, high = (
            self._sums(a[..., None])
            for a in (ar.lower(self.box.factor), ar.upper(self.box.factor))
        )
        slack = self._slack(self.box.factor)
        masses = low - slack, high + slack
        if not (masses[0] > 0).all():
            return Counts(0, self.size)
        reserve(*self.box.factor.mid.shape, len(rivals))
        lead = self.lead(rivals)
        terms = ar.mul(self.box.factor.map(lambda a: a[..., None]), lead.value)
        lead = Lead(lead.base, terms)
        slack = self._slack(terms)
        width = max(1, min(ar.chunk, BLOCK) // (self.size * heads))
        for start in range(0, len(rivals), width):
            some = lead.of(slice(start, start + width))
            open_ = ~(self._leads(some, slack, masses) > 0)
            possible |= open_.any(-1)
            left = np.flatnonzero(open_.any(0))  # no other leads anywhere
            if len(left):
                negated = self._leads(-some.of(left), slack, masses)
                certain |= (negated >= 0).any(-1)
        return Counts(int(certain.sum()), int(possible.sum()))

    def _leads(
        self, lead: Lead, slack: Array, masses: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        """Lower bounds [inputs, rivals] of leads whose values are multiplied by the factors, signs alone counting;
        `masses` [heads, inputs, 1], at least and at most; `slack`: more than the values' sums round."""
        ar, exponent = self.ar, self.box.factor.exponent
        base, terms = lead
        reserve(self.size, len(terms.mid), len(base.mid))
        sums = self._sums(ar.lower(terms)) - slack
        mass = np.where(sums >= 0, masses[1], masses[0])
        ratios = ar.div(points(sums, terms.exponent), points(mass, exponent))
        for least in ar.lower(ratios):
            base = ar.add(base, points(least, ratios.exponent))
        return ar.lower(base)

    def _sums(self, terms: np.ndarray) -> np.ndarray:
        """Of terms [heads, tokens, length, columns], along every input: [heads, inputs, columns]."""
        heads, _, length, columns = terms.shape
        vocab = len(self.input_class.partition.job.claim.graph.values)
        reserve(length, vocab, heads, columns)
        from mechverify.kernel.counting.sums import sums  # only where a cell is listed

        wide = np.zeros((length, vocab, heads, columns), self.ar.dtype)
        wide[:, self.box.tokens] = terms.transpose(2, 1, 0, 3)
        flat = sums(self.ar, self.layers, wide.reshape(length, vocab, heads * columns))
        return flat.reshape(-1, heads, columns).swapaxes(0, 1)

    def _slack(self, terms: Ball) -> Array:
        """Exceeds the rounding of such sums."""
        size = self.ar.upper(terms.size)
        return self.ar.slack(size.max() * len(self.layers), len(self.layers) + 1)

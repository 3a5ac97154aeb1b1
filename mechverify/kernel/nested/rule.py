"""Rule `nested`: cells are (query token, class of the mechanism) of a model with two layers of attention.

Of a head of the second layer, the mean of values is at least t if

    sum_i e^(s_i - s_r) (value_i - t)

is at least zero, s the scores and r any position, `references`. Where the bracket is negative it is multiplied by an
upper bound of the exponential, where it isn't the term is at least zero. So every term has a lower bound for each
window of two tokens, and the least sum over sequences of the cell's tokens is found by reading them in order. The first
head is bounded together with what the others and the direct part add: with one head nothing is lost. In the same way
one rival is shown to lead, so that all inputs are wrong. What the witness says nothing of, or what isn't decided so,
may be either.

Lemmas N4, N5, N6 (docs/soundness/nested.md).
"""

from fractions import Fraction
from functools import cached_property

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.elementary import exp
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.apart import apart, is_apart, sequences
from mechverify.kernel.counting.automaton import Layer, towards
from mechverify.kernel.counting.classes import Classes
from mechverify.kernel.counting.known import conditions_of, weaker, with_token
from mechverify.kernel.nested.layers import HEADS, Head, two_layers
from mechverify.kernel.nested.ranges import Along, Row, highest
from mechverify.kernel.nested.scores import Scores
from mechverify.kernel.nested.sums import Tokens, possible, possible_most, windows

DEEPEST = 64  # cuts of a cell within each other
FAR = 60.0  # a difference of scores beyond which nothing is said
HALVINGS = 12  # of the interval of trial values for a head's mean
NOTHING = 700.0  # one below its negative is taken for that


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Precondition: the output is that of two layers of attention, and the mechanism a short fold once the query's
    token is known.

    Postcondition: the bounds hold for the number of right inputs in `domain`, whatever the witness says. Complexity:
    for each family of cells that of `Scores`, for each cell positions x windows x rivals x tokens.
    """
    keys = [*witness["keys"].items(8)]
    conditions = witness["conditions"].integers(2**12)
    families: dict[int, list[Reader]] = {}
    for entry in witness["families"].items(2**20):
        families.setdefault(entry["query"].an_integer(), []).append(entry)
    witness.close()
    model = job.once(Model)
    low = high = 0
    for query in domain.tokens[model.pin]:
        part = domain.split(model.pin, {query})[0]
        cells = Cells(model, part, query, keys, conditions)
        right = cells.right(families.pop(query, []))
        low += right.low
        high += right.high
    if families:
        raise Rejected(
            f"the witness speaks of queries {[*families]!s:.100} that don't exist"
        )
    return Counts(low, high)


class Rows:
    """Those of one head of the second layer."""

    def __init__(self, ar: Arithmetic, head: Head):
        self.asking = Row(ar, head.query)
        self.keys = {i: Row(ar, form) for i, form in head.keys.items()}
        self.values = {i: Row(ar, form) for i, form in head.values.items()}


class Model:
    """The rows of both layers, with what they add up to."""

    def __init__(self, job: Job):
        if job.claim.semantics != "real":
            raise Unsupported("rule nested speaks of exact real arithmetic alone")
        self.job, self.ar = job, job.ar
        claim = job.claim
        layers = two_layers(claim.graph, claim.weights, job.semantics, claim.output)
        self.pin, self.margin = layers.pin, job.claim.margin
        self.direct = Row(self.ar, layers.direct)
        self.heads = [Rows(self.ar, head) for head in layers.heads]

    def leads(self, row: Row, right: int, rivals: np.ndarray) -> Along:
        """Of the right output over each rival."""
        base, value = row.base, row.value
        reserve(len(rivals), *value.mid.shape[:-1])
        lead = self.ar.sub(base.at[..., right, None], base.at[..., rivals])
        each = self.ar.sub(value.at[..., right, None], value.at[..., rivals])
        return Along(*(x.map(lambda a: np.moveaxis(a, -1, 0)) for x in (lead, each)))


class Cells:
    """The cells of one query token: one for each class of the mechanism and of `keys`."""

    def __init__(
        self,
        model: Model,
        domain: Domain,
        query: int,
        keys: list[Reader],
        conditions: list[int],
    ):
        """`conditions`: those parts of the guard that an automaton tells. All of them together say which positions'
        tokens differ from each other, `apart`. If what is left asks for more, cells are larger than the guard lets them
        be, and then no more is known than how many are right (`larger`)."""
        self.model, self.ar, self.query = model, model.ar, query
        self.size = domain.size
        self.larger, self.apart = False, frozenset[int]()
        guarded = model.job.claim.guarded
        if conditions and not guarded:
            raise Rejected("a claim without a guard has no conditions")

        def known(graph: Graph, roots: list[int]) -> list[int]:
            if guarded:
                asked = conditions_of(graph, roots[-1])
                self.apart = apart(graph, asked)
                told = {*conditions}
                left = [n for i, n in enumerate(asked) if i not in told]
                self.larger = not all(is_apart(graph, n, self.apart) for n in left)
                roots = [*roots[:-1], weaker(graph, roots[-1], conditions)]
            return with_token(graph, roots, model.pin, query)

        self.classes = Classes(model.job, domain, keys, known)

    def right(self, families: list[Reader]) -> Counts:
        """Bounds of the inputs that are right, or don't satisfy the guard."""
        low, high, seen = self.classes.unguarded, self.size, set()
        for entry in families:
            references = entry["references"].integers(HEADS)
            attended = [head.keys for head in self.model.heads]
            if len(references) != len(attended) or not all(
                r in keys for r, keys in zip(references, attended, strict=True)
            ):
                raise Rejected(f"positions {references} are not attended to")
            cells: list[tuple[Cell, Reader]] = []
            for row in entry["cells"].items(2**20):
                key, node = row.items(2, 2)
                named = tuple(key.integers(9))
                if named in seen:
                    raise Rejected(
                        f"cell {named} of query {self.query} is listed twice"
                    )
                seen.add(named)
                cells.append((self.cell(named), node))
            by_token = entry["by_token"].flag()
            entry.close()
            family = Family(
                self.model, self.query, references, by_token, [c for c, _ in cells]
            )
            for cell, node in cells:
                wrong = self.wrong(cell.right(family, node), cell.size)
                self._tell(cell, wrong)
                low += cell.size - wrong.high
                high -= wrong.low
        return Counts(low, high)

    def _tell(self, cell: "Cell", wrong: Counts) -> None:
        """For the report. Of a cell that is `larger`, a share would not be one of inputs that the claim is about."""
        if self.larger and wrong.high:
            wrong = Counts(0, cell.asked)
        self.model.job.found.cells.append((self.query, cell.key, cell.asked, wrong))

    def wrong(self, right: Counts, size: int) -> Counts:
        """Bounds of a cell's wrong inputs: of those that satisfy the guard, none is known to be if it is `larger`."""
        low = 0 if self.larger else size - right.high
        return Counts(low, size - right.low)

    def cell(self, key: tuple[int, ...]) -> "Cell":
        if key not in self.classes.places:
            raise Rejected(f"query {self.query} has no cell {key}")
        layers = towards(self.ar, self.classes.automaton, self.classes.places[key])
        return Cell(self.model, key, layers, self.apart)


class Cell:
    """The inputs that `layers` accept, of the class `key`: its first entry is the output that is right on all of them.
    Those with equal tokens at positions that are `apart` break the guard, and count as right."""

    def __init__(
        self,
        model: Model,
        key: tuple[int, ...],
        layers: list[Layer],
        apart: frozenset[int],
    ):
        self.model, self.ar, self.key, self.layers = model, model.ar, key, layers
        self.wanted, self.outputs = key[0], model.job.claim.outputs
        self.size, self.apart = recursion.completions(self.ar, layers)[0][0], apart

    @cached_property
    def asked(self) -> int:
        """How many don't break the guard so."""
        return sequences(self.ar, self.layers, self.apart) if self.apart else self.size

    @property
    def open(self) -> Counts:
        """Bounds of its right inputs, if nothing is known of them."""
        return Counts(self.size - self.asked, self.size)

    @property
    def wrong(self) -> Counts:
        """Those, if all that don't break the guard are wrong."""
        return Counts(self.size - self.asked, self.size - self.asked)

    @property
    def box(self) -> Tokens:
        """The tokens that occur at each position where none is equal that is to be different."""
        return self._narrowed[0]

    @cached_property
    def _narrowed(self) -> tuple[Tokens, bool]:
        """These, and whether there are none at some position: then every input breaks the guard, and tokens that are
        taken stay, as a box is never empty."""
        box = [
            np.sort(np.concatenate([tokens for tokens, _ in layer.groups]))
            for layer in self.layers
        ]
        taken: set[int] = set()  # positions whose one token others can't have
        none = False
        while left := [i for i in self.apart - taken if len(box[i]) == 1]:
            taken.add(left[0])
            for j in self.apart - taken:
                rest = box[j][box[j] != box[left[0]]]
                none = none or not len(rest)
                box[j] = rest if len(rest) else box[j]
        return box, none

    def right(self, family: "Family", node: Reader, depth: int = 0) -> Counts:
        """Bounds of its right inputs. `node` is null (none); whether to bound the differences of scores for this part
        by itself; the same beside a rival that leads; or a cut by the tokens at one position."""
        if not 0 <= self.wanted < self.outputs:
            return self.wrong
        if node.value is None or not self.size:
            return self.open
        if type(node.value) is bool:
            right = self.decided(family, node.flag())
            return Counts(self.size, self.size) if right else self.open
        if type(node.value) is dict and "rival" in node.value:
            rival = node["rival"].an_integer(0, self.outputs - 1)
            wrong = self.beaten(family, node["alone"].flag(), rival)
            node.close()
            return self.wrong if wrong else self.open
        if depth == DEEPEST:
            raise Rejected(f"a cell is cut more than {DEEPEST} times")
        position = node["position"].an_integer(0, len(self.layers) - 1)
        tokens = node["tokens"].integers(2**16)
        sides = node["inside"], node["outside"]
        node.close()
        low = high = 0
        for part, side in zip(self.cut(position, tokens), sides, strict=True):
            found = part.right(family, side, depth + 1)
            low += found.low
            high += found.high
        return Counts(low, high)

    def cut(self, position: int, tokens: list[int]) -> "tuple[Cell, Cell]":
        """The inputs whose token there is one of these, and the others."""
        inside, outside = (
            Cell(
                self.model,
                self.key,
                _among(self.layers, position, tokens, side),
                self.apart,
            )
            for side in (True, False)
        )
        return inside, outside

    def decided(self, family: "Family", alone: bool) -> bool:
        """Whether no input of the cell is wrong. `alone`: differences of scores are bounded on its own box, not on its
        family's."""
        rivals = [t for t in range(self.outputs) if t != self.wanted]
        return self._leads(family, alone, self.wanted, rivals, self.model.margin)

    def beaten(self, family: "Family", alone: bool, rival: int) -> bool:
        """Whether no input of the cell is right, since the rival is ahead, or behind by less than the margin."""
        if rival == self.wanted:
            raise Rejected(f"output {rival} is no rival of itself")
        return self._leads(family, alone, rival, [self.wanted], -self.model.margin)

    def _leads(
        self,
        family: "Family",
        alone: bool,
        first: int,
        others: list[int],
        margin: Fraction,
    ) -> bool:
        """Whether on every input that doesn't break the guard an output exceeds each of the others by more than the
        margin."""
        if self._narrowed[1]:
            return True
        terms = self.terms(family, alone, first, others, margin)
        if terms is None:
            return False
        return bool((largest_sum(self.ar, terms, self._possible) < 0).all())

    def terms(
        self,
        family: "Family",
        alone: bool,
        first: int,
        others: list[int],
        margin: Fraction,
    ) -> list[Ball] | None:
        """For each position points [others, tokens before, own tokens]: if the largest sum over sequences is negative,
        that output leads. None: it isn't known whether it does."""
        ar, rivals = self.ar, np.array(others, int)
        loss = self._direct(first, rivals, margin)
        leading, *more = [self._losses(h, first, rivals) for h in self.model.heads]
        factor, *factors = family.factors(self.box, alone)
        for losses, weights in zip(more, factors, strict=True):
            if weights is None:
                return None
            mean = least_mean(ar, losses, weights, self._possible)
            if mean is None:
                return None
            loss = ar.top(ar.sub(loss, mean.at[:, None, None]))
        if factor is None:
            return None
        return weighed(ar, self._with_direct(leading, loss), factor)

    @cached_property
    def _possible(self) -> list[np.ndarray]:
        """Of each position the windows whose tokens may stand side by side."""
        return [possible(i, self.box, self.apart) for i in range(len(self.box))]

    def _direct(self, first: int, rivals: np.ndarray, margin: Fraction) -> Ball:
        """Points [rivals, tokens before, 1]: by at most so much, plus the margin, an output is below each rival where
        the second layer adds nothing."""
        ar, loss = self.ar, self._loss(self.model.direct, first, rivals)
        return ar.top(ar.add(loss, ar.rational(margin))) if margin else loss

    def _losses(self, head: Rows, first: int, rivals: np.ndarray) -> dict[int, Ball]:
        """The same of what a head adds that attends to one position alone: [rivals, tokens before, own tokens]."""
        return {i: self._loss(row, first, rivals) for i, row in head.values.items()}

    def _loss(self, row: Row, first: int, rivals: np.ndarray) -> Ball:
        """By at most so much is an output below each rival, in a row."""
        losses = -self.model.leads(row, first, rivals)
        return highest(self.ar, row, losses, self.box, self.apart)

    def _with_direct(self, losses: dict[int, Ball], direct: Ball) -> dict[int, Ball]:
        """Both added; the direct part's window is known at the position that is read, elsewhere it is any."""
        most = direct.mid.max((1, 2), keepdims=True)
        anywhere = points(most, direct.exponent)
        return {
            i: self.ar.top(self.ar.add(x, direct if i == self.model.pin else anywhere))
            for i, x in losses.items()
        }


def _among(
    layers: list[Layer], position: int, tokens: list[int], inside: bool
) -> list[Layer]:
    """The automaton of the accepted sequences whose token at a position is one of `tokens`, or none of them."""
    old, groups = layers[position], []
    for here, following in old.groups:
        some = here[np.isin(here, tokens) == inside]
        if len(some):
            groups.append((some, following))
    return [*layers[:position], Layer(old.states, groups), *layers[position + 1 :]]


class Family:
    """Cells of one query whose differences of scores may be bounded together: on `box`, which holds theirs.
    `references`: a position for each head of the second layer. `by_token`: the tokens that stand there are told
    apart."""

    def __init__(
        self,
        model: Model,
        query: int,
        references: list[int],
        by_token: bool,
        cells: list[Cell],
    ):
        self.model, self.query, self.references = model, query, references
        self.by_token = by_token
        self.apart = cells[0].apart if cells else frozenset[int]()
        boxes = zip(*(cell.box for cell in cells if cell.size), strict=True)
        self.box = [np.unique(np.concatenate(tokens)) for tokens in boxes]

    @cached_property
    def scores(self) -> list[Scores]:
        shared = self.query, self.box
        return [
            Scores(
                self.model.ar, head.asking, head.keys, *shared, reference, self.apart
            )
            for head, reference in zip(self.model.heads, self.references, strict=True)
        ]

    @cached_property
    def common(self) -> "list[dict[int, Ball] | None]":
        return self._on(self.box)

    def _on(self, box: Tokens) -> "list[dict[int, Ball] | None]":
        return [
            exponentials(self.model.ar, s.differences(box, self.by_token))
            for s in self.scores
        ]

    def factors(self, box: Tokens, alone: bool) -> "list[dict[int, Ball] | None]":
        """For each head, and each position i but its reference r, points [tokens before, own tokens]: at most so much
        is e^(s_i - s_r) in each window of `box`. None: it isn't known to be less than e^FAR."""
        of, found = (box, self._on(box)) if alone else (self.box, self.common)
        return [
            None if x is None else {i: self._part(x[i], i, r, of, box) for i in x}
            for x, r in zip(found, self.references, strict=True)
        ]

    def _part(self, x: Ball, i: int, r: int, of: Tokens, box: Tokens) -> Ball:
        """In windows of a part of a box, of any token at the reference."""
        if len(x.mid) > 1:
            x = x.at[np.searchsorted(of[r], box[r])]
        part = x.at[(slice(None), *windows(i, of, box))]
        return points(part.mid.max(0), part.exponent)


def exponentials(ar: Arithmetic, excess: dict[int, Ball]) -> dict[int, Ball] | None:
    """Upper bounds of e^x for each x that is at most `excess`; None if one exceeds FAR. What is far below zero is taken
    for larger."""
    result = {}
    for i, most in excess.items():
        if not (most.mid < ar.units(FAR, most.exponent)).all():
            return None
        least = ar.units(-NOTHING, most.exponent)
        above = points(np.maximum(most.mid, least), most.exponent)
        result[i] = ar.top(exp(ar, above))
    return result


def weighed(
    ar: Arithmetic, losses: dict[int, Ball], factors: dict[int, Ball]
) -> list[Ball]:
    """For each position i points [rivals, tokens before, own tokens], of each window: e^(s_i - s_r) times anything that
    is at least -losses[i] is at least their negative. `factors` [tokens before, own tokens]: at most so much is
    e^(s_i - s_r); that of r is left out, and is one."""
    result = []
    for i in range(max(losses) + 1):
        loss = losses.get(i, ar.whole(np.zeros((1, 1, 1), np.int64)))
        if i in factors:
            lost = points(np.maximum(loss.mid, 0), loss.exponent)
            loss = ar.top(ar.mul(lost, factors[i].at[None]))
        result.append(loss)
    return result


def least_mean(
    ar: Arithmetic,
    losses: dict[int, Ball],
    factors: dict[int, Ball],
    possible: list[np.ndarray],
) -> Ball | None:
    """Points [rivals] that a head's mean of values, each at least -losses[i], is not below: trial values t for which
    sum_i e^(s_i - s_r) (value_i - t) is at least zero. None: there was none. Complexity: HALVINGS times that of the
    losses."""
    near = {i: ar.approximate(x) for i, x in losses.items()}
    reference = next(i for i in near if i not in factors)
    low = -np.max([x.max((1, 2)) for x in near.values()], 0)
    high = -near[reference].max((1, 2))
    low = low - 2.0**-20 * np.abs(low)

    def exceeds(trial: np.ndarray) -> np.ndarray:
        """Booleans [rivals]: where the mean is known to be at least the trial value."""
        shift = ar.exact(trial[:, None, None])
        away = {i: ar.top(ar.add(x, shift)) for i, x in losses.items()}
        return largest_sum(ar, weighed(ar, away, factors), possible) <= 0

    if not exceeds(low).all():
        return None
    for _ in range(HALVINGS):
        middle = 0.5 * low + 0.5 * high
        holds = exceeds(middle)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return ar.exact(low)


def largest_sum(
    ar: Arithmetic, terms: list[Ball], possible: list[np.ndarray]
) -> np.ndarray:
    """[rows]: at most so large is, over all sequences, the sum of terms [rows, tokens before, own tokens] of windows
    that are possible and follow each other; an axis of size one stands for all tokens. Complexity: that of the
    terms."""
    first, *more = aligned(ar, *terms)
    best = first.mid.max(1)
    for term, there in zip(more, possible[1 : len(terms)], strict=True):
        ar.spend(term.mid.size, 2, 4)
        longer = ar.up(best[:, :, None] + term.mid)
        by_own = np.swapaxes(longer, 1, 2)
        best = possible_most(by_own, there.T)
    return best.max(-1)

"""Rule `nested`: cells are (query token, class of the mechanism) of a model with two layers of attention.

With one head in the second layer, the sign of the right output's lead over a rival is that of

    sum_i e^(s_i - s_r) (direct + value_i),

s the scores and r any position, `reference`. Where the bracket is negative it is multiplied by an upper bound of the
exponential, where it isn't the term is at least zero. So every term has a lower bound for each window of two tokens,
and the least sum over sequences of the cell's tokens is found by reading them in order. What the witness says nothing
of, or what isn't decided so, may be wrong.

Lemmas N4, N5 (docs/soundness/nested.md).
"""

from functools import cached_property

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.series import exp
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.automaton import Layer, towards
from mechverify.kernel.counting.classes import Classes
from mechverify.kernel.nested.layers import two_layers
from mechverify.kernel.nested.ranges import Along, Row, Tokens, highest, windows
from mechverify.kernel.nested.scores import Scores

DEEPEST = 64  # cuts of a cell within each other
FAR = 60.0  # a difference of scores beyond which nothing is said
NOTHING = 700.0  # one below its negative is taken for that


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Precondition: the output is that of two layers of attention, and the mechanism a short fold once the query's
    token is known.

    Postcondition: the bounds hold for the number of right inputs in `domain`, whatever the witness says. Complexity:
    for each family of cells that of `Scores`, for each cell positions x windows x rivals x tokens.
    """
    keys, entries = [*witness["keys"].items(8)], witness["families"]
    conditions = witness["conditions"].integers(2**12)
    families: dict[int, list[Reader]] = {}
    for entry in entries.items(2**20):
        families.setdefault(entry["query"].an_integer(), []).append(entry)
    witness.close()
    model, low = job.once(Model), 0
    for query in domain.tokens[model.pin]:
        part = domain.split(model.pin, {query})[0]
        cells = Cells(model, part, query, keys, conditions)
        low += cells.right(families.pop(query, []))
    if families:
        raise Rejected(
            f"the witness speaks of queries {[*families]!s:.100} that don't exist"
        )
    return Counts(low, domain.size)


class Model:
    """The rows of both layers, with what they add up to."""

    def __init__(self, job: Job):
        if job.claim.semantics != "real":
            raise Unsupported("rule nested speaks of exact real arithmetic alone")
        self.job, self.ar = job, job.ar
        claim = job.claim
        layers = two_layers(claim.graph, claim.weights, job.model, claim.output)
        self.pin, self.margin = layers.pin, job.claim.margin
        self.asking, self.direct = (
            Row(self.ar, layers.query),
            Row(self.ar, layers.direct),
        )
        self.keys = {i: Row(self.ar, form) for i, form in layers.keys.items()}
        self.values = {i: Row(self.ar, form) for i, form in layers.values.items()}

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
        """`conditions`: those parts of the guard that are kept; inputs that break only others make cells larger."""
        self.model, self.ar, self.query = model, model.ar, query
        known = model.pin, query
        self.classes = Classes(model.job, domain, keys, known, conditions)

    def right(self, families: list[Reader]) -> int:
        """At least so many inputs are right, or don't satisfy the guard."""
        found, seen = self.classes.unguarded, set()
        for entry in families:
            reference = entry["reference"].an_integer()
            if reference not in self.model.keys:
                raise Rejected(f"position {reference} is not attended to")
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
            entry.close()
            family = Family(self.model, self.query, reference, [c for c, _ in cells])
            for cell, node in cells:
                right = cell.right(family, node)
                wrong = Counts(0, cell.size - right)
                self.model.job.found.cells.append(
                    (self.query, cell.key, cell.size, wrong)
                )
                found += right
        return found

    def cell(self, key: tuple[int, ...]) -> "Cell":
        if key not in self.classes.places:
            raise Rejected(f"query {self.query} has no cell {key}")
        layers = towards(self.ar, self.classes.automaton, self.classes.places[key])
        return Cell(self.model, key, layers)


class Cell:
    """The inputs that `layers` accept, of the class `key`: its first entry is the output that is right on all of them.
    `box`: the tokens that occur at each position."""

    def __init__(self, model: Model, key: tuple[int, ...], layers: list[Layer]):
        self.model, self.ar, self.key, self.layers = model, model.ar, key, layers
        self.wanted = key[0]
        self.size = recursion.completions(self.ar, layers)[0][0]

    @cached_property
    def box(self) -> Tokens:
        return [
            np.sort(np.concatenate([tokens for tokens, _ in layer.groups]))
            for layer in self.layers
        ]

    def right(self, family: "Family", node: Reader, depth: int = 0) -> int:
        """At least so many are right. `node` is null (none), whether to bound the differences of scores for this part
        by itself, or a cut by the tokens at one position."""
        if node.value is None or not self.size:
            return 0
        if type(node.value) is bool:
            return self.size if self.decided(family, node.flag()) else 0
        if depth == DEEPEST:
            raise Rejected(f"a cell is cut more than {DEEPEST} times")
        position = node["position"].an_integer(0, len(self.layers) - 1)
        tokens = node["tokens"].integers(2**16)
        sides = node["inside"], node["outside"]
        node.close()
        parts = zip(self.cut(position, tokens), sides, strict=True)
        return sum(part.right(family, side, depth + 1) for part, side in parts)

    def cut(self, position: int, tokens: list[int]) -> "tuple[Cell, Cell]":
        """The inputs whose token there is one of these, and the others."""
        inside, outside = (
            Cell(self.model, self.key, _among(self.layers, position, tokens, side))
            for side in (True, False)
        )
        return inside, outside

    def decided(self, family: "Family", alone: bool) -> bool:
        """Whether no input of the cell is wrong. `alone`: differences of scores are bounded on its own box, not on its
        family's."""
        outputs = self.model.job.claim.outputs
        if not 0 <= self.wanted < outputs:
            return False
        rivals = np.array([t for t in range(outputs) if t != self.wanted], int)
        factors = family.factors(self.box, alone)
        if factors is None:
            return False
        return bool((largest_sum(self.ar, self.losses(factors, rivals)) < 0).all())

    def losses(self, factors: dict[int, Ball], rivals: np.ndarray) -> list[Ball]:
        """For each position i points [rivals, tokens before, own tokens], of each window: e^(s_i - s_r) (direct +
        value_i) is at least their negative. `factors` [tokens before, own tokens]: at most so much is e^(s_i - s_r);
        that of r is left out, and is one."""
        ar, model = self.ar, self.model
        direct = self._loss(model.direct, rivals)
        if model.margin:
            direct = ar.top(ar.add(direct, ar.rational(model.margin)))
        most = direct.mid.max((1, 2), keepdims=True)
        anywhere, zero = points(most, direct.exponent), np.zeros((1, 1, 1), np.int64)
        result = []
        for i in range(max(model.values) + 1):
            loss = ar.whole(zero)
            if i in model.values:
                value = self._loss(model.values[i], rivals)
                loss = ar.add(value, direct if i == model.pin else anywhere)
            if i in factors:
                lost = ar.top(loss)
                lost = points(np.maximum(lost.mid, 0), lost.exponent)
                loss = ar.mul(lost, factors[i].at[None])
            result.append(ar.top(loss))
        return result

    def _loss(self, row: Row, rivals: np.ndarray) -> Ball:
        """By at most so much is the right output below each rival, in a row."""
        return highest(
            self.ar, row, -self.model.leads(row, self.wanted, rivals), self.box
        )


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
    """Cells of one query whose differences of scores may be bounded together: on `box`, which holds theirs."""

    def __init__(self, model: Model, query: int, reference: int, cells: list[Cell]):
        self.model, self.query, self.reference = model, query, reference
        boxes = zip(*(cell.box for cell in cells if cell.size), strict=True)
        self.box = [np.unique(np.concatenate(tokens)) for tokens in boxes]

    @cached_property
    def scores(self) -> Scores:
        model = self.model
        return Scores(
            model.ar, model.asking, model.keys, self.query, self.box, self.reference
        )

    @cached_property
    def common(self) -> dict[int, Ball] | None:
        return exponentials(self.model.ar, self.scores.differences(self.box))

    def factors(self, box: Tokens, alone: bool) -> dict[int, Ball] | None:
        """For each position i but the reference r, points [tokens before, own tokens]: at most so much is e^(s_i - s_r)
        in each window of `box`. None: it isn't known to be less than e^FAR."""
        if alone:
            return exponentials(self.model.ar, self.scores.differences(box))
        if self.common is None:
            return None
        return {i: x.at[windows(i, self.box, box)] for i, x in self.common.items()}


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


def largest_sum(ar: Arithmetic, terms: list[Ball]) -> np.ndarray:
    """[rows]: at most so large is, over all sequences, the sum of terms [rows, tokens before, own tokens] of windows
    that follow each other; an axis of size one stands for all tokens. Complexity: that of the terms."""
    first, *more = aligned(ar, *terms)
    best = first.mid.max(1)
    for term in more:
        ar.spend(term.mid.size, 2, 4)
        best = ar.up(best[:, :, None] + term.mid).max(1)
    return best.max(-1)

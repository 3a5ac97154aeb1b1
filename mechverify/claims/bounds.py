"""Claims about every input: bounds of values, and what is said in terms of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import sympy

from mechverify.claims.box import Box, corners
from mechverify.claims.captured import (
    Lemma,
    compiled,
    model_of,
    no_model,
    row_of,
    same_inputs,
)
from mechverify.claims.conditions import conditions, entries, listed
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError, here
from mechverify.claims.expressions import inequalities
from mechverify.claims.model import CapturedModel, Entry, Site
from mechverify.claims.numbers import array as exactly
from mechverify.claims.numbers import difference
from mechverify.claims.samples import samples
from mechverify.claims.showing import Shown, said, threshold


@dataclass(frozen=True, init=False, repr=False)
class Bounds(Shown):
    """Every entry of `output` is at least `at_least` and at most `at_most`, on every input `over`: a box or ball of
    real inputs, a product of token sets, or both. `output` is a site, or expressions in sympy of entries of sites (as
    `model["pattern"][0, -1, 2]`) and inputs.

    `given` lists conditions on the inputs, in sympy (`x[0] >= x[1]`, x being the domain): of other inputs nothing is
    said. `cases` lists conditions that the proof tells apart first: your own case split. `using` lists lemmas, claims
    Within about whole sites: the bounds are proved from these alone, the sites replaced by what the lemmas say of them.

    Thresholds are numbers for all entries or one for each (nested lists as the site's shape), taken exactly; without
    any, the question is for the tightest bounds that can be proved. Raises ClaimError.
    """

    output: Site
    over: Box
    at_least: list[Fraction] | None
    at_most: list[Fraction] | None
    position: int | None
    given: tuple[str, ...]
    cases: tuple[str, ...]
    lemmas: tuple["Lemma", ...]
    said: str

    def __init__(
        self,
        output,
        *,
        over: Box | Tokens,
        at_least=None,
        at_most=None,
        given=(),
        cases=(),
        using=(),
    ):
        using = list(using) if isinstance(using, Iterable) else [using]
        box, tokens = corners(over)
        given = [*entries(given), *(tokens.given if tokens is not None else [])]
        groups = [conditions("given", given), conditions("cases", cases)]
        if (
            isinstance(output, Entry)
            and len(output.index) == 1
            and output.index[0].is_Integer
        ):
            output = Site(output.model, output.site, int(output.index[0]))
        expressions = [] if isinstance(output, Site) else entries(output)
        model = (
            output.model
            if isinstance(output, Site)
            else model_of([*expressions, *groups[0], *groups[1]])
        )
        if model is not None and not isinstance(model, CapturedModel):
            raise ClaimError(
                'Bounds needs a site of a captured module, such as capture(module, example)["output"]'
            )
        model = model or no_model(box, tokens)
        site, position, shape = (
            row_of(output)
            if isinstance(output, Site)
            else (None, None, (len(expressions),))
        )
        same_inputs(model, box, tokens)
        _usable(using, model, box, tokens)
        site, (given, cases), lemmas = compiled(
            model, site, expressions, box, tokens, groups, using
        )
        site = replace(site, model=site.captured.compared_at(*samples(box, tokens)))
        set_ = object.__setattr__
        set_(self, "said", said(expressions or output))
        set_(self, "lemmas", lemmas)
        set_(self, "given", given)
        set_(self, "cases", cases)
        set_(self, "output", site)
        set_(self, "over", replace(box, tokens=tokens))
        set_(self, "at_least", _numbers("at_least", at_least, shape))
        set_(self, "at_most", _numbers("at_most", at_most, shape))
        for low, high in zip(self.at_least or [], self.at_most or [], strict=False):
            if low > high:
                told = f"{here()}at_least={low} is above at_most={high}"
                raise ClaimError(f"{told}: no value is both; swap them, or give one")
        set_(self, "position", position)

    def described(self) -> list[tuple[str, str]]:
        tokens, reals = self.over.tokens, [a.shape for a in self.over.low]
        over = [f"{tokens.size:,} token sequences"] if tokens is not None else []
        which = (
            f"a union of {len(self.over.boxes):,} boxes" if self.over.boxes else "boxes"
        )
        over += [f"{which} of shapes {', '.join(map(str, reals))}"] if reals else []
        extra = ("given", self.given), ("cases", self.cases), ("using", self.lemmas)
        return [
            ("claim", f"{type(self).__name__}: {self.said}"),
            ("is", threshold(self.at_least, self.at_most)),
            ("over", " and ".join(over)),
            *((name, f"{len(rows)} of them") for name, rows in extra if rows),
            ("model", self.output.model.source),
        ]


@dataclass(frozen=True, init=False, repr=False)
class Within(Bounds):
    """`actual` differs from `expected` by at most `eps`, entry by entry, on every input `over` that satisfies `given`:
    a site or expressions, and what the mechanism says that they are. eps=None asks for the least that can be proved."""

    actual: Site | None  # a whole site
    expected: list
    eps: Fraction | None

    def __init__(
        self,
        actual,
        expected,
        *,
        over: Box | Tokens,
        eps=None,
        given=(),
        cases=(),
        using=(),
    ):
        set_ = object.__setattr__
        set_(
            self,
            "actual",
            actual if isinstance(actual, Site) and actual.position is None else None,
        )
        set_(self, "expected", _alike(expected, len(entries(actual))))
        pairs = zip(
            entries(actual), _alike(expected, len(entries(actual))), strict=True
        )
        (limit,) = _numbers("eps", eps, ()) or [None]
        if limit is not None and limit < 0:
            raise ClaimError(f"eps={eps!r} is negative")
        least, most = (None, None) if limit is None else (-limit, limit)
        set_(self, "eps", limit)
        differences = [difference(a, sympy.sympify(b)) for a, b in pairs]
        super().__init__(
            differences,
            over=over,
            at_least=least,
            at_most=most,
            given=given,
            cases=cases,
            using=using,
        )


@dataclass(frozen=True, init=False, repr=False)
class Holds(Bounds):
    """`predicate` holds on every input `over` that satisfies `given`: inequalities between expressions of entries of
    sites and inputs, And(...) of them, or a list. A margin below zero is what breaks it."""

    def __init__(self, predicate, *, over: Box | Tokens, given=(), cases=(), using=()):
        tokens = corners(over)[1]
        pairs = [
            pair
            for p in conditions("predicate", predicate)
            for pair in inequalities(p, tokens)
        ]
        differences = [difference(high, low) for low, high in pairs]
        super().__init__(
            differences, over=over, at_least=0, given=given, cases=cases, using=using
        )


@dataclass(frozen=True, init=False, repr=False)
class Cases(Bounds):
    """Of the `cases`, conditions on tokens, exactly one holds on every input `over`: they cover it, and exclude each
    other. A counterexample is an input with none, or with several."""

    def __init__(self, *cases, over: Tokens):
        how_many = sympy.Add(
            *(
                sympy.Piecewise((1, case), (0, True))
                for case in conditions("cases", cases)
            )
        )
        super().__init__(
            [how_many], over=over, at_least="1/2", at_most="3/2"
        )  # an integer: rounding never matters


def _usable(using: list, model: CapturedModel, box: Box, tokens: Tokens | None) -> None:
    if using and box.boxes:
        raise ClaimError(
            f"{here()}using= is for one box, the domain is a union: claim each box by itself"
        )
    for lemma in using:
        if not isinstance(lemma, Within) or lemma.actual is None:
            raise ClaimError(
                f"{here()}using= takes claims Within(model[site], mechanism, ...) about whole sites"
            )
        name, other = lemma.actual.name, lemma.over.tokens
        if lemma.actual.model is not model:
            raise ClaimError(f"{here()}the lemma about {name} is of another model")
        alike = (other and (other.symbols, other.allowed)) == (
            tokens and (tokens.symbols, tokens.allowed)
        )
        ends = zip(
            (*lemma.over.low, *lemma.over.high), (*box.low, *box.high), strict=True
        )
        alike &= all(np.array_equal(a, b) for a, b in ends)
        if not alike:
            raise ClaimError(
                f"{here()}the lemma about {name} is over another domain than the claim; use the same `over`"
            )
        if lemma.given or lemma.lemmas:
            raise ClaimError(
                f"{here()}the lemma about {name} has conditions or lemmas of its own; state it without"
            )


def _alike(expected, count: int) -> list:
    """One expression for all entries, or one for each (nested as they are)."""
    expected = listed(expected)
    if not isinstance(expected, Iterable):
        return [expected] * count
    flat = entries(expected)
    if len(flat) != count:
        raise ClaimError(
            f"{here()}expected has {len(flat)} expressions, actual has {count} entries"
        )
    return flat


def _numbers(name: str, value, shape: tuple[int, ...]) -> list[Fraction] | None:
    if value is None:
        return None
    try:
        given = exactly(value)
    except ValueError as error:
        raise ClaimError(f"{name}: {error}") from None
    if given.shape not in ((), shape):
        raise ClaimError(
            f"{name} has shape {given.shape}; give one number, or one for each entry of {shape}"
        )
    return [Fraction(v) for v in np.broadcast_to(given, shape).ravel().tolist()]

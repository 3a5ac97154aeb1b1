"""Claims: a model, a domain, a mechanism, and what must hold between them."""

import copy
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import sympy
from safetensors.numpy import save
from sympy.core.relational import Relational
from sympy.logic import boolalg

from mechverify.claims.box import Box, corners
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.expressions import Expressions, inequalities
from mechverify.claims.language import compile_mechanism
from mechverify.claims.model import CapturedModel, Entry, Model, Site
from mechverify.claims.numbers import array as exactly
from mechverify.claims.numbers import difference, number
from mechverify.claims.samples import samples
from mechverify.claims.showing import Shown, said, threshold
from mechverify.claims.unions import disjoint
from mechverify.graph.capture import Captured
from mechverify.graph.float32 import opened
from mechverify.graph.messages import short
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.core.graph import Graph, entries

WITHIN = Fraction(1, 10_000)  # of a box: how far apart bounds of its share may be


@dataclass(frozen=True, init=False, repr=False)
class Accuracy(Shown):
    """On at least a share `at_least` of the inputs `over`, the decoded `output` equals the mechanism `equals`.

    `output` is a site that is a vector, or a row of one; of a captured module, a list of entries or of expressions of
    entries as well: [0, model["output"][-1, 0]] decodes to 1 where that entry is positive. The decoded output is the
    index of the entry that exceeds every other by more than `margin`: a tie is wrong, and so is a mechanism value that
    is no index. `margin="best"` asks for the largest one that can be proved on the share `at_least`: of the right
    inputs, say, where that is how many there are. `at_least` is a number from 0 to 1, best given as text ("0.999",
    "999/1000"), which is exact (a float is the number that it holds); None (or "best") asks for the best bounds that
    can be proved. `given` lists conditions on tokens: the inputs `over` that satisfy them are all that the claim is
    about. Raises ClaimError.
    """

    output: Site
    equals: sympy.Basic
    over: Tokens
    at_least: Fraction | None
    position: int | None
    rows: list[list]
    margin: Fraction | None
    given: list[list]

    def __init__(
        self, output, *, equals, over: Tokens, at_least=None, margin: Any = 0, given=()
    ):
        if (
            isinstance(output, Site)
            and not isinstance(output.model, CapturedModel)
            and isinstance(over, Tokens)
        ):
            position = _known_vector(output, output.model, over)
        else:
            output, position = _captured_vector(output, over)
        if isinstance(equals, str):
            raise ClaimError(
                f"equals={equals!r} is text; write the expression itself, with the tokens of `over`"
            )
        set_ = object.__setattr__
        set_(self, "output", output)
        set_(self, "equals", sympy.sympify(equals))
        set_(self, "over", over)
        set_(self, "at_least", _share(at_least))
        set_(self, "margin", _margin(margin))
        set_(self, "given", _guard([*_entries(given), *over.given], over))
        if self.margin is None and not self.at_least:
            raise ClaimError(
                'margin="best" asks for a margin on a share of the inputs: say at_least=1, or the share'
            )
        set_(self, "position", position)
        set_(self, "rows", compile_mechanism(self.equals, over))

    def described(self) -> list[tuple[str, str]]:
        margin = (
            "" if self.margin == 0 else f", by more than {self.margin or 'the best'}"
        )
        output = f"{self.output.name}{'' if self.position is None else [self.position]}"
        return [
            ("claim", f"Accuracy: argmax {output} = {self.equals}{margin}"),
            ("on", f"{_of_all(self.at_least)} {self.over.size:,} inputs"),
            ("model", self.output.model.source),
        ]

    def by_leads(self) -> "Share":
        """The same claim of a captured module, as a Share: the mechanism's value is an output, and leads
        every other by more than the margin. Raises ClaimError where the margin is asked for."""
        if self.margin is None:
            raise ClaimError(
                f'{_here()}margin="best" is for semantics real: state the margin'
            )
        output: Any = Site(self.output.model, self.output.name, self.position)
        last, m = output.shape[0] - 1, self.equals
        lead = output[sympy.Max(0, sympy.Min(m, last))]
        equal: Any = sympy.Eq
        leads = [
            sympy.Or(equal(m, t), lead - output[t] > self.margin)
            for t in range(last + 1)
        ]
        right = sympy.And(sympy.Ge(m, 0), sympy.Le(m, last), *leads)
        share = Share(right, over=self.over, at_least=self.at_least)
        object.__setattr__(share, "given", self.given)
        return share

    def changed(self, **fields: Any) -> "Accuracy":
        """The same claim with another margin, or threshold."""
        changed = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(changed, name, value)
        return changed


@dataclass(frozen=True, init=False, repr=False)
class Share(Shown):
    """On at least a share `at_least` of the inputs `over`, the condition holds: on entries of a captured model's sites
    and inputs, as conditions of Bounds are, or one whose relations of real values are all strict.

    A share of token sequences is counted; of a box, it is its volume, or the mass that its `distribution` gives it; of
    a box with tokens, the mean over all sequences. `at_least` is as in Accuracy, and so is `given`, on tokens alone,
    also beside a box; without a threshold, bounds of a share of a box are sought until they are `within` that of each
    other. Raises ClaimError.
    """

    output: Site
    over: Box | Tokens
    at_least: Fraction | None
    position: None
    strict: bool
    within: Fraction
    given: list[list]
    said: str

    def __init__(
        self,
        condition,
        *,
        over: Box | Tokens,
        at_least=None,
        within: Any = WITHIN,
        given=(),
    ):
        object.__setattr__(self, "said", said(condition))
        condition, (box, sequences) = _both("condition", condition), corners(over)
        if any(b.inner is not None for b in box.each):
            what = "a corner of the box is no float64, and of another box the share is another one"
            raise ClaimError(
                f"{_here()}{what}: give corners that are, as float('0.1') is"
            )
        asked, own = _entries(given), set(sequences or ())
        if box.low and any(
            sequences is None or c.atoms(Entry) or c.free_symbols - own for c in asked
        ):
            what = (
                "given= of a share is for tokens alone, of a box it has no known mass"
            )
            raise ClaimError(
                f"{_here()}{what}: put it into the claim, as Share(And(..), ..) or Share(Implies(..), ..)"
            )
        model = _model_of([condition]) or _no_model(box, sequences)
        _same_inputs(model, box, sequences)
        captured = model.captured
        graph, sites = opened(captured.graph), dict(captured.sites)
        graph.values = (0,) if sequences is None else sequences.values
        compiler = Expressions(graph, captured.sites, box, sequences)
        node, strict = compiler.condition(condition)
        compiler.finish(_here())
        name = _free(sites, "claimed")
        sites[name] = node
        changed = replace(model, captured=replace(captured, graph=graph, sites=sites))
        set_ = object.__setattr__
        set_(self, "output", Site(changed.compared_at(*samples(box, sequences)), name))
        set_(self, "over", disjoint(over) if isinstance(over, Box) else over)
        set_(self, "at_least", _share(at_least))
        set_(self, "position", None)
        set_(self, "strict", strict)
        set_(self, "within", number(within))
        conditions = [] if sequences is None else [*asked, *sequences.given]
        set_(
            self,
            "given",
            _guard(conditions, sequences) if sequences is not None else [],
        )

    def described(self) -> list[tuple[str, str]]:
        of = (
            f"{self.over.size:,} inputs"
            if isinstance(self.over, Tokens)
            else _boxes(self.over)
        )
        return [
            ("claim", f"Share: {self.said}"),
            ("on", f"{_of_all(self.at_least)} {of}"),
            ("model", self.output.model.source),
        ]


def _boxes(over: Box) -> str:
    return f"a union of {len(over.boxes):,} boxes" if over.boxes else "a box"


def _of_all(share: Fraction | None) -> str:
    return "as many as can be proved of" if share is None else f"at least {share} of"


def _known_vector(output: Site, model: Model, over: Tokens) -> int | None:
    """The position at which a known architecture's output is read."""
    length, position = len(over), output.position
    if position is not None:
        position = position + length if position < 0 else position
        if not 0 <= position < length:
            raise ClaimError(
                f"{output.name}[{output.position}]: the sequences have length {length}"
            )
    if length > model.n_ctx or len(over.values) > model.d_vocab:
        raise ClaimError(
            f"sequences of length {length} over {len(over.values)} tokens don't fit {model.source} "
            f"({model.n_ctx} positions, {model.d_vocab} tokens)"
        )
    rows, alone = _vector_sites(model, length)
    if output.name not in (alone if position is None else rows):
        if position is None and output.name in rows:
            raise ClaimError(
                f"say at which position {output.name} is read, as in {output.name}[-1]"
            )
        ones = [*(f"{name}[-1]" for name in rows), *alone]
        raise ClaimError(
            f"{output.name} is not one vector of outputs; read one of: {', '.join(ones)}"
        )
    return position


def _captured_vector(output, over: Tokens) -> tuple[Site, int | None]:
    """The site, in a captured model compared with its module on the claim's domain, and the row that is read."""
    expressions = (
        []
        if isinstance(output, Site)
        else _entries(output)
        if isinstance(output, Iterable)
        else []
    )
    model = output.model if isinstance(output, Site) else _model_of(expressions)
    if not isinstance(model, CapturedModel) or not isinstance(over, Tokens):
        raise ClaimError('Accuracy needs a model\'s site, such as model.logits[-1] of transformer(weights) or '
                         'model["output"][-1] of capture(module, example), and over=tokens(...)')  # fmt: skip
    if shapes := model.captured.inputs:
        what = f"{model.source} reads real inputs, of shapes {shapes}; Accuracy counts sequences of tokens alone"
        raise ClaimError(f"{_here()}{what}: ask for Bounds or Holds")
    _same_inputs(model, Box((), ()), over)
    site, position = None, None
    if isinstance(output, Site):
        site, position, shape = _row_of(output)
        name = output.name if position is None else f"{output.name}[{output.position}]"
        if len(shape) != 1:
            row = (
                f"; say which row is read, as in {name}[-1]"
                if len(shape) == 2 and position is None
                else ""
            )
            raise ClaimError(
                f"{_here()}{name} has shape {shape}, which is not one vector of outputs{row}"
            )
    if (
        site is not None
        and model.captured.graph.nodes[model.captured.sites[site.name]].kind != "real"
    ):
        raise ClaimError(f"{_here()}{site.name} are ids, not a vector of outputs")
    site, _, _ = _compiled(model, site, expressions, Box((), ()), over, [[], []], [])
    return replace(
        site, model=site.captured.compared_at(*samples(Box((), ()), over))
    ), position


def _same_inputs(model: CapturedModel, box: Box, tokens: Tokens | None) -> None:
    """The domain has the inputs that the model reads."""
    captured, shapes = model.captured, tuple(a.shape for a in box.low)
    if shapes != captured.inputs:
        need = (
            f"real inputs of shapes {captured.inputs}"
            if captured.inputs
            else "no real inputs"
        )
        hint = "; give one box for each input, in its shape without the batch axis"
        hint = hint if captured.inputs else ": over=tokens(...)"
        raise ClaimError(
            f"{model.source} reads {need}, the domain has inputs of shapes {shapes}{hint}"
        )
    length, vocab = (0, 0) if tokens is None else (len(tokens), len(tokens.values))
    if (length, vocab) != (captured.tokens_length, captured.vocab):
        need = f"{captured.tokens_length} tokens of {captured.vocab}"
        hint = f"tokens('x', length={captured.tokens_length}, vocab={captured.vocab})"
        raise ClaimError(
            f"{model.source} reads {need}, the domain has {length} of {vocab}: {hint}"
        )


def _row_of(site: Site) -> tuple[Site, int | None, tuple[int, ...]]:
    """A captured model's site, which row of it is meant, and the shape of that."""
    shape, position = site.captured.shape(site.name), site.position
    if position is None:
        return site, None, shape
    if not shape or not -shape[0] <= position < shape[0]:
        name = f"{site.name}[{position}]"
        raise ClaimError(
            f"{_here()}{name}: the site has shape {shape}; indices count from 0"
        )
    return site, position % shape[0], shape[1:]


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
        given = [*_entries(given), *(tokens.given if tokens is not None else [])]
        groups = [_conditions("given", given), _conditions("cases", cases)]
        if (
            isinstance(output, Entry)
            and len(output.index) == 1
            and output.index[0].is_Integer
        ):
            output = Site(output.model, output.site, int(output.index[0]))
        expressions = [] if isinstance(output, Site) else _entries(output)
        model = (
            output.model
            if isinstance(output, Site)
            else _model_of([*expressions, *groups[0], *groups[1]])
        )
        if model is not None and not isinstance(model, CapturedModel):
            raise ClaimError(
                'Bounds needs a site of a captured module, such as capture(module, example)["output"]'
            )
        model = model or _no_model(box, tokens)
        site, position, shape = (
            _row_of(output)
            if isinstance(output, Site)
            else (None, None, (len(expressions),))
        )
        _same_inputs(model, box, tokens)
        _usable(using, model, box, tokens)
        site, (given, cases), lemmas = _compiled(
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
                told = f"{_here()}at_least={low} is above at_most={high}"
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
        set_(self, "expected", _alike(expected, len(_entries(actual))))
        pairs = zip(
            _entries(actual), _alike(expected, len(_entries(actual))), strict=True
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
            for p in _conditions("predicate", predicate)
            for pair in inequalities(p, tokens)
        ]
        differences = [difference(high, low) for low, high in pairs]
        super().__init__(
            differences, over=over, at_least=0, given=given, cases=cases, using=using
        )


@dataclass(frozen=True)
class Lemma:
    """A site and a mechanism, both by the names of sites, and by how much they differ at most; None: as proved."""

    site: str
    mechanism: str
    eps: Fraction | None


def _usable(using: list, model: CapturedModel, box: Box, tokens: Tokens | None) -> None:
    if using and box.boxes:
        raise ClaimError(
            f"{_here()}using= is for one box, the domain is a union: claim each box by itself"
        )
    for lemma in using:
        if not isinstance(lemma, Within) or lemma.actual is None:
            raise ClaimError(
                f"{_here()}using= takes claims Within(model[site], mechanism, ...) about whole sites"
            )
        name, other = lemma.actual.name, lemma.over.tokens
        if lemma.actual.model is not model:
            raise ClaimError(f"{_here()}the lemma about {name} is of another model")
        alike = (other and (other.symbols, other.allowed)) == (
            tokens and (tokens.symbols, tokens.allowed)
        )
        ends = zip(
            (*lemma.over.low, *lemma.over.high), (*box.low, *box.high), strict=True
        )
        alike &= all(np.array_equal(a, b) for a, b in ends)
        if not alike:
            raise ClaimError(
                f"{_here()}the lemma about {name} is over another domain than the claim; use the same `over`"
            )
        if lemma.given or lemma.lemmas:
            raise ClaimError(
                f"{_here()}the lemma about {name} has conditions or lemmas of its own; state it without"
            )


@dataclass(frozen=True, init=False, repr=False)
class Cases(Bounds):
    """Of the `cases`, conditions on tokens, exactly one holds on every input `over`: they cover it, and exclude each
    other. A counterexample is an input with none, or with several."""

    def __init__(self, *cases, over: Tokens):
        how_many = sympy.Add(
            *(
                sympy.Piecewise((1, case), (0, True))
                for case in _conditions("cases", cases)
            )
        )
        super().__init__(
            [how_many], over=over, at_least="1/2", at_most="3/2"
        )  # an integer: rounding never matters


def _conditions(name: str, value) -> list[Any]:
    """A condition or several. Python compares `a == b` and `a != b` at once, which leaves nothing of them to prove."""
    found = _entries(value)
    for i, condition in enumerate(found):
        if condition in (sympy.true, sympy.false):
            hint = "write Eq(a, b) for a == b, and Ne(a, b) for a != b"
            raise ClaimError(
                f"{_here()}{name}, number {i + 1}, is just {condition}, whatever the input; {hint}"
            )
    return found


def _both(name: str, value) -> sympy.Basic:
    """A condition, or several that hold together, as one."""
    parts = _conditions(name, value)
    for part in parts:
        if not isinstance(
            part, Relational | boolalg.BooleanFunction | boolalg.BooleanAtom
        ):
            raise ClaimError(
                f"{_here()}{name}: {short(part)} is no condition; say >, Eq, And, ..."
            )
    return parts[0] if len(parts) == 1 else boolalg.And(*parts)


def _guard(given, over: Tokens) -> list[list]:
    """Rows of what `given` says of the tokens; none if it says nothing."""
    if not _entries(given):
        return []
    condition = _both("given", given)
    if condition.atoms(Entry):
        what = "given= of a claim that counts takes conditions on tokens, whose number is known exactly"
        raise ClaimError(
            f"{_here()}{what}; put those on the model's values into the claim: Share(And(..), ..)"
        )
    return compile_mechanism(condition, over)


def _no_model(box: Box, tokens: Tokens | None) -> CapturedModel:
    """For claims that speak of the domain alone."""
    length, values = (0, (0,)) if tokens is None else (len(tokens), tokens.values)
    shapes = tuple(a.shape for a in box.low)
    captured = Captured(
        Graph(length, values),
        {},
        {},
        shapes,
        length,
        len(values) if tokens else 0,
        0,
        0.0,
    )
    return CapturedModel(captured, "no model", save({}))


def _entries(value) -> list[Any]:
    """A site's entries in row-major order, or expressions: one, or as nested lists and arrays hold them."""
    if isinstance(value, Site):
        if not isinstance(value.model, CapturedModel):
            raise ClaimError(
                f"{value.name}: a claim about sites needs a captured module"
            )
        first = () if value.position is None else (value.position,)
        return [value.entry((*first, *index)) for index in np.ndindex(*value.shape)]
    value = _listed(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [entry for v in value for entry in _entries(v)]
    return [sympy.sympify(value)]


def _listed(value):
    """An array of numpy, torch or sympy as nested lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _alike(expected, count: int) -> list:
    """One expression for all entries, or one for each (nested as they are)."""
    expected = _listed(expected)
    if not isinstance(expected, Iterable):
        return [expected] * count
    flat = _entries(expected)
    if len(flat) != count:
        raise ClaimError(
            f"{_here()}expected has {len(flat)} expressions, actual has {count} entries"
        )
    return flat


def _here() -> str:
    """The line of the user's file that makes the claim."""
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").startswith("mechverify."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}: " if frame else ""


def _model_of(expressions: list) -> CapturedModel | None:
    """The model whose entries they speak of."""
    entries = [e for x in expressions for e in sympy.sympify(x).atoms(Entry)]
    if len({id(e.model) for e in entries}) > 1:
        raise ClaimError("a claim speaks of entries of one model; these are of several")
    return entries[0].model if entries else None


def _compiled(
    model: CapturedModel, site: Site | None, expressions: list, box: Box, tokens: Tokens | None, groups: list[list],
    using: list,
) -> tuple[Site, list[tuple[str, ...]], tuple[Lemma, ...]]:  # fmt: skip
    """The site that is claimed about, in a model whose graph has the expressions, conditions and mechanisms as sites of
    their own; the conditions' names; and the lemmas."""
    if site is not None and not any(groups) and not using:
        return site, [() for _ in groups], ()
    captured = model.captured
    graph, sites, names = opened(captured.graph), dict(captured.sites), []
    graph.values = (0,) if tokens is None else tokens.values
    compiler = Expressions(graph, captured.sites, box, tokens)
    for kind, group in zip(("given", "case"), groups, strict=True):
        found = {
            _free(sites, kind, i): n
            for i, n in enumerate(dict.fromkeys(compiler.conditions(group)))
        }
        names.append(tuple(found))
        sites |= found
    nodes, lemmas = compiler.values(expressions), []
    for i, lemma in enumerate(using):
        about = sites[lemma.actual.name] = _reshaped(graph, sites[lemma.actual.name])
        shape = graph.nodes[about].shape
        rows = [
            graph.add("view", n, attr=((1,), 0, (0,)))
            for n in compiler.values(lemma.expected)
        ]
        steps = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        mechanism = _free(sites, "lemma", i)
        sites[mechanism] = graph.add(
            "view", graph.add("concat", *rows, attr=0), attr=(shape, 0, steps)
        )
        lemmas.append(Lemma(lemma.actual.name, mechanism, lemma.eps))
    compiler.finish(_here())
    if site is None and not nodes:
        raise ClaimError("nothing is claimed: give an expression")
    name = _free(sites, "claimed") if site is None else site.name
    if site is None:
        rows = [graph.add("view", node, attr=((1,), 0, (0,))) for node in nodes]
        sites[name] = graph.add("concat", *rows, attr=0)
    changed = replace(model, captured=replace(captured, graph=graph, sites=sites))
    return (
        Site(changed, name, None if site is None else site.position),
        names,
        tuple(lemmas),
    )


def _reshaped(graph: Graph, n: int) -> int:
    """The node whose entries a node shows in another shape alone: what the model goes on with."""
    while graph.nodes[n].op == "view":
        (source,) = graph.nodes[n].args
        if not np.array_equal(
            entries(graph.nodes[n].attr).ravel(),
            np.arange(prod(graph.nodes[source].shape)),
        ):
            break
        n = source
    return n


def _free(sites: dict[str, int], kind: str, number: int | None = None) -> str:
    """A name for what the claim adds to the graph, which the module hasn't given to a value of its own. It says nothing
    of what it names: the kernel reads that off the graph."""
    name = kind if number is None else f"{kind}.{number + 1}"
    while name in sites:
        name = f"claim.{name}"
    return name


def _numbers(name: str, value, shape: tuple[int, ...]) -> list[Fraction] | None:
    if value is None:
        return None
    try:
        entries = exactly(value)
    except ValueError as error:
        raise ClaimError(f"{name}: {error}") from None
    if entries.shape not in ((), shape):
        raise ClaimError(
            f"{name} has shape {entries.shape}; give one number, or one for each entry of {shape}"
        )
    return [Fraction(v) for v in np.broadcast_to(entries, shape).ravel().tolist()]


def _vector_sites(model: Model, length: int) -> tuple[list[str], list[str]]:
    """Sites of shape [positions, width], whose rows can be decoded, and those of shape [width]."""
    graph = Graph(length, tuple(range(model.d_vocab)))
    sites = ARCHITECTURES[model.architecture](graph, model.tensors)
    shapes = {name: graph.nodes[node].shape for name, node in sites.items()}
    rows = [
        name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == length
    ]
    return rows, [
        name
        for name, node in sites.items()
        if len(shapes[name]) == 1 and graph.nodes[node].kind == "real"
    ]


def _margin(value) -> Fraction | None:
    if isinstance(value, str) and value == "best":
        return None
    try:
        margin = number(value)
    except ValueError as error:
        raise ClaimError(f"margin: {error}; use 0.25, 1/4 or best") from None
    if margin < 0:
        raise ClaimError(f"margin={value!r} is negative")
    return margin


def _share(value) -> Fraction | None:
    if value is None or (isinstance(value, str) and value == "best"):
        return None
    try:
        share = number(value)
    except ValueError as error:
        raise ClaimError(f"at_least: {error}; use 0.999, 999/1000 or best") from None
    if not 0 <= share <= 1:
        raise ClaimError(f"at_least={value!r} must lie between 0 and 1")
    return share

"""A theorem's sentence: everything that it depends on, as named parts that every other module only formats.

Numbers are exact, or rounded towards the weaker statement and said to be. Formulas are read off the graph. What the
file merely asserts stands apart. Nothing that a file calls itself or its parts can add a line or change one.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from hashlib import sha256
from math import inf, prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.check import AXIOMS
from mechverify.kernel.core.accuracy import AccuracyTheorem
from mechverify.kernel.core.architectures import ASSUMED
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Claim, Theorem
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64, float_below
from mechverify.kernel.core.ranges import ProvedLemma, Range, RangeClaim, RangeTheorem
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.words import FIRST, about, listed, name, number, printable, quoted, runs, share
from mechverify.kernel.statement.formula import VOCABULARY, Formulas, Listing

SHOWN = 4  # replayed inputs
NOTHING = Fraction(1, 10**300)  # numbers below it are about zero
MEANING = {
    "real": "exact real arithmetic on these exact weights",
    "float32": "every float32 evaluation of the model, in any summation order",
}
Rows = list[tuple[str, str]]


class Statement(NamedTuple):
    """`subject` is the value that is claimed about, `claim` what of it; `equals`, `margin` and `threshold` are parts of
    that. `given` are conditions, `lemmas` pairs of a site and what was proved of it; `asserted` is what the file says
    and nobody checked; `proved` the numbers that were proved, `examples` inputs that were replayed, both with their
    labels."""

    verdict: str
    claim: str
    subject: str
    equals: str | None
    margin: str
    threshold: str
    domain: tuple[str, ...]
    given: tuple[str, ...]
    lemmas: tuple[tuple[str, str], ...]
    model: str
    assumed: tuple[str, ...]
    asserted: tuple[str, ...]
    proved: tuple[tuple[str, str], ...]
    semantics: str
    axioms: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]

    def rows(self) -> Rows:
        """(label, text), each a line; `examples` apart."""
        return [
            ("verdict", self.verdict),
            ("claim", self.claim),
            *(("domain", text) for text in self.domain),
            *(("given", text) for text in self.given),
            *(("lemma", text) for _, text in self.lemmas),
            ("model", self.model),
            *(("assumed", text) for text in self.assumed),
            *(("the file says", text) for text in self.asserted),
            *self.proved,
            ("semantics", self.semantics),
            *(("axiom", text) for text in self.axioms or ["none"]),
        ]


def state(theorem: Theorem) -> Statement:
    if isinstance(theorem, AccuracyTheorem):
        return _accuracy(theorem)
    assert isinstance(theorem, RangeTheorem)  # there are two kinds
    return _bounds(theorem)


def listing(theorem: Theorem) -> Listing:
    """The nodes of the graph that the sentence speaks of, and all that they need; a mechanism's come first."""
    if isinstance(theorem, AccuracyTheorem):
        claim = theorem.claim
        return Listing(claim.graph, [claim.sites[claim.site], claim.target])
    assert isinstance(theorem, RangeTheorem)  # there are two kinds
    claim = theorem.claim
    lemmas = {claim.sites[s] for lemma in theorem.lemmas for s in lemma[:2]}
    return Listing(claim.graph, [*{claim.sites[claim.site], *claim.where, *lemmas}])


def digest(nodes: Listing) -> str:
    """Of the listing's lines, each with a line feed."""
    whole = sha256()
    for line in nodes.lines():
        whole.update(f"{line}\n".encode())
    return whole.hexdigest()


def _graph(nodes: Listing) -> str:
    return f"graph of {len(nodes.nodes)} nodes, sha256 {digest(nodes)}"


def _common(theorem: Theorem) -> dict:
    claim = theorem.claim
    return {
        "verdict": theorem.verdict,
        "semantics": f"{claim.semantics} ({MEANING[claim.semantics]})",
        "axioms": tuple(f"{axiom}: {AXIOMS[axiom]}" for axiom in theorem.axioms),
        "domain": domain(claim),
    }


# --- The domain -------------------------------------------------------------------------------------------------------


def domain(claim: Claim) -> tuple[str, ...]:
    """The token sequences, and the box of each real input."""
    d, texts = claim.domain, []
    if d.length:
        texts.append(_sequences(claim))
    start = 0
    for k, shape in enumerate(claim.shapes):
        ends = zip(*(end[start : start + prod(shape)].tolist() for end in (d.low, d.high)), strict=True)
        box = listed(runs([_interval(*e) for e in ends]), separator=" x ")
        texts.append(f"input{k} of shape {_shape(shape)} in {box}")
        start += prod(shape)
    return tuple(texts)


def _sequences(claim: Claim) -> str:
    d, values = claim.domain, claim.graph.values
    vocab, size = len(values), f"{d.size:,}"
    full = all(len(t) == vocab for t in d.tokens)
    size = f"all {vocab}^{d.length} = {size}" if full else size
    symbols = f"x0 .. x{d.length - 1}" if d.length > 1 else "x0"
    sets = "" if full else f", with ids {listed(runs([_ids(t) for t in d.tokens]), separator=' x ')}"
    meaning = "" if values == tuple(range(vocab)) else f"; ids from 0 mean [{listed(values)}]"
    return f"{size} sequences {symbols} over {vocab} tokens{sets}{meaning}"


def _ids(tokens: tuple[int, ...]) -> str:
    """A set of ascending ids; three neighbours and more as `first..last`."""
    ids = np.array(tokens)
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 2) != 1)
    parts: list[str] = []
    for first, last in zip(ids[starts].tolist(), ids[[*(starts[1:] - 1), -1]].tolist(), strict=True):
        parts += [f"{first}..{last}"] if last > first + 1 else map(str, dict.fromkeys((first, last)))
    return f"{{{listed(parts, separator=',')}}}"


def _interval(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]"


def _shape(shape: Iterable[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _coordinates(claim: Claim) -> list[str]:
    """The names of all real inputs' coordinates."""
    return [f"input{k}[{', '.join(map(str, at))}]" if shape else f"input{k}"
            for k, shape in enumerate(claim.shapes) for at in np.ndindex(*shape)]  # fmt: skip


def _part(claim: Claim, part: Domain) -> str:
    """Where a part of the domain is smaller than all of it."""
    sets = enumerate(zip(part.tokens, claim.domain.tokens, strict=True))
    here = [f"the id of x{i} in {_ids(ids)}" for i, (ids, whole) in sets if ids != whole]
    cut = np.flatnonzero((part.low != claim.domain.low) | (part.high != claim.domain.high)).tolist()
    names = _coordinates(claim) if cut else []
    here += [f"{names[i]} in {_interval(float(part.low[i]), float(part.high[i]))}" for i in cut]
    return f"where {listed(here, separator=' and ')}" if here else "everywhere in the domain"


# --- Accuracy ---------------------------------------------------------------------------------------------------------


def _accuracy(theorem: AccuracyTheorem) -> Statement:
    claim, right, total = theorem.claim, theorem.right, theorem.claim.domain.size
    subject, equals, shared, about_model = _decoded(theorem)
    margin = f", by more than {number(claim.margin)}" if claim.margin else ""
    least = "" if claim.at_least is None else f"at least {claim.at_least.numerator}/{claim.at_least.denominator}"
    threshold = f", on {least} of them" if least else ""
    return Statement(
        **_common(theorem),
        claim=f"strict argmax {subject} = {equals}{margin}{threshold}{_where(shared)}",
        subject=subject,
        equals=equals + _where(shared),
        margin=number(claim.margin),
        threshold=least,
        given=(),
        lemmas=(),
        **about_model,
        proved=(
            ("right, at least", f"{right.low:,}  ({share(right.low, total, up=False)} of all, rounded down)"),
            ("right, at most", f"{right.high:,}  ({share(right.high, total, up=True)} of all, rounded up)"),
        ),
        examples=tuple(("wrong on", _wrong(w)) for w in counterexamples(theorem)),
    )


def _decoded(theorem: AccuracyTheorem) -> tuple[str, str, list[str], dict]:
    """The output, the mechanism and the parts that both share; and what is said of the model."""
    claim = theorem.claim
    place = "" if claim.position is None else f"[{claim.position}]"
    if claim.captured:
        n, roots, nodes = claim.sites[claim.site], added(claim), listing(theorem)
        formulas = Formulas(nodes, _names(claim, nodes, {n} if roots else set()))
        (*texts, equals), shared = formulas.write([*(roots or [n]), claim.target])
        whole = f"[{', '.join(texts)}]" if roots else texts[0]
        if texts == [nodes.name(r) for r in roots or [n]]:  # together they are too long
            whole = nodes.name(n) if roots else formulas.write([n])[0][0]
            (equals,), shared = formulas.write([claim.target])
        said = {"model": f"{_graph(nodes)}, weights sha256 {claim.weights_sha256}", "assumed": (),
                "asserted": (*_asserted(claim), *_named(formulas, nodes))}  # fmt: skip
        return f"{whole}{place}", equals, shared, said
    nodes = Listing(claim.graph, [claim.target])  # the model's graph follows from architecture and weights
    (equals,), shared = Formulas(nodes, {}).write([claim.target])
    if equals == nodes.name(claim.target):
        equals += f" of a {_graph(nodes)}"
    said = {"model": f"{claim.architecture}, weights sha256 {claim.weights_sha256}",
            "assumed": ASSUMED[claim.architecture], "asserted": ()}  # fmt: skip
    return f"{claim.site}{place}", equals, shared, said


def _where(shared: list[str]) -> str:
    return f", where {', '.join(shared)}" if shared else ""


class Counterexample(NamedTuple):
    """`decoded`: the output whose enclosure has the largest centre, `sure` where it surely is the largest; `lead`: of
    the mechanism's output over the best other one, about; None where it is no output."""

    tokens: list[int]
    expected: int
    decoded: int
    lead: float | None
    sure: bool


def counterexamples(theorem: AccuracyTheorem) -> list[Counterexample]:
    """Some inputs that the kernel replayed: each is surely wrong."""
    claim, found = theorem.claim, []
    for tokens in theorem.wrong[:SHOWN]:
        values = Evaluation(claim.graph, claim.weights, Real(Float64()), tokens[None])
        m = int(np.broadcast_to(values[claim.target], 1)[0])
        (logits,) = _values(claim, [claim.output], tokens, clear=_has_a_largest)
        best = logits.centre.index(max(logits.centre))
        sure = _has_a_largest(logits) and claim.semantics == "real"
        lead = _near(logits.centre[m] - max(_others(logits.centre, m))) if 0 <= m < claim.outputs > 1 else None
        found.append(Counterexample(tokens.tolist(), m, best, lead, sure))
    return found


class Value(NamedTuple):
    """Of a node's entries: near which number each is, and between which."""

    centre: list[Fraction]
    low: list[Fraction]
    high: list[Fraction]


def _has_a_largest(value: Value) -> bool:
    best = value.centre.index(max(value.centre))
    return len(value.centre) == 1 or value.low[best] > max(_others(value.high, best))


def _values(
    claim: Claim, nodes: Sequence[int], tokens: np.ndarray, inputs: Sequence[np.ndarray] = (),
    clear: Callable[[Value], bool] = lambda value: True,
) -> list[Value]:  # fmt: skip
    """Of nodes at one input; in exact arithmetic, as the kernel replays it, where one overflows in float64 or isn't
    `clear` there."""
    with np.errstate(all="ignore"):
        try:
            rounded = _evaluated(claim, nodes, tokens, inputs, Float64())
        except (Rejected, OverflowError, ValueError):  # the latter two: of what is no number
            return _evaluated(claim, nodes, tokens, inputs, Exact())
        if all(map(clear, rounded)):
            return rounded
        try:
            return _evaluated(claim, nodes, tokens, inputs, Exact())
        except Rejected:  # its numbers would be too long
            return rounded


def _evaluated(
    claim: Claim, nodes: Sequence[int], tokens: np.ndarray, inputs: Sequence[np.ndarray], ar: Arithmetic
) -> list[Value]:
    values, found = Evaluation(claim.graph, claim.weights, Real(ar), tokens[None], inputs=inputs), []
    for n in nodes:
        ball, size = values[n], prod(claim.graph.nodes[n].shape)
        unit = Fraction(2) ** ball.exponent
        ends = ball.map(np.ravel).mid, ar.lower(ball).ravel(), ar.upper(ball).ravel()
        lists = [np.broadcast_to(end, size).tolist() for end in ends]
        found.append(Value(*([Fraction(v) * unit for v in numbers] for numbers in lists)))
    return found


def _around(low: Fraction, high: Fraction) -> str:
    """What two ends agree in, of seven digits; nothing where that is less than two."""
    if max(abs(low), abs(high)) < NOTHING:
        return "0"
    for digits in range(7, 1, -1):
        least, most = (f"{_near(end):.{digits}g}" for end in (low, high))
        if least == most:
            return least.replace("e+", "e")  # as other numbers are written
    return ""


def _near(value: Fraction) -> float:
    """A finite float64."""
    return max(float_below(value), -np.finfo(np.float64).max)


def _others(values: list[Fraction], i: int) -> list[Fraction]:
    return [*values[:i], *values[i + 1 :]]


def _wrong(w: Counterexample) -> str:
    says = f"[{listed(w.tokens)}]: the mechanism says {w.expected}, the model"
    if w.decoded == w.expected:
        return f"{says} the same, by about {w.lead:.9g}"
    return f"{says} {w.decoded}" if w.sure else f"{says} about as much {w.decoded}"


# --- Bounds -----------------------------------------------------------------------------------------------------------


def _bounds(theorem: RangeTheorem) -> Statement:
    claim, nodes = theorem.claim, listing(theorem)
    own = {n for n in claim.where if claim.graph.nodes[n].shape == ()}
    own |= {claim.sites[lemma.mechanism] for lemma in theorem.lemmas}
    own |= {claim.sites[claim.site]} if added(claim) else set()
    formulas = Formulas(nodes, _names(claim, nodes, own))
    subject, shared = _subject(claim, formulas)
    count = "" if claim.outputs == 1 else f", {claim.outputs} entries"
    threshold = _thresholds(claim)
    what = f"every entry {threshold}" if threshold else "the range of"
    given = tuple(_condition(claim, formulas, n) for n in claim.where)
    examples = tuple(("broken at", text) for text in _told(theorem, formulas))
    lemmas = tuple(_lemma(claim, formulas, lemma) for lemma in theorem.lemmas)
    return Statement(
        **_common(theorem),
        claim=f"{what}: {subject}{count}{_where(shared)}" if threshold else f"{what} {subject}{count}{_where(shared)}",
        subject=subject,
        equals=None,
        margin="",
        threshold=threshold,
        given=given,
        lemmas=lemmas,
        model=f"{_graph(nodes)}, weights sha256 {claim.weights_sha256}",
        assumed=(),
        asserted=(*_asserted(claim), *_named(formulas, nodes)),  # once all that has names is written
        proved=(*_satisfied(theorem), *_range(theorem)),
        examples=examples,
    )


def _names(claim: Claim, nodes: Listing, own: set[int]) -> dict[int, str]:
    """How the model's own values are called: as the file calls them, or by their number. What was added for the claim,
    `own`, is taken apart instead."""
    found: dict[int, str] = {}
    for text in (*claim.sites, claim.site):  # of several names the claim's, else the last without quotes
        n, said = claim.sites[text], name(text, VOCABULARY)
        if n in nodes.number and n not in own and claim.graph.nodes[n].kind == "real":
            if said and not (said.startswith("'") and n in found):
                found[n] = said
            found.setdefault(n, nodes.name(n))
    return {n: text for n, text in found.items() if claim.graph.nodes[n].op != "input"}


def added(claim: Claim) -> list[int]:
    """The entries' nodes, where the claim is about a list of expressions."""
    node = claim.graph.nodes[claim.sites[claim.site]]
    if claim.position is not None:
        return []
    return _entries(claim, claim.sites[claim.site]) if node.op == "concat" else []


def _entries(claim: Claim, n: int) -> list[int]:
    """The nodes that a concatenation lists one by one."""
    nodes = claim.graph.nodes
    if any(nodes[a].shape != (1,) for a in nodes[n].args):
        return []
    return [nodes[a].args[0] if nodes[a].op == "view" and nodes[nodes[a].args[0]].shape == () else a
            for a in nodes[n].args]  # fmt: skip


def _subject(claim: RangeClaim, formulas: Formulas) -> tuple[str, list[str]]:
    n = claim.sites[claim.site]
    if roots := added(claim):
        return _list(formulas, n, roots)
    (text,), shared = formulas.write([n])
    return (text if claim.position is None else f"{text}[{claim.position}]"), shared


def _list(formulas: Formulas, n: int, roots: list[int]) -> tuple[str, list[str]]:
    """`[a, b]`, or `a` alone; the node's number where that is too long."""
    texts, shared = formulas.write(roots)
    if texts == [formulas.listing.name(r) for r in roots]:
        return formulas.listing.name(n), []
    return (texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"), shared


def _thresholds(claim: RangeClaim) -> str:
    parts = []
    for values, word in ((claim.least, "at least"), (claim.most, "at most")):
        if values is not None:
            alike = all(v == values[0] for v in values)
            parts.append(f"{word} {number(values[0]) if alike else f'[{listed(values, number)}]'}")
    return " and ".join(parts)


def _condition(claim: RangeClaim, formulas: Formulas, n: int) -> str:
    (text,), shared = formulas.write([n])
    return f"{'' if claim.graph.nodes[n].shape == () else 'every entry of '}{text} >= 0{_where(shared)}"


def _satisfied(theorem: RangeTheorem) -> Rows:
    """A theorem about no input at all is true as well."""
    if not theorem.claim.where:
        return []
    count = len(_different(theorem))
    some = f"satisfied by inputs that were replayed: {count}"
    return [("conditions", some if count else "no input that satisfies them was replayed: there may be none")]


def _lemma(claim: RangeClaim, formulas: Formulas, lemma: ProvedLemma) -> tuple[str, str]:
    site, mechanism = claim.sites[lemma.site], claim.sites[lemma.mechanism]
    said = formulas.write([site])[0][0]
    node = claim.graph.nodes[mechanism]
    inner = node.args[0] if _only_reshapes(claim, mechanism) else mechanism
    listing_ = _entries(claim, inner) if claim.graph.nodes[inner].op == "concat" else []
    text, parts = _list(formulas, mechanism, listing_) if listing_ else _one(formulas, mechanism)
    where = _part(claim, lemma.part)
    if lemma.range is None:
        nothing = "no input satisfies the conditions, so nothing is said of"
        return said, f"{where}: {nothing} {said} - {text}{_where(parts)}"
    low, high = about(float(lemma.range.low.min()), up=False), about(float(lemma.range.high.max()), up=True)
    return said, f"{where}: each entry of {said} - {text} is from {low} to {high} (rounded outwards){_where(parts)}"


def _one(formulas: Formulas, n: int) -> tuple[str, list[str]]:
    (text,), shared = formulas.write([n])
    return text, shared


def _only_reshapes(claim: RangeClaim, n: int) -> bool:
    """Whether a node shows all entries of its operand in their order."""
    node = claim.graph.nodes[n]
    if node.op != "view" or node.kind != "real" or prod(node.shape) != prod(claim.graph.nodes[node.args[0]].shape):
        return False
    shape, offset, strides = node.attr
    return offset == 0 and all(
        size == 1 or step == prod(shape[i + 1 :]) for i, (size, step) in enumerate(zip(shape, strides, strict=True))
    )


def _asserted(claim: Claim) -> list[str]:
    """What the certificate's author says of the graph."""
    graph = claim.stated["graph"]
    replayed = graph["replayed"]
    times, difference = replayed["inputs"], Fraction(_rational(replayed["difference"]))
    how = f"replayed on {times} inputs: within {about(difference, up=True)}" if times else "not replayed"
    others = [f"{printable(key, 40)}: {printable(str(value), 400)}" for key, value in graph.items()
              if key not in ("nodes", "sites", "replayed")]  # fmt: skip
    return [f"the graph is the module {quoted(printable(replayed['module'], 100))}, {how}", *others]


def _rational(text: str) -> Fraction:
    return Fraction(text) if "/" in text else Fraction(float.fromhex(text))


def _named(formulas: Formulas, nodes: Listing) -> list[str]:
    """The names in the sentence, and the nodes that they stand for."""
    named = [(n, text) for n, text in sorted(formulas.used.items()) if text != nodes.name(n)]
    return [f"nodes are called {listed([f'{nodes.name(n)}: {text}' for n, text in named])}"] if named else []


def _range(theorem: RangeTheorem) -> Rows:
    claim, (low, high), attained = theorem.claim, theorem.range, theorem.attained
    rows: Rows = []
    proved, reached = widths(theorem)
    if proved:
        mean = about(sum(proved) / len(proved), up=True)
        text = f"mean {mean}, largest {about(max(proved), up=True)} (rounded up)"
        if reached and any(reached):
            least = about(sum(reached) / len(reached), up=False)
            text += f"; inputs that were replayed reach a mean width of {least} (rounded down)"
        rows.append(("proved width", text))
    for i in range(min(FIRST, claim.outputs)):
        if np.isfinite(low[i]) or np.isfinite(high[i]):
            ends = f"{_end(low[i], up=False)} to {_end(high[i], up=True)} (rounded outwards)"
            reached = "" if attained is None else _reached(attained.low[:, i], attained.high[:, i])
            rows.append((f"entry {i}", f"{ends}{reached}"))
    if claim.outputs > FIRST:
        rows.append(("", f"and {claim.outputs - FIRST} more (--json has all)"))
    return rows


def _reached(low: np.ndarray, high: np.ndarray) -> str:
    """What the values at replayed inputs, each in a range [inputs], surely span; where rounding leaves nothing of that,
    as it does for a single input, about where they are."""
    least, most = float(high.min()), float(low.max())
    if not np.isfinite([least, most]).all():
        return ""
    if Fraction(about(least, up=True)) <= Fraction(about(most, up=False)):
        return f"; reached {about(least, up=True)} to {about(most, up=False)} (rounded inwards)"
    near = _around(Fraction(most), Fraction(least))
    return f"; reached about {near}" if near else ""


def _end(value: float, up: bool) -> str:
    return about(float(value), up) if np.isfinite(value) else "unbounded"


def widths(theorem: RangeTheorem) -> tuple[list[Fraction], list[Fraction]]:
    """Of each entry's proved range, and how far apart the values are at inputs that were replayed; empty where some
    entry has no such number."""
    attained = theorem.attained
    if attained is None:
        return _apart(theorem.range), []
    least = attained.high.min(0)
    return _apart(theorem.range), _apart(Range(least, np.maximum(attained.low.max(0), least)))


def _apart(ends: Range) -> list[Fraction]:
    """How far apart each entry's ends are; nothing where one of them is infinite."""
    if not np.isfinite(ends).all():
        return []
    return [Fraction(b) - Fraction(a) for a, b in zip(ends.low.tolist(), ends.high.tolist(), strict=True)]


def _different(theorem: RangeTheorem) -> list[int]:
    """Rows of the replayed inputs, each input once: a file may list one twice."""
    rows = zip(theorem.tokens.tolist(), theorem.points.tolist(), strict=True)
    return sorted({(*ids, *point): k for k, (ids, point) in enumerate(rows)}.values())


class Broken(NamedTuple):
    """Entry `entry` of replayed input `point` (a row of the theorem's) is short of, or over, its threshold by at least
    `by`. None of an entry where a threshold is broken by less than float64 shows."""

    by: Fraction
    point: int
    entry: int | None
    short: bool


def broken(theorem: RangeTheorem) -> list[Broken]:
    """Of each replayed input that breaks a threshold, the entry that does most: the worst first."""
    claim, found = theorem.claim, []
    if theorem.attained is None:
        return []
    ends = [end.tolist() for end in theorem.attained]
    for k, low, high in ((k, ends[0][k], ends[1][k]) for k in _different(theorem)):
        here = [Broken(t - Fraction(v), k, i, True)
                for i, (t, v) in enumerate(zip(claim.least or [], high, strict=False)) if -inf < v < t]  # fmt: skip
        here += [Broken(Fraction(v) - t, k, i, False)
                 for i, (t, v) in enumerate(zip(claim.most or [], low, strict=False)) if t < v < inf]  # fmt: skip
        exactly = [Broken(Fraction(0), k, None, False)] if theorem.broken[k] else []
        found += [max(here)] if here else exactly
    return sorted(found, key=lambda b: -b.by)


def _told(theorem: RangeTheorem, formulas: Formulas) -> list[str]:
    attained = theorem.attained
    if theorem.verdict != "REFUTED" or attained is None:
        return []
    texts, worst = [], broken(theorem)
    for b in worst[:SHOWN]:
        if b.entry is None:
            texts.append(f"{_at(theorem, b.point)}: a threshold is broken, by less than float64 shows")
            continue
        low, high = (float(end[b.point, b.entry]) for end in attained)
        how = f"{'below' if b.short else 'above'} by at least {about(b.by, up=False)}"
        value = f"entry {b.entry} is from {about(low, up=False)} to {about(high, up=True)} (rounded outwards)"
        texts.append(f"{_at(theorem, b.point)}: {value}, {how}")
        texts += _seen(theorem, formulas, b.point, b.entry)
    return texts + ([f"and {len(worst) - SHOWN} more, by no more"] if len(worst) > SHOWN else [])


def _at(theorem: RangeTheorem, k: int) -> str:
    ids, point = theorem.tokens[k].tolist(), theorem.points[k].tolist()
    near = f"inputs near [{', '.join(f'{v:.6g}' for v in point[:FIRST])}{', ...' if len(point) > FIRST else ''}]"
    return " and ".join([*([f"ids [{listed(ids)}]"] if ids else []), *([near] if point else [])])


def _seen(theorem: RangeTheorem, formulas: Formulas, k: int, entry: int) -> list[str]:
    """About the values, at a replayed input, of the entries of sites that a broken expression speaks of."""
    claim, start, inputs = theorem.claim, 0, []
    if not (roots := added(claim)):
        return []
    point = theorem.points[k]
    for shape in claim.shapes:
        inputs.append(point[None, start : start + prod(shape)].reshape(1, *shape))
        start += prod(shape)
    spoken = dict(list(sites(claim, formulas, roots[entry]).items())[:FIRST])
    values = _values(claim, [*spoken.values()], theorem.tokens[k], inputs, clear=_is_sharp)
    near = (_around(value.low[0], value.high[0]) for value in values)
    return [f"there {text} is about {number}" for text, number in zip(spoken, near, strict=True) if number]


def _is_sharp(value: Value) -> bool:
    """There is a number to name."""
    return _around(value.low[0], value.high[0]) != ""


def sites(claim: RangeClaim, formulas: Formulas, n: int) -> dict[str, int]:
    """The entries of sites that a formula speaks of, by their text."""
    found: dict[str, int] = {}
    seen, stack = {n}, [n]
    while stack and len(seen) < 1_000:
        m = stack.pop()
        node = claim.graph.nodes[m]
        if node.op in ("view", "pick") and node.shape == () and set(node.args) & set(formulas.names):
            (text,), shared = formulas.write([m])
            if not shared:
                found[text] = m
            continue
        fresh = [a for a in node.args if a not in seen and a not in formulas.names]
        seen.update(fresh)
        stack += fresh
    return dict(sorted(found.items(), key=lambda item: item[1]))

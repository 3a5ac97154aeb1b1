"""The sentence of a theorem that bounds every entry of a value."""

from fractions import Fraction
from math import inf, prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.ranges import ProvedLemma, Range, RangeClaim, RangeTheorem
from mechverify.kernel.core.words import FIRST, about, listed, number
from mechverify.kernel.statement import captured
from mechverify.kernel.statement.common import (
    SHOWN,
    Rows,
    Statement,
    around,
    boxes,
    common,
    defined,
    graph_of,
    ids_of,
    interval,
    is_sharp,
    values_at,
)  # fmt: skip
from mechverify.kernel.statement.formula import Formulas, Listing


def listing(theorem: RangeTheorem) -> Listing:
    claim = theorem.claim
    lemmas = {claim.sites[s] for lemma in theorem.lemmas for s in lemma[:2]}
    return Listing(claim.graph, [*{claim.sites[claim.site], *claim.where, *lemmas}])


def state(theorem: RangeTheorem) -> Statement:
    claim, nodes = theorem.claim, listing(theorem)
    own = {n for n in claim.where if claim.graph.nodes[n].shape == ()}
    own |= {claim.sites[lemma.mechanism] for lemma in theorem.lemmas}
    own |= {claim.sites[claim.site]} if captured.added(claim) else set()
    formulas = Formulas(nodes, captured.names(claim, nodes, own))
    subject, shared = _subject(claim, formulas)
    count = "" if claim.outputs == 1 else f", {claim.outputs} entries"
    threshold = _thresholds(claim)
    what = f"every entry {threshold}:" if threshold else "the range of"
    given = tuple(_condition(claim, formulas, n) for n in claim.where)
    examples = tuple(("broken at", text) for text in _told(theorem, formulas))
    lemmas = tuple(_lemma(claim, formulas, lemma) for lemma in theorem.lemmas)
    said = common(theorem)
    said["domain"] += boxes(claim.union)
    return Statement(
        **said,
        claim=f"{what} {subject}{count}{defined(shared)}",
        subject=subject,
        equals=None,
        margin="",
        threshold=threshold,
        given=given,
        lemmas=lemmas,
        model=f"{graph_of(nodes)}, weights sha256 {claim.weights_sha256}",
        assumed=(),
        asserted=captured.asserted(
            claim, formulas, nodes
        ),  # once all that has names is written
        proved=(*_satisfied(theorem), *_range(theorem)),
        examples=examples,
    )


def _coordinates(claim: Claim) -> list[str]:
    """The names of all real inputs' coordinates."""
    return [f"input{k}[{', '.join(map(str, at))}]" if shape else f"input{k}"
            for k, shape in enumerate(claim.shapes) for at in np.ndindex(*shape)]  # fmt: skip


def _part(claim: Claim, part: Domain) -> str:
    """Where a part of the domain is smaller than all of it."""
    sets = enumerate(zip(part.tokens, claim.domain.tokens, strict=True))
    here = [
        f"the id of x{i} in {ids_of(ids)}" for i, (ids, whole) in sets if ids != whole
    ]
    cut = np.flatnonzero(
        (part.low != claim.domain.low) | (part.high != claim.domain.high)
    ).tolist()
    names = _coordinates(claim) if cut else []
    here += [
        f"{names[i]} in {interval(float(part.low[i]), float(part.high[i]))}"
        for i in cut
    ]
    return (
        f"where {listed(here, separator=' and ')}"
        if here
        else "everywhere in the domain"
    )


def _subject(claim: RangeClaim, formulas: Formulas) -> tuple[str, list[str]]:
    n = claim.sites[claim.site]
    if roots := captured.added(claim):
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
            parts.append(
                f"{word} {number(values[0]) if alike else f'[{listed(values, number)}]'}"
            )
    return " and ".join(parts)


def _condition(claim: RangeClaim, formulas: Formulas, n: int) -> str:
    (text,), shared = formulas.write([n])
    return f"{'' if claim.graph.nodes[n].shape == () else 'every entry of '}{text} >= 0{defined(shared)}"


def _satisfied(theorem: RangeTheorem) -> Rows:
    """A theorem about no input at all is true as well."""
    if not theorem.claim.where:
        return []
    count = len(_different(theorem))
    some = f"satisfied by inputs that were replayed: {count}"
    return [
        (
            "conditions",
            some
            if count
            else "no input that satisfies them was replayed: there may be none",
        )
    ]


def _lemma(
    claim: RangeClaim, formulas: Formulas, lemma: ProvedLemma
) -> tuple[str, str]:
    site, mechanism = claim.sites[lemma.site], claim.sites[lemma.mechanism]
    said = formulas.write([site])[0][0]
    node = claim.graph.nodes[mechanism]
    inner = node.args[0] if _only_reshapes(claim, mechanism) else mechanism
    listing_ = (
        captured.entries(claim, inner)
        if claim.graph.nodes[inner].op == "concat"
        else []
    )
    text, parts = (
        _list(formulas, mechanism, listing_) if listing_ else _one(formulas, mechanism)
    )
    where = _part(claim, lemma.part)
    if lemma.range is None:
        nothing = "no input satisfies the conditions, so nothing is said of"
        return said, f"{where}: {nothing} {said} - {text}{defined(parts)}"
    low, high = (
        about(float(lemma.range.low.min()), up=False),
        about(float(lemma.range.high.max()), up=True),
    )
    return (
        said,
        f"{where}: each entry of {said} - {text} is from {low} to {high} (rounded outwards){defined(parts)}",
    )


def _one(formulas: Formulas, n: int) -> tuple[str, list[str]]:
    (text,), shared = formulas.write([n])
    return text, shared


def _only_reshapes(claim: RangeClaim, n: int) -> bool:
    """Whether a node shows all entries of its operand in their order."""
    node = claim.graph.nodes[n]
    if (
        node.op != "view"
        or node.kind != "real"
        or prod(node.shape) != prod(claim.graph.nodes[node.args[0]].shape)
    ):
        return False
    shape, offset, strides = node.attr
    return offset == 0 and all(
        size == 1 or step == prod(shape[i + 1 :])
        for i, (size, step) in enumerate(zip(shape, strides, strict=True))
    )


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
        reached = (
            ""
            if attained is None
            else _reached(attained.low[:, i], attained.high[:, i])
        )
        said = reached and theorem.verdict == "BOUNDED"
        if said or np.isfinite(low[i]) or np.isfinite(high[i]):
            ends = f"{_end(low[i], up=False)} to {_end(high[i], up=True)} (rounded outwards)"
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
    shown = around(Fraction(most), Fraction(least))
    return f"; reached about {shown}" if shown else ""


def _end(value: float, up: bool) -> str:
    return about(float(value), up) if np.isfinite(value) else "unbounded"


def widths(theorem: RangeTheorem) -> tuple[list[Fraction], list[Fraction]]:
    """Of each entry's proved range, and how far apart the values are at inputs that were replayed; empty where some
    entry has no such number."""
    attained = theorem.attained
    if attained is None:
        return _apart(theorem.range), []
    least = attained.high.min(0)
    return _apart(theorem.range), _apart(
        Range(least, np.maximum(attained.low.max(0), least))
    )


def _apart(ends: Range) -> list[Fraction]:
    """How far apart each entry's ends are; nothing where one of them is infinite."""
    if not np.isfinite(ends).all():
        return []
    return [
        Fraction(b) - Fraction(a)
        for a, b in zip(ends.low.tolist(), ends.high.tolist(), strict=True)
    ]


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
            texts.append(
                f"{_at(theorem, b.point)}: a threshold is broken, by less than float64 shows"
            )
            continue
        low, high = (float(end[b.point, b.entry]) for end in attained)
        how = f"{'below' if b.short else 'above'} by at least {about(b.by, up=False)}"
        value = f"entry {b.entry} is from {about(low, up=False)} to {about(high, up=True)} (rounded outwards)"
        texts.append(f"{_at(theorem, b.point)}: {value}, {how}")
        texts += _seen(theorem, formulas, b.point, b.entry)
    return texts + (
        [f"and {len(worst) - SHOWN} more, by no more"] if len(worst) > SHOWN else []
    )


def _at(theorem: RangeTheorem, k: int) -> str:
    ids, point = theorem.tokens[k].tolist(), theorem.points[k].tolist()
    box = f"inputs near [{', '.join(f'{v:.6g}' for v in point[:FIRST])}{', ...' if len(point) > FIRST else ''}]"
    return " and ".join(
        [*([f"ids [{listed(ids)}]"] if ids else []), *([box] if point else [])]
    )


def _seen(theorem: RangeTheorem, formulas: Formulas, k: int, entry: int) -> list[str]:
    """About the values, at a replayed input, of the entries of sites that a broken expression speaks of."""
    claim, start, inputs = theorem.claim, 0, []
    if not (roots := captured.added(claim)):
        return []
    point = theorem.points[k]
    for shape in claim.shapes:
        inputs.append(point[None, start : start + prod(shape)].reshape(1, *shape))
        start += prod(shape)
    spoken = dict(list(sites(claim, formulas, roots[entry]).items())[:FIRST])
    values = values_at(
        claim, [*spoken.values()], theorem.tokens[k], inputs, clear=is_sharp
    )
    shown = (around(value.low[0], value.high[0]) for value in values)
    return [
        f"there {text} is about {number}"
        for text, number in zip(spoken, shown, strict=True)
        if number
    ]


def sites(claim: RangeClaim, formulas: Formulas, n: int) -> dict[str, int]:
    """The entries of sites that a formula speaks of, by their text."""
    found: dict[str, int] = {}
    seen, stack = {n}, [n]
    while stack and len(seen) < 1_000:
        m = stack.pop()
        node = claim.graph.nodes[m]
        if (
            node.op in ("view", "pick")
            and node.shape == ()
            and set(node.args) & set(formulas.names)
        ):
            (text,), shared = formulas.write([m])
            if not shared:
                found[text] = m
            continue
        fresh = [a for a in node.args if a not in seen and a not in formulas.names]
        seen.update(fresh)
        stack += fresh
    return dict(sorted(found.items(), key=lambda item: item[1]))

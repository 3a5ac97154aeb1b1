"""A theorem about bounds in words and as data."""

from fractions import Fraction
from math import inf, prod
from typing import Any

import numpy as np

from mechverify.kernel import Theorem
from mechverify.kernel.claim import Claim, Range
from mechverify.kernel.evaluate import Evaluation
from mechverify.kernel.float64 import Float64
from mechverify.kernel.semantics import Real
from mechverify.report import formula

WORST = 4  # broken entries
SHOWN = 8  # entries, and coordinates of a point


def lines(theorem: Theorem, common: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(label, text) pairs; `common` are those on semantics, axioms, proof and cost."""
    claim, range_, attained = theorem.claim, theorem.range, theorem.attained
    replayed = claim.stated["graph"]["replayed"] if claim.captured else None
    rows = [
        ("verdict", theorem.verdict),
        ("claim", f"{_thresholds(theorem)} {name(theorem)}{_entries(claim)}"),
        ("domain", domain(theorem)),
        *(("given", f"{formula.real(claim, n)} >= 0") for n in claim.where),
        *(("from", _lemma(claim, *lemma)) for lemma in theorem.lemmas),
    ]
    if replayed and not replayed["inputs"] and not any(node.op == "weight" for node in claim.graph.nodes):
        rows.append(("model", "none: the claim speaks of its domain alone"))
    else:
        rows.append(("model", f"{claim.architecture}, weights sha256 {claim.weights_sha256}"))
    if replayed and replayed["inputs"]:
        difference = float.fromhex(replayed["difference"])
        what = f"{replayed['module']!r}, replayed on {replayed['inputs']} inputs: within {difference:.2g}"
        rows.append(("module", what))
    width = range_.high - range_.low
    if np.isfinite(width).all():
        rows.append(("proved width", f"mean {width.mean():.6g}, largest {width.max():.6g}{_reached(theorem)}"))
    said = added(claim)
    for i in range(min(SHOWN, claim.outputs)):
        ends = (attained.high[:, i].min(), attained.low[:, i].max()) if attained else None
        reached = f"   reached {ends[0]:+.6f} to {ends[1]:+.6f}" if ends else ""
        if i in said:
            rows.append((f"entry {i} is", said[i]))
        if np.isfinite(range_.low[i]) or np.isfinite(range_.high[i]):
            rows.append((f"entry {i}", f"{_down(range_.low[i])} to {_down(range_.high[i], up=True)}{reached}"))
    if claim.outputs > SHOWN:
        rows.append(("", f"and {claim.outputs - SHOWN} more (--json has all)"))
    if theorem.verdict == "REFUTED":
        rows += [("broken at", text) for text in broken(theorem)]
    return rows + common


def _entries(claim: Claim) -> str:
    return "" if claim.outputs == 1 else f", {claim.outputs} entries"


def _lemma(claim: Claim, site: str, mechanism: str, bounds: Range) -> str:
    size = float(max(np.abs(bounds.low).max(), np.abs(bounds.high).max()))
    text = formula.real(claim, claim.sites[mechanism])
    return (
        f"{site} is near {text}, each entry within {_down(size, up=True)}: proved, and then all that is used of {site}"
    )


def name(theorem: Theorem) -> str:
    claim = theorem.claim
    return claim.site if claim.position is None else f"{claim.site}[{claim.position}]"


def _thresholds(theorem: Theorem) -> str:
    parts = []
    for values, word in ((theorem.claim.least, "at least"), (theorem.claim.most, "at most")):
        if values is not None:
            alike = len(set(values)) == 1
            parts.append(f"{word} {float(values[0]):.9g}" if alike else f"{word} a threshold of its own")
    return f"every entry {' and '.join(parts)}:" if parts else "the range of"


def _reached(theorem: Theorem) -> str:
    """How far from the truth the bounds can be at most, as inputs that reach some of the range show."""
    if theorem.attained is None or not len(theorem.attained.low):
        return ""
    reached = theorem.attained.low.max(0) - theorem.attained.high.min(0)
    return f"; inputs that were replayed reach a mean width of {reached.mean():.6g}"


def domain(theorem: Theorem) -> str:
    claim = theorem.claim
    d, parts = claim.domain, []
    if d.length:
        parts.append(f"{d.size:,} sequences of {d.length} token{'s' * (d.length > 1)}")
    for shape, low, high in zip(claim.shapes, *_split(theorem), strict=True):
        radius = (high - low) / 2
        equal = np.ptp(radius) <= 1e-12 * radius.max()
        alike = f"{radius.max():.6g}" if equal else f"{radius.min():.4g} to {radius.max():.4g}"
        parts.append(f"a box of {prod(shape)} coordinates (shape {tuple(shape)}), radius {alike}")
    return " and ".join(parts)


def _split(theorem: Theorem) -> tuple[list[np.ndarray], list[np.ndarray]]:
    cuts, n = np.cumsum([prod(s) for s in theorem.claim.shapes])[:-1], len(theorem.claim.shapes)
    return tuple(np.split(end, cuts)[:n] for end in (theorem.claim.domain.low, theorem.claim.domain.high))


def added(claim: Claim) -> dict[int, str]:
    """What the entries are, where the claim is about expressions that were added to the module's graph."""
    node = claim.graph.nodes[claim.output]
    if node.op != "concat" or any(claim.graph.nodes[a].shape != (1,) for a in node.args):
        return {}
    return {i: formula.real(claim, a) for i, a in enumerate(node.args)}


def broken(theorem: Theorem) -> list[str]:
    """The replayed inputs that break a threshold, and by how much at least: where it is most."""
    found, claim = [], theorem.claim
    for ids, point, low, high in zip(theorem.wrong, theorem.points, *theorem.attained, strict=True):
        for i in range(claim.outputs):
            short = 0 if claim.least is None else claim.least[i] - Fraction(float(high[i]))
            over = 0 if claim.most is None else Fraction(float(low[i])) - claim.most[i]
            if max(short, over) > 0:
                where = [*([str(ids.tolist())] if len(ids) else []), *([_shortened(point)] if len(point) else [])]
                how = f"below by {float(short):.4g}" if short > 0 else f"above by {float(over):.4g}"
                said = f"{' and '.join(where)}: entry {i} is in [{low[i]:.9g}, {high[i]:.9g}], {how}"
                found.append((max(short, over), said, i, ids, point))
    found.sort(key=lambda row: -row[0])
    told = [text for _, said, *at in found[:WORST] for text in (said, *_seen(claim, *at))]
    return told + ([f"and {len(found) - WORST} more, by less"] if len(found) > WORST else [])


def _seen(claim: Claim, i: int, ids: np.ndarray, point: np.ndarray) -> list[str]:
    """The values of the sites that entry i speaks of."""
    if not added(claim):
        return []
    node, inputs, start = claim.graph.nodes[claim.output].args[i], [], 0
    for shape in claim.shapes:
        inputs.append(point[None, start : start + prod(shape)].reshape(1, *shape))
        start += prod(shape)
    values = Evaluation(claim.graph, claim.weights, Real(Float64()), ids[None], inputs=inputs)
    shown = [(text, float(values[n].mid.ravel()[0])) for text, n in list(formula.sites(claim, node).items())[:SHOWN]]
    return [f"    there {text} = {value:.9g}" for text, value in shown]


def _shortened(point: np.ndarray) -> str:
    shown = ", ".join(f"{v:.6g}" for v in point[:SHOWN])
    return f"[{shown}{', ...' if len(point) > SHOWN else ''}]"


def _down(value: float, up: bool = False) -> str:
    if not np.isfinite(value):
        return "unbounded"
    scaled = Fraction(float(value)) * 10**6
    whole = -((-scaled.numerator) // scaled.denominator) if up else scaled.numerator // scaled.denominator
    return f"{'-' if whole < 0 else '+'}{abs(whole) // 10**6}.{abs(whole) % 10**6:06d}"


def as_json(theorem: Theorem) -> dict[str, Any]:
    """The fields of a verdict that differ from those of an accuracy claim."""
    claim, low, high = theorem.claim, theorem.range.low.tolist(), theorem.range.high.tolist()
    point = None
    if theorem.verdict == "REFUTED":
        ids, numbers = theorem.wrong[0].tolist(), theorem.points[0].tolist()
        point = {"tokens": ids, "inputs": numbers, "value": [end[0].tolist() for end in theorem.attained]}
    return {
        "claim": {
            "kind": "bounds",
            "output": name(theorem),
            "given": [f"{formula.real(claim, n)} >= 0" for n in claim.where],
            "at_least": None if claim.least is None else [str(t) for t in claim.least],
            "using": [{"site": site, "low": low.tolist(), "high": high.tolist()}
                      for site, _, (low, high) in theorem.lemmas],
            "at_most": None if claim.most is None else [str(t) for t in claim.most],
            "domain_size": str(claim.domain.size) if not len(claim.domain.low) else None,
            "weights_sha256": claim.weights_sha256,
        },
        "value": {
            "lower": [v if v > -inf else None for v in low], "upper": [v if v < inf else None for v in high],
            "exact_lower": [str(Fraction(v)) if v > -inf else None for v in low],
            "exact_upper": [str(Fraction(v)) if v < inf else None for v in high],
        },
        "counterexample": point,
    }  # fmt: skip

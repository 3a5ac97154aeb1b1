"""Normalised vectors: how large c_i / s can be where s is at least as large as a norm of c, however wide c is.

A node s *dominates* a node c with factors q >= 0 if s_r >= 0 and s_r^2 >= sum_j q_rj c_j^2 for every input. Then
|c_i / s_r| <= 1 / sqrt(q_ri), and the squares of c_i / s_r add up to at most 1 / min_i q_ri over any entries i of c.
Argument: docs/soundness.md, lemma L3, whose steps (a) to (d) are `_squares`, `_derived`, `_maxima`, `_centred`.
"""

from fractions import Fraction
from math import isqrt, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.graph import entries
from mechverify.kernel.core.meter import ROOM
from mechverify.kernel.relaxation.operations import row_of

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals

ONE = Fraction(1)
LEAST = 2.0**-1000  # smaller factors say nothing
EXACT = 2.0**53  # integers below it are float64 numbers


def limit(known: "Intervals", n: int) -> Any | None:
    """A raw array [cells, *shape] that no entry of node n exceeds in absolute value; None if nothing is known."""
    node = known.graph.nodes[n]
    known.ar.step(2 * len(known.order), 1)
    if node.op == "mul":
        for quotient in (node.args, node.args[::-1]):
            if (found := _quotient(known, *quotient)) is not None:
                c, at, row, factors = found
                return _most(known, _centred(known, c, factors)[:, row, at]).reshape(
                    -1, *node.shape
                )
    if node.op == "einsum":
        return _product(known, n)
    return None


def _quotient(known: "Intervals", x: int, y: int) -> tuple | None:
    """If the product of nodes x and y is c / s and s dominates c: c, which entry of c and of s each entry reads,
    and the factors [cells, entries of s, entries of c]."""
    (c, at), (divisor, row) = _source(known, x), _source(known, y)
    op = known.graph.nodes[divisor].op
    if op not in ("rsqrt", "reciprocal") or c in known.fixed:
        return None
    (s,) = known.graph.nodes[divisor].args
    factors = _squares(known, s, c) if op == "rsqrt" else _dominated(known, s, c)
    if factors is None or not bool((factors[:, row, at] > 0).all()):
        return None
    return c, at, row, factors


def _source(known: "Intervals", n: int) -> tuple[int, np.ndarray]:
    return known.source(n, slices=True)


def _dominated(known: "Intervals", s: int, c: int) -> Any | None:
    """Factors with which node s dominates c, found once."""
    s, row = _source(known, s)
    if (s, c) not in known.dominated:
        known.dominated[s, c] = None  # a maximum may ask again
        known.dominated[s, c] = _derived(known, s, c)
    found = known.dominated[s, c]
    return None if found is None else found[:, row]


def _derived(known: "Intervals", s: int, c: int) -> Any | None:
    """Through a root of a sum of squares, a sum of absolute values, what else is added that isn't negative, and a
    maximum."""
    nodes, ar, found = known.graph.nodes, known.ar, None
    ar.step(2 * len(known.order), 1)
    if nodes[s].op == "sqrt":
        found = _squares(known, nodes[s].args[0], c)
    elif nodes[s].op == "add":
        for larger in _maxima(known, s):
            found = _dominated(known, larger, c) if found is None else found
    for part in _parts(known, s) if found is None else ():
        if nodes[part].op == "abs" and _source(known, nodes[part].args[0])[0] == c:
            _, at = _source(known, nodes[part].args[0])
            if len(at) * prod(nodes[c].shape) > ROOM:
                continue
            inner = np.zeros((1, len(at), prod(nodes[c].shape)))
            if len(np.unique(at)) == len(at):  # |c_j| once each
                inner[0, np.arange(len(at)), at] = 1.0
            inner = ar.raw(inner)
        elif nodes[part].op == "sqrt":
            inner = _squares(known, nodes[part].args[0], c)
        else:
            continue
        share = None if inner is None else _share(known, part, s)
        if (
            share is not None
        ):  # (sum_t k_t v_t)^2 >= sum_t k_t^2 v_t^2, as nothing is negative
            share = ar.exact(_positive(known, ar.down(share * share)))
            found = _positive(
                known, ar.ends(ar.contract("rt,tc->rc", share, ar.exact(inner)))[0]
            )
            break
    return found


def _maxima(known: "Intervals", n: int) -> list[int]:
    """Nodes that the sum n is never smaller than: of u + relu(w - u) and of u + v with v >= 0."""
    nodes, found = known.graph.nodes, []
    for u, v in (nodes[n].args, nodes[n].args[::-1]):
        if nodes[v].op == "relu":
            difference = nodes[nodes[v].args[0]]
            if difference.op == "sub" and difference.args[1] == u:
                found.append(difference.args[0])
        if bool((known.ends[v][0] >= 0).all()):
            found.append(u)
    return found


def _parts(known: "Intervals", s: int) -> list[int]:
    """Absolute values and roots that node s is computed from."""
    return [
        m
        for m in known.graph.ancestors([s])
        if known.graph.nodes[m].op in ("abs", "sqrt") and m in known.ends
    ]


def _squares(known: "Intervals", s: int, c: int) -> Any | None:
    """Factors q >= 0 [cells, entries of s, entries of c] with s_r >= sum_j q_rj c_j^2."""
    s, row = _source(known, s)
    nodes = known.graph.nodes
    known.ar.step(len(known.order), 0, 40)
    squares = [m for m in known.order if nodes[m].op == "power" and nodes[m].attr == 2 and m in known.balls
               and _source(known, nodes[m].args[0])[0] == c]  # fmt: skip
    for square in squares:
        share, at = None, _source(known, nodes[square].args[0])[1]
        if known.place[square] < known.place[s] and len(np.unique(at)) == len(at):
            share = _share(known, square, s)
        if share is not None:
            whole = known.ar.scatter(known.ar.exact(share), at, prod(nodes[c].shape))
            return _positive(known, known.ar.ends(whole)[0])[:, row]
    return None


def _share(known: "Intervals", part: int, s: int) -> Any | None:
    """Raw k >= 0 [cells, entries of s, entries of part] with s_r >= sum_t k_rt part_t, for a node `part` that is never
    negative: s is a sum of it and of what is not negative, with factors that are not negative."""
    ar, nodes = known.ar, known.graph.nodes
    size, found = prod(nodes[s].shape), None
    if (
        size * max(prod(nodes[m].shape) for m in known.order[: known.place[s] + 1])
        > ROOM
    ):
        return None  # the forms would be too wide to hold
    ar.step(len(known.order), 1, 40)
    pending = {s: ar.exact(ar.raw(np.eye(size).reshape(1, size, *nodes[s].shape)))}
    for n in reversed(known.order[: known.place[s] + 1]):
        if n not in pending:
            continue
        k = pending.pop(n)
        if n == part:
            found = k
        elif _adds_up(known, n):
            for operand, form in row_of(nodes[n].op).transposed(known, n, k):
                pending[operand] = (
                    ar.add(pending[operand], form) if operand in pending else form
                )
        elif not bool((known.ends[n][0] >= 0).all()):
            return None
    if found is None:
        return None
    return ar.xp.clip(ar.ends(found)[0], 0.0, None).reshape(
        found.mid.shape[0], size, -1
    )


def _adds_up(known: "Intervals", n: int) -> bool:
    """Node n is a sum of its operand's entries with factors that are not negative."""
    node = known.graph.nodes[n]
    if n in known.fixed or n in known.curved:
        return False
    if node.op in ("view", "concat", "add", "over_root"):
        return True
    factors = [known.ends[a][0] for a in node.args if a in known.fixed]
    return node.op in ("mul", "einsum") and all(
        bool((low >= 0).all()) for low in factors
    )


def _positive(known: "Intervals", a: Any) -> Any:
    return known.ar.xp.clip(a, 0.0, None)


def _most(known: "Intervals", factors: Any) -> Any:
    """Upper bounds of 1 / sqrt(factor), infinite where the factor is not positive."""
    ar, xp = known.ar, known.ar.xp
    ok = factors > LEAST
    root = ar.sqrt(ar.exact(xp.where(ok, factors, 1.0)))
    return xp.where(ok, ar.ends(ar.div(ar.rational(ONE), root))[1], np.inf)


def _product(known: "Intervals", n: int) -> Any | None:
    """Of sums over i of k_i (c_i / s) (d_i / t): at most max |k_i| / sqrt(min_i q_i min_i p_i), by Cauchy and Schwarz;
    and what other products are multiplied with, by rounding, on top."""
    ar, xp, nodes = known.ar, known.ar.xp, known.graph.nodes
    inner = [a for a in nodes[n].args if a not in known.fixed]
    if (
        len(inner) != 1
        or nodes[inner[0]].op not in ("mul", "power")
        or nodes[inner[0]].attr not in (None, 2)
    ):
        return None
    operands = nodes[inner[0]].args
    units = [
        _unit(known, operand)
        for operand in (operands if len(operands) == 2 else operands * 2)
    ]
    vectors = [unit for unit in units if unit is not None]
    if len(vectors) < 2:
        return None
    size = prod(nodes[n].shape)
    if size * max(size, prod(nodes[inner[0]].shape)) > ROOM:
        return None
    ar.spend(size * prod(nodes[inner[0]].shape), size * len(vectors))
    eye = ar.exact(ar.raw(np.eye(size).reshape(1, size, *nodes[n].shape)))
    ((_, form),) = row_of(nodes[n].op).transposed(known, n, eye)
    ends = [end.reshape(end.shape[0], size, -1) for end in ar.ends(form)]
    k = xp.maximum(-ends[0], ends[1])
    summed = _array((form.mid.reshape(ends[0].shape) != 0).any(0))
    rows = []
    for r in range(size):
        at = np.flatnonzero(summed[r])
        if not len(at) or not all(_one_vector(c[at], s[at]) for c, s, _ in vectors):
            return None
        sizes = [_most(known, xp.amin(factors[:, at], -1)) for *_, factors in vectors]
        largest = ar.up(ar.up(sizes[0] * sizes[1]) * xp.amax(k[:, r][:, at], -1))
        others = np.flatnonzero(~summed[r])
        if len(others):
            each = [
                ar.point(_most(known, factors[:, others])) for *_, factors in vectors
            ]
            traces = ar.sum(ar.mul(ar.mul(*each), ar.point(k[:, r][:, others])))
            largest = ar.ends(ar.add(ar.point(largest), traces))[1]
        rows.append(
            xp.where(largest == largest, largest, np.inf)
        )  # infinity times zero says nothing
    return xp.stack(rows, -1).reshape(-1, *nodes[n].shape)


def _unit(known: "Intervals", operand: int) -> tuple | None:
    """If a node is a view of c / s: which entry of c and of s each entry reads, and its factor [cells, entries]."""
    source, at = _source(known, operand)
    args = known.graph.nodes[source].args
    if known.graph.nodes[source].op != "mul":
        return None
    for quotient in (args, args[::-1]):
        if (found := _quotient(known, *quotient)) is not None:
            _, entry, row, factors = found
            return entry[at], row[at], factors[:, row[at], entry[at]]
    return None


def _one_vector(c: np.ndarray, s: np.ndarray) -> bool:
    """Different entries, divided by one."""
    return len(np.unique(s)) == 1 and len(np.unique(c)) == len(c)


def _array(a: Any) -> np.ndarray:
    return np.asarray(a.detach().cpu() if hasattr(a, "detach") else a)


def _centred(known: "Intervals", c: int, factors: Any) -> Any:
    """Larger factors of the entries of each row whose entries (those with a positive factor) add up to zero, as of a
    centred vector: c_i^2 = (sum of the others)^2 <= (sum_j c_j^2 q_j) (sum_j 1 / q_j), j running over the others."""
    ar, xp = known.ar, known.ar.xp
    groups = factors > 0
    whole = _array(groups)
    everywhere, somewhere = np.all(whole, 0), np.any(whole, 0)
    zero = _add_up_to_zero(known, c, everywhere) & (everywhere == somewhere).all(-1)
    zero &= somewhere.sum(-1) > 1
    if not zero.any():
        return factors
    use = (
        ar.raw(np.broadcast_to(zero[None, :, None], whole.shape).copy())
        & groups
        & (factors > LEAST)
    )
    inverse = ar.where(use, ar.div(ar.rational(ONE), ar.exact(xp.where(use, factors, 1.0))),
                       ar.point(xp.where(groups, np.inf, 0.0)))  # fmt: skip
    others = ar.ends(ar.sub(ar.sum(inverse).at[..., None], inverse))[1]
    use = use & (others > LEAST) & xp.isfinite(others)
    more = ar.ends(ar.div(ar.rational(ONE), ar.exact(xp.where(use, others, 1.0))))[0]
    return xp.where(use, ar.down(factors + _positive(known, more)), factors)


def _add_up_to_zero(known: "Intervals", c: int, groups: np.ndarray) -> np.ndarray:
    """For which rows the entries of node c in a group [rows, entries] add up to zero, whatever the input: the form that
    adds them is carried backwards in exact integers, up to a common factor, until nothing is left of it."""
    nodes, rows = known.graph.nodes, len(groups)
    if (
        rows * max(prod(nodes[m].shape) for m in known.order[: known.place[c] + 1])
        > ROOM
    ):
        return np.zeros(rows, bool)  # too wide to hold
    zero = np.ones(rows, bool)
    pending: dict[int, np.ndarray] = {
        c: groups.astype(float).reshape(rows, *nodes[c].shape)
    }
    for n in reversed(known.order[: known.place[c] + 1]):
        if n not in pending:
            continue
        k = pending.pop(n)
        if not k.any():
            continue
        known.ar.spend(k.size, 1)
        parts = _integral(known, n, k)
        if parts is None:
            zero &= ~k.reshape(rows, -1).any(1)
            continue
        forms, scale = parts
        pending = {m: form * scale for m, form in pending.items()}
        if not all(_exact(form) for form in pending.values()):
            return np.zeros(rows, bool)
        for (
            operand,
            form,
        ) in (
            forms
        ):  # checked one by one: what follows may cancel a sum that was rounded
            pending[operand] = pending[operand] + form if operand in pending else form
            if not _exact(pending[operand]):
                return np.zeros(rows, bool)
    return zero


def _exact(form: np.ndarray) -> bool:
    """A sum of two such forms, or one times an integer, is rounded only to what is none (a NaN is none)."""
    return bool(np.abs(form).sum() < EXACT)


def _integral(
    known: "Intervals", n: int, k: np.ndarray
) -> tuple[list[tuple[int, np.ndarray]], float] | None:
    """The forms of the operands of node n whose sum is `scale` times the form k, all of integers; None if there
    are none such. Sums of products whose absolute values add up to less than 2^53 are exact."""
    node, nodes = known.graph.nodes[n], known.graph.nodes
    if n in known.fixed or n in known.curved:
        return None
    match node.op:
        case "add":
            return [(a, k) for a in node.args], 1.0
        case "sub":
            return [(node.args[0], k), (node.args[1], -k)], 1.0
        case "view":
            shape = nodes[node.args[0]].shape
            form = np.zeros((len(k), prod(shape)))
            np.add.at(form.T, entries(node.attr).ravel(), k.reshape(len(k), -1).T)
            return [(node.args[0], form.reshape(len(k), *shape))], 1.0
        case "over_root":
            root = isqrt(node.attr)
            return (
                ([(node.args[0], k)], float(root))
                if root * root == node.attr and root < EXACT
                else None
            )
        case "mul" | "einsum":
            at = 1 if node.args[0] in known.fixed else 0
            low, high = (_array(end) for end in known.ends[node.args[1 - at]])
            if (
                len(low) != 1 or not (low == high).all()
            ):  # numbers, and the same ones for every cell
                return None
            number, scale = _whole(low[0])
            if number is None:
                return None
            if node.op == "mul":
                form = k * number
                size = np.abs(k).sum() * np.abs(number).max()
            else:
                *terms, result = node.attr.replace("->", ",").split(",")
                sizes = dict(
                    zip(
                        terms[at] + terms[1 - at],
                        (*nodes[node.args[at]].shape, *number.shape),
                        strict=True,
                    )
                )
                known.ar.spend(len(k) * prod(sizes.values()), 1, 1)
                form = np.einsum(f"Z{result},{terms[1 - at]}->Z{terms[at]}", k, number)
                size = np.abs(k).sum() * np.abs(number).sum()
            return ([(node.args[at], form)], scale) if size < EXACT else None
    return None


def _whole(a: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Integers that are `scale` times the numbers, for a power of two."""
    for bits in range(31):
        number = a * 2.0**bits
        if (number == np.floor(number)).all():
            return number, 2.0**bits
    return None, 1.0

"""Find the witness of rule `mixtures`: directions, centres, halves of boxes and what is taken off there."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.automaton import towards
from mechverify.kernel.mixtures.columns import Columns, Row, centre, mixture
from mechverify.kernel.mixtures.counted import Counted
from mechverify.kernel.mixtures.rule import Group, Leaf, Partition
from mechverify.kernel.ratios.linear import Box, Lead, Linear
from mechverify.kernel.ratios.rule import Partition as Ratios
from mechverify.provers.accuracy.enumerate import patience
from mechverify.provers.accuracy.falsify import CLOSE, replay
from mechverify.provers.accuracy.problem import (
    KEYS,
    AccuracyProblem,
    Attempt,
    Evidence,
    inner_folds,
)
from mechverify.provers.accuracy.ratios import least_leads
from mechverify.provers.base import Budget, unsupported

FINE = 2.0**-30  # of directions; of centres, times their size
LEAVES = 2**9  # of one cell's box
HOPE = 3  # halvings of which one should decide something
MAIN = 2  # directions along which boxes are halved
STEPS, ROUNDS = (
    9,
    5,
)  # of the search for a multiplier: values, and how often they are drawn nearer
MIDDLES = (
    1.0,
    0.7,
    0.5,
    0.35,
)  # shares of a box's main sides within which its middle is bounded
STEEP = 2.0**8  # multiple of a form's slopes, beside which they hardly count
GRID = 2**13  # steps of a counting grid
ATTACKS = 6  # linearisations of the search for wrong inputs
ALIKE = 2.0**-6  # how much smaller than a box one is in which its form is a tangent


@dataclass
class _Half:
    """A part of a cell's box, decided, open, or halved."""

    leaf: Leaf
    cut: tuple[int, float] | None = None
    parts: "list[_Half]" = field(default_factory=list)

    def entry(self) -> Any:
        if self.cut is not None:
            below, above = (p.entry() for p in self.parts)
            at = self.cut[1].hex()
            return {"direction": self.cut[0], "at": at, "below": below, "above": above}
        off, step, winner = self.leaf.multipliers, self.leaf.step, self.leaf.winner
        if off is None and step is None and winner is None:
            return None
        named = {} if winner is None else {"winner": winner}
        off = None if off is None else _written(off)
        return named | {"multipliers": off, "step": step}

    def halved(self, direction: int, at: float) -> "list[_Half]":
        """The parts below and above a place."""
        below, above = self.leaf.high.copy(), self.leaf.low.copy()
        below[direction] = above[direction] = at
        moved = self.leaf._replace(high=below), self.leaf._replace(low=above)
        self.cut, self.parts = (direction, at), [_Half(leaf) for leaf in moved]
        return self.parts


class Mixtures:
    name = "mixtures"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        for other in (
            lambda: problem.partition,
            lambda: Ratios(problem.job, problem.domain, []),
        ):
            if unsupported(other) is None:
                return ""  # what follows is linear, or one layer of ReLU neurons
        return unsupported(lambda: problem.job.once(mixture))

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        with np.errstate(all="ignore"):
            return _Search(problem, budget, patience(problem, budget)).bounded()


class _Search:
    def __init__(self, problem: AccuracyProblem, budget: Budget, most: float = inf):
        """`most`: units of work, after which no further cell is begun."""
        self.problem, self.budget = problem, budget
        self.until = problem.job.ar.work + most
        self.keys = inner_folds(problem.document["equals"])[:KEYS]
        readers = [Reader(rows, "keys") for rows in self.keys]
        self.partition = Partition(problem.job, problem.domain, readers)
        self.wrong: list[np.ndarray] = []
        self.counts: dict[tuple, Counts] = {}
        self.sizes: dict[int, dict] = {}
        self.margins = problem.margins

    def bounded(self) -> Attempt:
        """Both bounds of the right inputs; cells of which nothing is shown are left out."""
        partition, domain = self.partition, self.problem.domain
        queries = domain.tokens[partition.pin]
        eye = np.eye(partition.mixed.value.mid.shape[-1])
        rows = {q: partition.row(q, eye) for q in queries}
        directions = _directions([*rows.values()])
        low, high, cells = partition.unguarded, partition.unguarded, []
        for query in queries:
            sizes = self.sizes[query] = partition.sizes(query)
            usable = rows[query].usable[partition.indices([*sizes])]
            keys = [
                k
                for k, u in zip(sizes, usable, strict=True)
                if u and partition.possible(k)
            ]
            found = self._decided(query, keys, directions, rows[query])
            cells += [[query, list(key), entry] for key, entry in found.items()]
            for key, size in sizes.items():
                wrong = self.counts.get((query, key), partition.unknown(key, size))
                low, high = low + size - wrong.high, high + size - wrong.low
        listed = [_written(row) for row in directions]
        proof = {
            "rule": "mixtures", "keys": self.keys, "directions": listed, "cells": cells,
        }  # fmt: skip
        wrong = np.concatenate(self.wrong) if self.wrong else None
        return Attempt(proof if cells else None, Counts(low, high), None, wrong)

    def _spent(self) -> bool:
        return self.budget.spent() or self.problem.job.ar.work > self.until

    def _decided(
        self, query: int, keys: list, directions: np.ndarray, row: Row
    ) -> dict[tuple, Any]:
        """The entries of the cells that are decided."""
        if not keys or self.partition.outputs < 2 or self._spent():
            return {}
        self.budget.progress(f"bounding {len(keys):,} cells", None)
        try:
            turned = self.partition.row(query, directions)
            centres = self._centres(row, turned, keys, directions)
            with self.budget.rehearsing():
                group = Group(self.partition, turned, directions, keys, centres)
                whole = [group.whole(i) for i in range(len(keys))]
                forms = group.forms(whole)
                least = group.least(whole, forms)
        except Stopped:
            return {}
        result: dict[tuple, Any] = {}
        halves, hope = [_Half(leaf) for leaf in whole], True
        whole_claim = self.problem.at_least == 1
        for i in np.argsort((least <= 0).any(1), kind="stable"):
            half, wrong, certain = halves[i], Counts(0, 0), None
            size = self.sizes[query][keys[i]]
            if not (least[i] > 0).all():
                if self._spent() or (whole_claim and self.wrong):
                    break
                try:
                    mine = forms[0][i], forms[1][i]
                    refuted = self._attacked(group, i, mine, least[i])
                    if refuted or not (hope and self._halved(group, half)):
                        hope = not whole_claim  # then an open cell is enough
                        half, high = self._counted(group, whole[i], least[i], size)
                        certain, low = self._certain(group, whole[i], least[i], size)
                        wrong = Counts(low, high)
                except Stopped:
                    break
            if wrong != Counts(0, size):
                self.counts[query, keys[i]] = wrong
                where = [_written(c) for c in centres[:, i]]
                result[keys[i]] = {"centre": where, "halves": half.entry()}
                if certain is not None:
                    result[keys[i]]["certain"] = certain.entry()
        return result

    def _centres(
        self, row: Row, turned: Row, keys: list, directions: np.ndarray
    ) -> np.ndarray:
        """Of the cells' boxes, [heads, cells, d]: about the middle of what the mixture reaches from the mean."""
        ar, partition = self.partition.ar, self.partition
        factor, value = ar.approximate(row.factor), ar.approximate(row.turned)
        mean = (factor[..., None] * value).sum((1, 2)) / factor.sum((1, 2))[:, None]
        share = (np.abs(value).max((1, 2)) > 0) + 1e-12  # of each entry, by head
        share = share / share.sum(0)
        centres = np.repeat(_rounded(mean)[:, None], len(keys), 1)
        low, high = turned.ranges(partition.indices(keys), centres @ directions.T)
        moved = (low + high) / 2 @ directions
        return _rounded(centres + share[:, None] * moved)

    # --- halves -------------------------------------------------------------------------------------------------------

    def _halved(self, group: Group, root: _Half) -> bool:
        """Whether the cell is decided, by halving what is open along a main direction."""
        open_, leaves, level = [root], 1, 0
        while open_:
            hopeless = level >= HOPE and len(open_) == 2**level
            if hopeless or leaves > LEAVES or self._spent():
                return False
            level += 1
            for half in open_:
                leaf = half.leaf
                j = int((leaf.high - leaf.low)[:MAIN].argmax())
                half.halved(j, float((leaf.low[j] + leaf.high[j]) / 2))
            parts = [part for half in open_ for part in half.parts]
            leaves += len(parts) // 2
            open_ = self._open(group, parts)
        return True

    def _open(self, group: Group, parts: list[_Half]) -> list[_Half]:
        """Those that no multipliers decide; the others get theirs."""
        leaves = [part.leaf for part in parts]
        forms = group.forms(leaves)
        least = group.least(leaves, forms)
        rivals, wide = least.shape[1], group.boxes.low.shape[1]
        best = np.zeros((len(parts), rivals, wide))
        for j in range(MAIN):
            scale = 8 * np.abs(forms[0]).max(-1)
            at, reach = best[..., j].copy(), scale
            for _ in range(ROUNDS):
                if (least > 0).all():
                    break
                tried = np.linspace(-1, 1, STEPS)
                values = at[None] + reach * tried[:, None, None]
                several = np.repeat(best[None], STEPS, 0)
                several[..., j] = values
                found = np.stack(
                    [self._least(group, leaves, forms, some) for some in several]
                )
                top = found.argmax(0)
                better = np.take_along_axis(found, top[None], 0)[0] > least
                at = np.where(
                    better, np.take_along_axis(values, top[None], 0)[0], best[..., j]
                )
                least = np.maximum(least, found.max(0))
                best[..., j], reach = at, reach / 4
        for part, mine in zip(parts, _rounded(best), strict=True):
            if mine.any():
                part.leaf = part.leaf._replace(multipliers=mine)
        decided = np.all(group.least([part.leaf for part in parts], forms) > 0, 1)
        return [part for i, part in enumerate(parts) if not decided[i]]

    def _least(
        self, group: Group, leaves: list[Leaf], forms: tuple, off: np.ndarray
    ) -> np.ndarray:
        moved = [
            leaf._replace(multipliers=m) for leaf, m in zip(leaves, off, strict=True)
        ]
        return group.least(moved, forms)

    # --- counts -------------------------------------------------------------------------------------------------------

    def _counted(
        self, group: Group, whole: Leaf, least: np.ndarray, size: int
    ) -> tuple[_Half, int]:
        """The middle of a cell's box, and what lies beyond, such that at most so many inputs are wrong (of a winner:
        right): those that a form of the middle loses, and those that are not in the middle."""
        if self.problem.at_least == 1:
            return _Half(whole), size  # it wouldn't help
        counted, open_ = Counted(group, whole.cell), np.flatnonzero(~(least > 0))
        found = [(size, _Half(whole))]
        for share in MIDDLES:
            if self._spent():
                break
            root = middle = _Half(whole)
            outer: list[tuple] = []
            for j in range(MAIN if share < 1 else 0):
                low, high = float(root.leaf.low[j]), float(root.leaf.high[j])
                about, far = (low + high) / 2, (high - low) / 2
                middle, beyond = middle.halved(j, about + share * far)
                before, middle = middle.halved(j, about - share * far)
                outer += [(beyond, j, -1.0), (before, j, 1.0)]
            total = sum(
                self._lost(group, counted, half, j, sign, open_.tolist())
                for half, j, sign in [(middle, 0, 0.0), *outer]
            )
            found.append((min(total, size), root))
        high, root = min(found, key=lambda one: one[0])
        return root, high

    def _certain(
        self, group: Group, whole: Leaf, least: np.ndarray, size: int
    ) -> tuple[_Half | None, int]:
        """The same of the rival that wins most surely, such that at least so many inputs are wrong."""
        if self.problem.at_least == 1 or not (least < 0).any():
            return None, 0
        won = whole._replace(winner=int(group.rivals[whole.cell][least.argmin()]))
        root, right = self._counted(group, won, group.least([won])[0], size)
        return (root, size - right) if right < size else (None, 0)

    def _lost(
        self,
        group: Group,
        counted: Counted,
        half: _Half,
        direction: int,
        sign: float,
        open_: list[int],
    ) -> int:
        """A leaf's lost inputs: by its form, or those that lie in it along a direction, on its far side."""
        forms = group.forms([half.leaf])
        if sign:
            off = np.zeros(forms[0].shape[1:])
            off[open_, direction] = sign * STEEP * np.abs(forms[0]).max()
            half.leaf = half.leaf._replace(multipliers=_rounded(off))
        left = np.flatnonzero(~(group.least([half.leaf], forms)[0] > 0)).tolist()
        if not left:
            return 0
        mine = forms[0][0], forms[1][0]
        below = [counted.below(half.leaf, mine, rival) for rival in left]
        step = max(self._step(counted, form) for form in below)
        half.leaf = half.leaf._replace(step=step)
        return sum(counted.lost(form, step) for form in below)

    def _step(self, counted: Counted, form: Linear) -> int:
        """The exponent of a step of which the sums that occur in the cell span about GRID."""
        group = counted.group
        box = Columns(group.row, group.classes[[counted.cell]])
        terms = group.ar.approximate(form.terms)
        low, negated = box.least(np.concatenate([terms, -terms], -1)[None])[0]
        span = max(
            (-negated - low) / GRID, float(np.abs(terms).max()) * 2.0**-28, 2.0**-990
        )
        return int(np.frexp(span)[1]) if np.isfinite(span) else 0

    # --- wrong inputs -------------------------------------------------------------------------------------------------

    def _attacked(
        self, group: Group, cell: int, mine: tuple, least: np.ndarray
    ) -> bool:
        """Whether a wrong input of the cell was found: the least inputs of a form, the form of a small box around the
        mixture there, and so on."""
        partition, ar = self.partition, self.partition.ar
        layers = towards(ar, partition.automaton, int(group.classes[cell]))
        layers = recursion.pin(layers, partition.pin, group.row.query)
        row = group.row
        occurring = [np.concatenate([t for t, _ in layer.groups]) for layer in layers]
        alive = np.isin(row.tokens, np.unique(np.concatenate(occurring)))
        box = Box(
            ar,
            layers,
            row.tokens[alive],
            row.factor.map(lambda a: a[:, alive]),
            row.pin,
        )
        whole = group.whole(cell)
        forms = tuple(a[None] for a in mine)
        for _ in range(ATTACKS):
            lead, _, _ = group.lead([whole], forms)
            value = lead.value.map(lambda a: a[:, alive])
            open_ = np.flatnonzero(~(least > 0))
            some = Lead(
                *(
                    part.map(lambda a, at=open_: a[..., at])
                    for part in (lead.base, value)
                )
            )
            inputs, _ = least_leads(box, some)
            inputs = inputs.T
            margins = self.margins(inputs)
            close = np.unique(inputs[margins <= CLOSE], axis=0)
            wrong, _ = replay(self.problem, self.margins, close)
            if len(wrong):
                self.wrong.append(wrong)
                return True
            worst = inputs[margins.argmin()]
            t = self._turned(group, cell, worst)
            width = ALIKE * (whole.high - whole.low)
            near = Leaf(cell, t - width, t + width, None)
            forms = group.forms([near])
        return False

    def _turned(self, group: Group, cell: int, x: np.ndarray) -> np.ndarray:
        """t of an input, about."""
        ar, row = self.partition.ar, group.row
        at = np.searchsorted(row.tokens, x), np.arange(len(x))
        factor = ar.approximate(row.factor)[:, *at]
        value = ar.approximate(row.turned)[:, *at]
        ratios = (factor[..., None] * value).sum(1) / factor.sum(1)[:, None]
        return centre(ratios) - group.at[cell]


def _directions(rows: list[Row]) -> np.ndarray:
    """An orthonormal basis [d, d] of the mixtures, those first along which changing one token moves them most."""
    changes = []
    for row in rows:
        factor, value = row.ar.approximate(row.factor), row.ar.approximate(row.turned)
        mass = factor.sum((1, 2))
        mean = (factor[..., None] * value).sum((1, 2)) / mass[:, None]
        moved = (
            factor[..., None]
            * (value - mean[:, None, None])
            / mass[:, None, None, None]
        )
        moved = np.where(factor[..., None] > 0, moved, 0.0).sum(
            0
        )  # [tokens, length, d]
        alive = np.any(factor > 0, axis=0)[..., None]
        middle = (moved * alive).sum(0) / np.maximum(alive.sum(0), 1)
        changes.append(
            np.where(alive, moved - middle, 0.0).reshape(-1, value.shape[-1])
        )
    every = np.concatenate([*changes, 1e-12 * np.eye(changes[0].shape[-1])])
    return np.round(np.linalg.svd(every, full_matrices=False)[2] / FINE) * FINE


def _rounded(a: np.ndarray) -> np.ndarray:
    """To numbers that are written in few digits."""
    return np.ldexp(*_parts(a))


def _parts(a: np.ndarray) -> tuple[np.ndarray, int]:
    size = float(np.abs(a).max(initial=0.0))
    exponent = int(np.frexp(size)[1]) - 31 if size else 0
    return np.rint(np.ldexp(a, -exponent)), exponent


def _written(a: np.ndarray) -> list:
    """[exponent, integers] of numbers that a file holds exactly."""
    flat = np.asarray(a, float).ravel()
    size = float(np.abs(flat).max(initial=0.0))
    exponent = int(np.frexp(size)[1]) - 53 if size else 0
    whole = np.ldexp(flat, -exponent)
    if (whole != np.rint(whole)).any():
        raise Rejected("a witness's number has too many digits")
    integers = [int(v) for v in whole]
    while exponent < 0 and not any(v & 1 for v in integers):
        integers, exponent = [v >> 1 for v in integers], exponent + 1
    return [exponent, integers]

"""What was found of a claim, as a notebook shows it: a line, a table, and what went wrong at one input.

All words are the kernel's (kernel/statement/); this module only lays them out. It needs nothing but numpy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np

from mechverify import kernel
from mechverify.errors import advised
from mechverify.files import write
from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.claim import Claim, Theorem
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.errors import MechverifyError
from mechverify.kernel.core.ranges import RangeTheorem
from mechverify.kernel.core.texts import printable
from mechverify.kernel.statement.accuracy import counterexamples
from mechverify.kernel.statement.common import Statement, near, values_at
from mechverify.kernel.statement.ranges import broken
from mechverify.kernel.statement.sentence import state

FIRST = 8  # entries of a site that are shown
MANY = 2**12  # entries of a site beyond which it is not
WIDTH = 160  # characters of a line
COLOURS = {"PROVED": "#1a7f37", "REFUTED": "#c93c37", "BOUNDED": "#0a7ea4"}
HEAD = "text-align:right;vertical-align:top;font-weight:400"
CELL = "text-align:left;overflow-wrap:anywhere;"
Rows = Sequence[tuple[str, str]]


@dataclass(repr=False)
class Verdict:
    """`verdict` is PROVED, REFUTED, BOUNDED or UNKNOWN. `theorem` is what the kernel made of `certificate`, the bytes
    of the file, when it accepted it; None of both where nothing was proved."""

    verdict: str
    theorem: Theorem | None
    certificate: bytes | None

    @property
    def notes(self) -> list[str]:
        """What stood in the way of a verdict, or of tighter bounds."""
        return []

    @cached_property
    def statement(self) -> Statement | None:
        """The theorem in words (docs/statement.md)."""
        return None if self.theorem is None else state(self.theorem)

    @property
    def counterexample(self) -> "Counterexample | None":
        """An input that the kernel replayed: on which the output is wrong, the condition fails, or a threshold is
        broken (most). There may be one beside PROVED, where a claim is of a share of the inputs."""
        if self.theorem is None or self.statement is None:
            return None
        return _counterexample(self.theorem, self.statement)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the certificate; raises MechverifyError where there is none."""
        if self.certificate is None:
            raise MechverifyError(
                f"{self.verdict}: nothing was proved, so there is no certificate to save"
            )
        write(Path(path), self.certificate)
        return Path(path)

    def rows(self) -> Rows:
        """(label, text) of all that is known."""
        notes = [("note", note) for note in self.notes]
        if self.statement is None:
            return [("verdict", self.verdict), *notes]
        proved = [row for row in self.statement.rows() if row[0] != "verdict"]
        return [("verdict", self.verdict), *proved, *self.statement.examples, *notes]

    def __repr__(self) -> str:
        said = self.notes if self.verdict == "UNKNOWN" else []
        if self.statement is not None:
            proved = [f"{label} {text}" for label, text in self.statement.proved[:2]]
            said = [*said, self.statement.claim, *proved]
        return f"<{self.verdict}: {_short(' '.join('; '.join(said).split()))}>"

    def _repr_html_(self) -> str:
        return table(self.rows())


def check(path: str | PathLike[str], *, exact: bool = False, forbid: Iterable[str] = (),
          limit: float | None = None) -> Verdict:  # fmt: skip
    """The kernel's verdict on a certificate file; `exact`, `forbid` and `limit` as kernel.check takes them. Raises
    NotACertificate, Rejected or OverLimit, all of them MechverifyError, and OSError where the file can't be read."""
    data = Path(path).read_bytes()
    try:
        theorem = kernel.check(data, exact=exact, forbid=list(forbid), limit=limit)
    except MechverifyError as error:
        raise advised(error) from None
    return Verdict(theorem.verdict, theorem, data)


# --- What went wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Counterexample:
    """One input of a theorem's that was replayed: ids of `tokens`, and all coordinates of its real `inputs`. `said`: in
    words, what is wrong there."""

    claim: Claim
    tokens: np.ndarray
    inputs: np.ndarray
    said: str

    def explain(self) -> "Explanation":
        """About which values the model takes on the way: of the output and of all its named sites."""
        claim, nodes = self.claim, self.claim.graph.nodes
        sites = {claim.site: claim.sites[claim.site]} | claim.sites
        shown = {
            s: n
            for s, n in sites.items()
            if nodes[n].kind == "real" and prod(nodes[n].shape) <= MANY
        }
        shown = {s: n for s, n in shown.items() if nodes[n].op != "input"}
        values = values_at(claim, [*shown.values()], self.tokens, self._by_input())
        rows = [("input", self._input()), ("wrong", self.said)]
        for (site, n), value in zip(shown.items(), values, strict=True):
            array = np.array([near(v) for v in value.centre]).reshape(nodes[n].shape)
            rows += _entries(
                printable(site, 60),
                array,
                claim.position if site == claim.site else None,
                len(self.tokens),
            )
        return Explanation(tuple(rows))

    def _by_input(self) -> list[np.ndarray]:
        """The coordinates, [1, *shape] each."""
        ends = np.cumsum([prod(shape) for shape in self.claim.shapes])[:-1]
        parts = np.split(self.inputs, ends) if len(self.claim.shapes) else []
        return [
            part.reshape(1, *shape)
            for part, shape in zip(parts, self.claim.shapes, strict=True)
        ]

    def _input(self) -> str:
        ids, values = self.tokens.tolist(), self.claim.graph.values
        meant = [values[i] for i in ids]
        tokens = f"tokens {meant}" if meant == ids else f"tokens {meant} (ids {ids})"
        reals = f"inputs {_numbers(self.inputs)}"
        return " and ".join([tokens] * bool(ids) + [reals] * bool(len(self.inputs)))

    def __repr__(self) -> str:
        return f"<counterexample: {_short(self.said)}; .explain() has the values>"

    def _repr_html_(self) -> str:
        return table([("input", self._input()), ("wrong", self.said)])


@dataclass(frozen=True, repr=False)
class Explanation:
    """(what, value) of each line."""

    rows: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        width = max(len(label) for label, _ in self.rows)
        return "\n".join(f"{label:>{width}}  {text}" for label, text in self.rows)

    def _repr_html_(self) -> str:
        return table(self.rows)


def _counterexample(theorem: Theorem, statement: Statement) -> Counterexample | None:
    claim = theorem.claim
    if isinstance(theorem, CountingTheorem):
        if not len(theorem.wrong):
            return None
        told, said = theorem.wrong[0], statement.examples[0][1]
        if (
            isinstance(claim, AccuracyClaim)
            and (first := counterexamples(theorem)[0]).lead is not None
        ):
            said += f" (lead of the mechanism's output: about {first.lead:.6g})"
        return Counterexample(claim, told, np.zeros(0), said)
    assert isinstance(theorem, RangeTheorem)
    if theorem.verdict != "REFUTED" or not (worst := broken(theorem)):
        return None
    k, said = worst[0].point, statement.examples[0][1]
    return Counterexample(claim, theorem.tokens[k], theorem.points[k], said)


def _entries(
    site: str, values: np.ndarray, position: int | None, length: int
) -> list[tuple[str, str]]:
    """A site's largest entries, or all where they are few; of a matrix the row that is read, or the last one; of heads,
    on `length` tokens, that of each."""
    shape = "x".join(map(str, values.shape)) or "one number"
    if values.ndim == 3 and values.shape[1:] == (length, length):  # attention
        return [
            _row(f"{site}[{head}][{length - 1}]", values[head, -1], shape)
            for head in range(min(len(values), FIRST))
        ]
    if values.ndim == 3 and len(values) == length:  # queries, keys, values
        return [
            _row(f"{site}[{length - 1}][{head}]", values[-1, head], shape)
            for head in range(min(values.shape[1], FIRST))
        ]
    name = site
    while values.ndim > 1:
        row = (
            position
            if position is not None and len(values) > position >= -len(values)
            else -1
        )
        at = len(values) - 1 if values.ndim > 2 or row == -1 else row
        values, name = values[at], f"{name}[{at}]"
    return [_row(name, np.atleast_1d(values), shape)]


def _row(name: str, values: np.ndarray, shape: str) -> tuple[str, str]:
    if len(values) <= FIRST:
        return name, f"{_numbers(values)}  (of {shape})"
    largest = np.argsort(-values, kind="stable")[:FIRST]
    listed = ", ".join(f"{i}: {values[i]:.5g}" for i in largest.tolist())
    return name, f"largest {listed}  (of {shape})"


def _numbers(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:.6g}" for v in values[:FIRST].tolist())
    return f"[{shown}{', ...' if len(values) > FIRST else ''}]"


# --- How it looks -----------------------------------------------------------------------------------------------------


def table(rows: Iterable[tuple[str, str]]) -> str:
    """HTML in the notebook's own colours, dark or light. Verdicts are told by their word; colour only repeats it."""
    cells = []
    for label, text in rows:
        right = CELL
        if label == "verdict":
            right += f"font-weight:600;color:{COLOURS.get(text, 'inherit')}"
        cells.append(
            f'<tr><th scope="row" style="{HEAD}">{escape(label)}</th>'
            f'<td style="{right}">{escape(text)}</td></tr>'
        )
    return f"<table>{''.join(cells)}</table>"


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."

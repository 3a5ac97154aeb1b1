"""The smallest circuit that agrees with its model, and why none that is smaller does.

Circuits are tried in torch at inputs that broke others, so that most of them cost a glance; what is left is proved. The
certificates are two: that the circuit agrees, and the inputs at which the smaller ones don't, each run by the kernel.
A folder holds every finished test, and none is done twice.
"""

import copy
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mechverify.certificate.write import write
from mechverify.claims.agreement import ARGMAX
from mechverify.claims.circuits import Circuits
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.numbers import number
from mechverify.claims.share import Share
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.accuracy.sampling import Sampler
from mechverify.provers.base import Budget
from mechverify.provers.chain import EFFORT, prove
from mechverify.provers.confirm import Outcome, checked, no_time

MINIMAL = {
    "quasi": "without some one of these parts it disagrees",
    "local": "without any one of these parts it disagrees",
    "subset": "every proper subset of these parts disagrees",
    "cardinal": "every circuit of fewer parts disagrees",
}
POOL, FIRST = (
    2**10,
    2**6,
)  # inputs that every circuit is tried at; those that it is tried at first
ROWS = 2**14  # that are asked for at a time
BATCH = 2**11  # that are run at a time: wide sites of more take new memory each time
CLOSE = 1e-7  # a margin nearer to zero isn't believed to be negative
MOST = 2**16  # circuits that have to be refuted

Kept = frozenset[str]


class Test(NamedTuple):
    """`agrees`: proved or refuted; None: neither, and `reason` says why. `wrong`: the model's tokens of an input at
    which it is refuted."""

    agrees: bool | None
    wrong: tuple[int, ...] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Smallest:
    """`kept` agrees, as `proof` certifies. `minimality` says which circuits don't (Hadad, Katz and Bassan,
    arXiv 2602.16823): "quasi": what is left without some one of its parts; "local": without any one; "subset": any
    proper subset; "cardinal": any with fewer parts. `refuted` lists them, each at an input that `refutations`
    certifies; `open` are those of them that were neither proved nor refuted: minimality holds but for them."""

    kept: tuple[str, ...]
    minimality: str
    refuted: tuple[tuple[str, ...], ...]
    open: tuple[tuple[str, ...], ...]
    proof: bytes
    refutations: bytes | None
    files: dict[str, Path]
    tests: int
    seconds: float

    def lines(self, of: int) -> list[tuple[str, str]]:
        """What was found, label and text, of so many parts."""
        meant = MINIMAL[self.minimality] if self.kept else "no circuit is smaller"
        found = [
            ("kept", f"{len(self.kept)} of {of}: {', '.join(self.kept) or 'none'}"),
            (f"{self.minimality}-minimal", f"{meant} ({len(self.refuted):,} refuted)"),
            ("time", f"{self.seconds:.1f} s, {self.tests:,} circuits tested"),
        ]
        if self.open:
            first = ", ".join(map(str, self.open[:4]))
            found.insert(2, ("but for", f"{len(self.open):,} undecided: {first}"))
        return [*found, *(("certificate", str(path)) for path in self.files.values())]


def smallest(
    circuits: Circuits, *, minimal: str = "subset", agrees: Any = ARGMAX, folder: str | Path | None = None,
    time_limit: float | None = None, budget: Budget | None = None,
) -> Smallest:  # fmt: skip
    """The smallest circuit that agrees on every input, or one that is minimal in another sense: see Smallest.

    Finished tests are kept in `folder`, where there is one, and the certificates. Raises ClaimError where not even the
    whole model is shown to agree with itself (outputs that tie), where there are too many circuits to refute, and when
    time is up, with what is known in the folder.
    """
    if minimal not in MINIMAL:
        raise ClaimError(f"minimal={minimal!r}: choose one of {', '.join(MINIMAL)}")
    began, budget = time.monotonic(), budget or Budget()
    if time_limit is not None:
        budget.limit(time_limit)
    search = Search(circuits, agrees, folder, budget)
    kept = search.greedy()
    while (smaller := search.better(kept, minimal)) is not None:
        kept = smaller
    return search.result(kept, minimal, began)


class Search:
    def __init__(
        self, circuits: Circuits, agrees: Any, folder: str | Path | None, budget: Budget
    ):
        self.circuits, self.agrees, self.budget = circuits, agrees, budget
        self.names = circuits.names
        everywhere = circuits.agree(None, agrees=agrees, at_least=None)
        self.problem = AccuracyProblem.of(everywhere, "real")
        self.weights = everywhere.output.model.data
        self.torch = _Torch(circuits, agrees)
        self.pool = self._drawn()
        question = [self.problem.document, [*circuits.described.items()]]
        where = None if folder is None else Path(folder)
        self.store = _Store(where, question, circuits.inputs)

    def _claim(self, keep: Iterable[str]) -> Share:
        return self.circuits.agree(keep, agrees=self.agrees)

    def _drawn(self) -> np.ndarray:
        """Inputs [number, length], without the tokens that say what is kept."""
        drawn = Sampler(self.problem).draw(POOL, np.random.default_rng(0))
        return np.unique(drawn[:, : -len(self.names)], axis=0)

    # --- tests

    def test(self, kept: Kept) -> Test:
        (found,) = self.tests([kept])
        return found

    def tests(self, circuits: Iterable[Kept]) -> Iterator[Test]:
        """Those that inputs of the pool refute, in torch, and a proof or a refutation for each of the others."""
        for some in _chunks(circuits, ROWS // FIRST):
            unknown = [kept for kept in some if kept not in self.store]
            self._glance(unknown)
            for kept in some:
                if kept not in self.store:
                    self._prove(kept)
                yield self.store[kept]

    def _glance(self, circuits: list[Kept]) -> None:
        """Tries circuits at the pool, first at the inputs that broke most."""
        for inputs in (self.pool[:FIRST], self.pool[FIRST:]):
            left = [kept for kept in circuits if kept not in self.store and len(inputs)]
            for some in _chunks(left, max(1, ROWS // max(1, len(inputs)))):
                margins = self.torch.margins(inputs, self.masks(some))
                for kept, at, row in zip(some, margins.argmin(1), margins, strict=True):
                    if row[at] < -CLOSE:
                        self.store[kept] = Test(False, tuple(inputs[at].tolist()))

    def _prove(self, kept: Kept) -> None:
        if self.budget.spent():
            raise ClaimError(
                f"{self.budget.why}; {len(self.store)} circuits are decided{self.store.where}"
            )
        self.budget.progress(
            f"a circuit of {len(kept)} parts, {len(self.store)} decided", None
        )
        outcome = self._proved(kept)
        wrong = None
        if outcome.verdict == "REFUTED":
            assert outcome.theorem is not None
            wrong = tuple(outcome.theorem.tokens[0].tolist()[: -len(self.names)])
            self.pool = np.concatenate([[wrong], self.pool])
        agrees = {"PROVED": True, "REFUTED": False}.get(outcome.verdict)
        if agrees:
            self.store.keep(kept, outcome.certificate)
        self.store[kept] = Test(agrees, wrong, "; ".join(outcome.reasons))

    def _proved(self, kept: Kept) -> Outcome:
        """Each circuit has the time of a search by itself, as far as there is any left."""
        self.budget.reserved = 0.0
        with self.budget.within(EFFORT):
            return prove(self._claim(kept), budget=self.budget)

    def masks(self, circuits: Iterable[Kept]) -> np.ndarray:
        return np.array([[name in kept for name in self.names] for kept in circuits])

    # --- search

    def greedy(self) -> Kept:
        """Parts are left out one after another, those first whose loss moves the margin least, until none can be."""
        kept = frozenset(self.names)
        whole = self.test(kept)
        if not whole.agrees:
            what = (
                f"it differs from itself at {list(whole.wrong)}"
                if whole.wrong
                else whole.reason
            )
            raise ClaimError(
                f"the whole model doesn't agree with itself: {what} (do outputs tie?)"
            )
        for name in self.by_effect():
            if self.test(kept - {name}).agrees:
                kept -= {name}
        return kept

    def by_effect(self) -> list[str]:
        alone = self.masks([frozenset(self.names) - {name} for name in self.names])
        least = self.torch.margins(self.pool[:FIRST], alone).min(1)
        return [self.names[i] for i in np.argsort(-least, kind="stable")]

    def better(self, kept: Kept, minimal: str) -> Kept | None:
        """A smaller circuit that agrees, among those that mustn't."""
        smaller = self.rivals(kept, minimal)
        for rival, test in zip(smaller, self.tests(smaller), strict=True):
            if test.agrees:
                return rival
        return None

    def rivals(self, kept: Kept, minimal: str) -> list[Kept]:
        """The circuits that don't agree where `kept` is minimal, small ones first."""
        if minimal in ("quasi", "local"):
            return [kept - {name} for name in sorted(kept)]
        parts = [name for name in self.names if minimal == "cardinal" or name in kept]
        sizes = range(len(kept))
        number = sum(comb(len(parts), size) for size in sizes)
        if number > MOST:
            raise ClaimError(
                f'minimal="{minimal}": {number:,} smaller circuits are too many to refute; local minimality takes '
                f"{len(kept)}"
            )
        return [frozenset(c) for size in sizes for c in combinations(parts, size)]

    # --- what was found

    def result(self, kept: Kept, minimal: str, began: float) -> Smallest:
        rivals = self.rivals(kept, minimal)
        tests = dict(zip(rivals, self.tests(rivals), strict=True))
        certificate, doubtful = self._certified(
            {r: t.wrong for r, t in tests.items() if t.wrong}
        )
        refuted = [r for r, t in tests.items() if t.wrong and r not in doubtful]
        open_ = [r for r in rivals if r not in refuted]
        if minimal == "quasi" and refuted:
            open_ = []
        proof = self._proof(kept)
        return Smallest(
            self._listed(kept),
            minimal,
            tuple(map(self._listed, refuted)),
            tuple(map(self._listed, open_)),
            proof,
            certificate,
            self.store.write(minimal, agrees=proof, smaller=certificate),
            len(self.store),
            time.monotonic() - began,
        )

    def _listed(self, kept: Kept) -> tuple[str, ...]:
        return tuple(name for name in self.names if name in kept)

    def _proof(self, kept: Kept) -> bytes:
        known = self.store.certificate(kept)
        if known is None:
            outcome = self._proved(kept)
            if outcome.verdict != "PROVED" or outcome.certificate is None:
                why = "; ".join(outcome.reasons) or outcome.verdict
                raise ClaimError(
                    f"the circuit's certificate can't be made again: {why}"
                )
            known = outcome.certificate
            self.store.keep(kept, known)
        return known

    def _certified(
        self, wrong: dict[Kept, tuple[int, ...]]
    ) -> tuple[bytes | None, set[Kept]]:
        """A certificate that circuits fail at these inputs, and those of which the kernel doesn't confirm it."""
        doubtful: set[Kept] = set()
        while wrong:
            inputs = self.circuits.ids(np.array([*wrong.values()]), self.masks(wrong))
            proof = {"rule": "counterexample", "inputs": inputs.tolist()}
            at_most = self.problem.claim.within(
                Counts(0, self.problem.claim.whole - len(wrong))
            )
            certificate = write(
                self.problem.document, self.weights, proof, "BOUNDED", at_most
            )
            try:
                return checked(certificate, self.budget)[1], doubtful
            except Stopped:
                raise ClaimError(f"{no_time(self.budget)}{self.store.where}") from None
            except Rejected as error:
                known = [
                    kept
                    for kept, row in zip(wrong, inputs.tolist(), strict=True)
                    if str(row) in str(error)
                ]
                if not known:
                    raise
                doubtful.update(known)
                wrong = {kept: w for kept, w in wrong.items() if kept not in doubtful}
        return None, doubtful


class _Torch:
    """The circuits' margins in float64: negative where one doesn't agree."""

    def __init__(self, circuits: Circuits, agrees: Any):
        self.circuits, self.agrees = circuits, agrees
        self.within = 0.0 if agrees == ARGMAX else float(number(agrees))
        self.module = copy.deepcopy(circuits.module).double()

    def margins(self, inputs: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """[circuits, inputs], of inputs [number, length] and booleans [circuits, parts]."""
        n, m = len(inputs), len(masks)
        ids = self.circuits.ids(np.tile(inputs, (m, 1)), masks.repeat(n, axis=0))
        found = []
        with torch.no_grad():
            for some in torch.from_numpy(ids).split(BATCH):
                values = self.module(some)
                found.append(
                    values["agreement"]
                    if self.agrees == ARGMAX
                    else self.within - values["difference"]
                )
        return torch.cat(found).numpy().reshape(m, n) if found else np.zeros((m, n))


class _Store(dict[Kept, Test]):
    """Tests of circuits, kept in a folder as soon as they are known, if there is one: tests-KEY.jsonl, a line each, and
    certificates. The key is a hash of the question."""

    def __init__(self, folder: Path | None, question: list[Any], inputs: Tokens):
        super().__init__()
        self.folder, self._certificates = folder, dict[Kept, bytes | None]()
        self.key = hashlib.sha256(
            json.dumps(question, sort_keys=True).encode()
        ).hexdigest()[:16]
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"tests-{self.key}.jsonl"
        if self.file.exists():
            for line in self.file.read_text("utf-8", errors="replace").splitlines():
                self._read(line, inputs)

    def _read(self, line: str, inputs: Tokens) -> None:
        """A line that isn't whole, as one that was being written when the process ended, is passed over. What a line
        says is believed of the search alone: the kernel has the last word."""
        try:
            kept, agrees, wrong, reason = json.loads(line)
            if agrees is False:
                pairs = zip(wrong, inputs.allowed, strict=True)
                if all(token in ids for token, ids in pairs):
                    super().__setitem__(frozenset(kept), Test(False, tuple(wrong)))
            elif agrees is True:
                super().__setitem__(frozenset(kept), Test(True, None, reason))
        except (ValueError, TypeError):
            return

    @property
    def where(self) -> str:
        return (
            f", and stand in {self.file}: the same call goes on" if self.folder else ""
        )

    def __setitem__(self, kept: Kept, test: Test) -> None:
        super().__setitem__(kept, test)
        if self.folder is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([sorted(kept), *test]) + "\n")

    def keep(self, kept: Kept, certificate: bytes | None) -> None:
        self._certificates[kept] = certificate

    def certificate(self, kept: Kept) -> bytes | None:
        return self._certificates.get(kept)

    def write(self, minimal: str, **certificates: bytes | None) -> dict[str, Path]:
        """The files, by what each certifies."""
        if self.folder is None:
            return {}
        files = {}
        for what, certificate in certificates.items():
            if certificate is not None:
                files[what] = self.folder / f"{minimal}-{self.key}-{what}.cert"
                files[what].write_bytes(certificate)
        return files


def _chunks(items: Iterable[Kept], size: int) -> Iterator[list[Kept]]:
    listed = [*items]
    return (listed[i : i + size] for i in range(0, len(listed), size))

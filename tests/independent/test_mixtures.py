"""The kernel and the second checker on rule `mixtures`: what each proves, each enclosure by itself, and what corrupted
certificates show."""

import copy
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from mechverify import Accuracy, capture, lookup, tokens
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.mixtures import rule
from mechverify.kernel.mixtures.behind import Behind
from mechverify.kernel.mixtures.counted import Counted
from mechverify.kernel.mixtures.rule import Group, Partition, _leaves
from mechverify.kernel.proof import prove as proved
from mechverify.provers.accuracy.mixtures import _Search
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.base import Budget
from tests.independent import checker, mixtures
from tests.independent.both import Both
from tests.independent.checker import ZERO, Interval
from tests.independent.test_schema import VALIDATOR
from tests.rounds import ROUNDS, few
from tests.soundness import forge
from tests.soundness.test_mixtures import Made, Net, document, random_group, random_proof, random_tree

# The kernel's ranges and lines may be wider, and so are its limits on grids; not the forms that it accepts.
BOTH = Both(mixtures.check, "right inputs stated|grid is too fine|verdict")
SEEDS = [8, 28, 19, 26, 16, 23]  # one head and two; relu, silu, gelu; norms and none; guards; some inputs wrong


class Case(NamedTuple):
    """A network with a certificate that states what the kernel proves, and how many of its inputs are right."""

    right: int
    doc: dict
    data: bytes

    def file(self) -> bytes:
        return forge.file(self.doc, self.data)


@functools.cache
def case(seed: int, found: bool, one_sided: bool = False) -> Case:
    """`found`: by the search, and not at random; `one_sided`: wrong inputs are counted from above alone."""
    made = Made(seed, guarded=seed % 4 == 3)
    with np.errstate(all="ignore"):
        proof = _Search(made.problem, Budget()).bounded().proof if found else random_proof(made)
        for *_, entry in proof["cells"] if one_sided else []:
            entry.pop("certain", None)
        bounds, _ = proved(Job(made.problem.claim, made.problem.job.ar), Reader(proof, "proof"))
    doc = document(made, json.loads(json.dumps(proof)), *made.problem.claim.within(bounds))
    return Case(int((made.good & made.inside).sum()), doc, made.claim.output.model.data)


@functools.cache
def sharp() -> Case:
    """One that needs all that its witness says: the lead is |t| + u - .1, t the mean of signs, u small, with neurons
    that undo each other. Where t is at most -.2, or at least .2, the lead is linear, and positive there, which
    multipliers show; between, a steep one counts what is not beyond. Where |t| is at most .02 it is negative."""
    net = Net(3, 5, 1, width=2, act="relu", out=2)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.embed.weight[:2] = torch.tensor([[-1.0, 0.02], [1.0, 0.0]])
        net.v.weight += torch.eye(2)
        net.out.weight += torch.eye(2)
        net.mlp[0].weight[:3, 0] = torch.tensor([1.0, 1.0, -1.0])
        net.mlp[2].weight[1, :3] = torch.tensor([2.0, -1.0, 1.0])
        net.mlp[2].bias[1] = -0.1
        net.unembed.weight[1, 1] = 1.0
    x = tokens("x", length=5, vocab=3, allowed=[*[range(2)] * 4, [2]])
    model = capture(net, torch.zeros(1, 5, dtype=torch.long), vocab=3)
    problem = AccuracyProblem.of(Accuracy(model["output"], equals=lookup([1] * 3, x[0]), over=x, at_least=None), "real")

    def half(at: float, below: Any, above: Any) -> dict:
        return {"direction": 0, "at": at.hex(), "below": below, "above": above}

    ends = [{"multipliers": [0, [sign, 0]], "step": None} for sign in (1, -1)]
    middle = {"multipliers": [0, [256, 0]], "step": -10}
    tree = half(-0.2, ends[0], half(0.2, middle, ends[1]))
    sides = [{"winner": 0, "multipliers": [0, [sign * 256, 0]], "step": -10} for sign in (1, -1)]
    about = {"winner": 0, "multipliers": [-1, [1, 0]], "step": None}
    certain = half(-0.02, sides[0], half(0.02, about, sides[1]))
    proof = {"rule": "mixtures", "keys": [], "directions": [[0, [1, 0]], [0, [0, 1]]],
             "cells": [[2, [1], {"centre": [[0, [0, 0]]], "halves": tree, "certain": certain}]]}  # fmt: skip
    doc = {"format": "mechverify-certificate", "version": 5, "cost": None, "axioms": ["ieee754", "capture"],
           "claim": json.loads(json.dumps(problem.document)), "proof": proof,
           "conclusion": {"verdict": "BOUNDED", "right_at_least": "5", "right_at_most": "10"}}  # fmt: skip
    return Case(10, doc, model.data)


def stating(doc: dict, low: int, high: int) -> dict:
    doc = copy.deepcopy(doc)
    doc["conclusion"] |= {"right_at_least": str(low), "right_at_most": str(high)}
    return doc


CASES: dict[str, Callable[[], Case]] = {
    "sharp": sharp,
    **{f"{'found' if found else 'random'} {seed}": functools.partial(case, seed, found)
       for seed in SEEDS for found in (False, True)},
}  # fmt: skip


@pytest.mark.parametrize("name", few(CASES, 5))
def test_both_confirm_what_is_proved_and_neither_more_than_is_true(name):
    some = CASES[name]()
    VALIDATOR.validate(some.doc)
    low, high = (int(some.doc["conclusion"][f"right_at_{end}"]) for end in ("least", "most"))
    right = some.right
    assert low <= right <= high
    mine, kernels = BOTH.agree(some.file())
    assert kernels and mine == "confirmed"
    assert BOTH.agree(forge.file(stating(some.doc, low + 1, high), some.data)) != ("confirmed", True)
    for beyond in ((right + 1, high), (low, right - 1)):
        assert BOTH.agree(forge.file(stating(some.doc, *beyond), some.data)) == ("rejected", False)


# --- Each enclosure by itself ----------------------------------------------------------------------------------------


def exactly(numbers: np.ndarray) -> list[Fraction]:
    return [Fraction(float(v)) for v in numbers]


def dot(numbers: list[Fraction], x: list[Interval]) -> Interval:
    return sum((Interval(k) * v for k, v in zip(numbers, x, strict=True)), ZERO)


def inside(x: list[Interval], low: np.ndarray, high: np.ndarray) -> bool:
    return all(v.hi >= a and v.lo <= b for v, a, b in zip(x, exactly(low), exactly(high), strict=True))


@pytest.mark.parametrize("seed", few(SEEDS, 3))
def test_every_enclosure_of_the_kernel_holds_for_every_input_in_exact_arithmetic(seed):
    """Sizes, mixtures, t, what is left, forms, their signs, and counts; no tolerance but the width of an exact run."""
    some, made = case(seed, False), Made(seed, guarded=seed % 4 == 3)
    partition = Partition(made.problem.job, made.problem.domain, [])
    task = mixtures.Most(some.doc["claim"], some.data)
    assert task.pin() == partition.pin
    decided = counted = 0
    for query in made.problem.domain.tokens[partition.pin]:
        of: dict[tuple, list] = {}
        for x in filter(task.inside, itertools.product(*task.domain)):
            if x[partition.pin] == query:
                of.setdefault((task.mechanism(x),), []).append(task.run(x))
        assert partition.sizes(query) == {key: len(runs) for key, runs in of.items()}
        with np.errstate(all="ignore"):
            group, _ = random_group(made, partition, query)
            leaves = [leaf for i in range(len(group.keys))
                      for leaf in _leaves(group, i, Reader(random_tree(made.rng, group, i), "halves"))]  # fmt: skip
            forms = group.forms(leaves)
            least = group.least(leaves, forms)
        rows, boxes, row = [exactly(b) for b in group.behind.directions], group.boxes, group.row
        for j, leaf in enumerate(leaves):
            runs, at, centre = of[group.keys[leaf.cell]], *(exactly(a[leaf.cell]) for a in (group.at, boxes.centre))
            t = [[dot(b, run.z) - Interval(s) for b, s in zip(rows, at, strict=True)] for run in runs]
            assert all(inside(run.z, row.least, row.most) for run in runs)
            assert all(inside(x, boxes.low[leaf.cell], boxes.high[leaf.cell]) for x in t)
            left = [[run.z[e] - Interval(c) - dot([b[e] for b in rows], x) for e, c in enumerate(centre)]
                    for run, x in zip(runs, t, strict=True)]  # fmt: skip
            assert all(inside(x, -boxes.rest[leaf.cell], boxes.rest[leaf.cell]) for x in left)
            right = group.keys[leaf.cell][0]
            for r, rival in enumerate(group.rivals[leaf.cell]):
                if not np.isfinite(forms[1][j, r]):
                    continue
                slopes, (constant,) = exactly(forms[0][j, r]), exactly(forms[1][j, r : r + 1])
                for run, x in zip(runs, t, strict=True):
                    lead = run.y[right] - run.y[rival]
                    assert not inside(x, leaf.low, leaf.high) or (lead - dot(slopes, x)).hi >= constant
                nu = exactly(np.zeros(len(rows)) if leaf.multipliers is None else leaf.multipliers[r])
                ends = zip(nu, exactly(leaf.low), exactly(leaf.high), strict=True)
                constant -= sum(max(k * a, k * b) for k, a, b in ends) + task.margin
                forms_there = [dot([k + n for k, n in zip(slopes, nu, strict=True)], x) for x in t]
                if least[j, r] > 0:
                    assert all(f.hi + constant > 0 for f in forms_there)
                    decided += 1
                    continue
                with np.errstate(all="ignore"):
                    below = Counted(group, leaf.cell)
                    lost = below.lost(below.below(leaf, (forms[0][j], forms[1][j]), r), -8)
                assert sum(f.hi + constant <= 0 for f in forms_there) <= lost
                counted += lost > 0
    assert decided and (counted or seed == 26)  # where all pairs are decided


FAULTS = {
    "signs of forms": (Group, "least", lambda of: lambda group, leaves, forms: np.abs(of(group, leaves, forms))),
    "what is taken off": (rule, "_most", lambda of: lambda ar, k, low, high: -of(ar, k, low, high)),
    "lost inputs": (Counted, "lost", lambda of: lambda counted, form, step: of(counted, form, step) // 2),
    "constants": (Behind, "affine", lambda of: lambda *a: (of(*a)[0], of(*a)[1] + 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_second_checker_refuses_what_a_kernel_with_a_fault_states(name, monkeypatch):
    place, method, fault = FAULTS[name]
    monkeypatch.setattr(place, method, fault(getattr(place, method)))

    steep = copy.deepcopy(sharp().doc)
    steep["proof"]["cells"][0][2] = {"centre": [[0, [0, 0]]], "halves": {"multipliers": [20, [0, 1]], "step": None}}
    files = [forge.file(stating(steep, 16, 16), sharp().data)]
    files += [case.__wrapped__(seed, found, True).file() for found in (False, True) for seed in SEEDS[:4]]
    assert any(not BOTH.kernels(file) and refuses(file) for file in files)


def refuses(file: bytes) -> bool:
    """The second checker, surely."""
    try:
        checker.check(file, make=mixtures.Most)
    except checker.Rejected:
        return True
    return False


# --- Corrupted certificates ------------------------------------------------------------------------------------------

Change = Callable[[dict, Case], None]


def cells(doc: dict) -> list:
    return doc["proof"]["cells"]


def nodes(doc: dict, field: str, cut: bool) -> list[dict]:
    """The objects that cut a box in two, or those at the ends of these trees."""
    todo, found = [entry[field] for *_, entry in cells(doc) if field in entry], []
    while todo:
        node = todo.pop()
        if node is not None and ("direction" in node) == cut:
            found.append(node)
        if node is not None and "direction" in node:
            todo += [node["below"], node["above"]]
    return found


leaves, halved, winners, winners_cuts = (
    functools.partial(nodes, field=field, cut=cut) for field in ("halves", "certain") for cut in (False, True)
)


def in_every(of: Callable[[dict], list], **changes: Any) -> Change:
    def change(doc: dict, some: Case) -> None:
        for node in of(doc):
            node.update(copy.deepcopy(changes))

    return change


def root(tree: Callable[[Any], Any]) -> Change:
    """Another tree in the first cell's place."""

    def change(doc: dict, some: Case) -> None:
        entry = cells(doc)[0][2]
        entry["halves"] = tree(entry["halves"])

    return change


def deep(tree: Any, times: int) -> Any:
    for _ in range(times):
        tree = {"direction": 0, "at": (0.0).hex(), "below": tree, "above": None}
    return tree


def cut(**changes: Any) -> Change:
    whole = {"direction": 0, "at": (0.0).hex(), "below": None, "above": None}
    return root(lambda _: {k: v for k, v in (whole | changes).items() if v != "left out"})


def leaf(multipliers: Any = None, step: Any = None, **more: Any) -> Change:
    return root(lambda _: {"multipliers": multipliers, "step": step, **more})


def setting(*path: Any, to: Any) -> Change:
    def change(doc: dict, some: Case) -> None:
        forge.put(doc, path, to(forge.entry_at(doc, path)) if callable(to) else to)

    return change


def another_class(doc: dict, some: Case) -> None:
    """A cell's label is that of another one."""
    first = cells(doc)[0]
    first[1] = next(row[1] for row in cells(doc) if row[0] == first[0] and row[1] != first[1])


WRITTEN = ("proof", "directions", 0)
ENTRY = ("proof", "cells", 0, 2)


def certain(leaf: dict | None) -> Change:
    """In the first cell; a field may depend on the right output."""

    def change(doc: dict, some: Case) -> None:
        _, (right, *_), entry = cells(doc)[0]
        made = {k: v(right) if callable(v) else v for k, v in (leaf or {}).items()}
        entry["certain"] = None if leaf is None else {"multipliers": None, "step": None} | made

    return change


# What no checker may read: the form is not that of the page.
MALFORMED: dict[str, Change] = {
    "cell twice": lambda doc, some: cells(doc).append(cells(doc)[0]),
    "cell without inputs": setting("proof", "cells", 0, 1, to=[99]),
    "cell of a token that isn't there": setting("proof", "cells", 0, 0, to=99),
    "class of two numbers": setting("proof", "cells", 0, 1, to=lambda c: [*c, 0]),
    "class of another cell": another_class,
    "key that cells don't name": setting("proof", "keys", to=[[["integer", [], 0]]]),
    "nine keys": setting("proof", "keys", to=[[["integer", [], 0]]] * 9),
    "direction dropped": setting("proof", "directions", to=lambda rows: rows[:1]),
    "direction twice": setting("proof", "directions", to=lambda rows: [*rows, rows[0]]),
    "no directions": setting("proof", "directions", to=[]),
    "number of 2^53": setting(*WRITTEN, 1, 0, to=2**53),
    "exponent of 901": setting(*WRITTEN, 0, to=901),
    "number as text": setting(*WRITTEN, 1, 0, to="1"),
    "truth for a number": setting(*WRITTEN, 1, 0, to=True),
    "centre for a head more": setting(*ENTRY, "centre", to=lambda rows: [*rows, rows[0]]),
    "centre for a head less": setting(*ENTRY, "centre", to=lambda rows: rows[:-1]),
    "centre of fewer entries": setting(*ENTRY, "centre", 0, 1, to=lambda v: v[:-1]),
    "no centre": lambda doc, some: cells(doc)[0][2].pop("centre"),
    "a field more in a cell": setting(*ENTRY, "note", to=1),
    "half left out": cut(above="left out"),
    "cut along no direction": cut(direction=99),
    "cut at a number of JSON": cut(at=0),
    "cut at infinity": cut(at="inf"),
    "65 halves": root(lambda tree: deep(tree, 65)),
    "one multiplier": leaf([0, [1]]),
    "step of 2000": leaf(step=2000),
    "a field more in a leaf": leaf(at="0x0.0p+0"),
    "winner that is right": certain({"winner": lambda m: m}),
    "winner that is no output": certain({"winner": lambda m: 99}),
    "winner of -1": certain({"winner": lambda m: -1}),
    "certain without a winner": certain({}),
    "certain of nothing": certain(None),
    "winner's multipliers for all rivals": certain({"winner": lambda m: 1 - m, "multipliers": [0, [0] * 99]}),
    "no keys": lambda doc, some: doc["proof"].pop("keys"),
    "another rule's name": setting("proof", "rule", to="ratios"),
    "float32": setting("claim", "semantics", to="float32"),
    "other weights": setting("claim", "weights_sha256", to=hashlib.sha256(b"").hexdigest()),
    "no axioms": setting("axioms", to=[]),
    "version 4": setting("version", to=4),
}  # fmt: skip
# What may say less than before, and nothing that is false: kernel and second checker find out.
WEAKER: dict[str, Change] = {
    "cell dropped": lambda doc, some: cells(doc).pop(0),
    "directions of zeros": setting(*WRITTEN, 1, to=lambda v: [0] * len(v)),
    "direction turned": setting(*WRITTEN, 1, to=lambda v: v[::-1]),
    "direction of 2^900": setting(*WRITTEN, 0, to=900),
    "centre far away": setting(*ENTRY, "centre", 0, 1, 0, to=2**40),
    "no steps": in_every(leaves, step=None),
    "no multipliers": in_every(leaves, multipliers=None),
    "cuts elsewhere": in_every(halved, at=(0.25).hex()),
    "cuts outside": in_every(halved, at=(1e300).hex()),
    "cuts along another direction": in_every(halved, direction=1),
    "halves for one another": lambda doc, some: [n.update(below=n["above"], above=n["below"]) for n in halved(doc)],
    "lower halves alone": lambda doc, some: [n.update(above=n["below"]) for n in halved(doc)],
    "multipliers of other signs": lambda doc, some: [
        n["multipliers"].__setitem__(1, [-k for k in n["multipliers"][1]]) for n in leaves(doc) if n["multipliers"]
    ],
    "multipliers times 2^30": lambda doc, some: [
        n["multipliers"].__setitem__(0, n["multipliers"][0] + 30) for n in leaves(doc) if n["multipliers"]
    ],
    "winners' cuts elsewhere": in_every(winners_cuts, at=(0.25).hex()),
    "no winners' steps": in_every(winners, step=None),
    "winners left out": lambda doc, some: [row[2].pop("certain", None) for row in cells(doc)],
    "certain as halves": lambda doc, some: [
        row[2].update(halves={"multipliers": None, "step": -10}) for row in cells(doc)
    ],
    "empty tree": root(lambda _: None),
    "64 halves": root(lambda tree: deep(tree, 64)),
}  # fmt: skip
# Of grids, in which the kernel alone counts; and multipliers that the second checker's own lines need not.
KERNELS: dict[str, Change] = {
    "upper winners alone": lambda doc, some: [n.update(below=n["above"]) for n in winners_cuts(doc)],
    "winners' halves for one another": lambda doc, some: [
        n.update(below=n["above"], above=n["below"]) for n in winners_cuts(doc)
    ],
    "no winners' multipliers": in_every(winners, multipliers=None),
    "coarse steps": in_every(leaves, step=40),
    "steps of 2^-1000": in_every(leaves, step=-1000),
}


def outcome(some: Case, change: Change) -> tuple[str, bool] | None:
    doc = copy.deepcopy(some.doc)
    try:
        change(doc, some)
    except (StopIteration, IndexError):
        return None  # nothing to change there
    return None if doc == some.doc else BOTH.agree(forge.file(doc, some.data))


@pytest.mark.parametrize("name", MALFORMED)
def test_neither_reads_what_the_page_forbids(name):
    found = [outcome(case(seed, False), MALFORMED[name]) for seed in SEEDS[:3]]
    assert set(found) - {None} == {("rejected", False)}


@pytest.mark.parametrize("name", WEAKER | KERNELS)
def test_a_corrupted_witness_shows_less(name):
    """Of every kind; and of none does the kernel accept what the second checker surely refuses."""
    change = (WEAKER | KERNELS)[name]
    assert outcome(sharp(), change) in [("confirmed" if name in KERNELS else "open", False), ("rejected", False)]
    for seed in SEEDS[:2]:
        outcome(case(seed, False), change)


# --- Certificates whose statement another claim makes false ----------------------------------------------------------


def flipped(doc: dict, data: bytes, name: str, by: float) -> bytes:
    """Weights of another model, under their own name."""
    tensors = load(data)
    data = save({**tensors, name: by * tensors[name]})
    doc["claim"]["weights_sha256"] = hashlib.sha256(data).hexdigest()
    return data


def table(doc: dict) -> list[int]:
    return doc["claim"]["equals"][-1][2]


def false_statements(some: Case) -> dict[str, tuple[dict, bytes]]:
    """Each with a proof and counts that were of the claim before it was changed."""
    found: dict[str, tuple[dict, bytes]] = {}

    def changed(name: str, change: Callable[[dict], bytes | None]) -> None:
        doc = copy.deepcopy(some.doc)
        data = change(doc) or some.data
        found[name] = doc, data

    def another_answer(doc: dict) -> None:
        table(doc)[:] = [(m + 1) % 2 if m in (0, 1) else 0 for m in table(doc)]

    def put(*path: Any, to: Any) -> Callable[[dict], None]:
        return lambda doc: forge.put(doc, path, to)

    changed("a margin that no lead has", put("claim", "margin", to="1000000/1"))
    changed("another mechanism", another_answer)
    changed("no output's value", put("claim", "equals", to=[["integer", [], -1]]))
    changed("weights of another sign", lambda doc: flipped(doc, some.data, "unembed.weight", -64.0))
    changed("one more is right", put("conclusion", "right_at_least", to=str(some.right + 1)))
    changed("one less is right", put("conclusion", "right_at_most", to=str(some.right - 1)))
    changed(
        "proved of all", lambda doc: doc["claim"].update(at_least="1/1") or doc["conclusion"].update(verdict="PROVED")
    )
    return found  # fmt: skip


@pytest.mark.parametrize("seed", few(SEEDS[1:4], 1))
def test_a_proof_of_another_claim_shows_nothing_false(seed):
    """The cells that the proof names are left as they are, or are those of the changed mechanism, all with its trees."""
    told: Counter = Counter()
    for found in (False, True):
        some = case(seed, found)
        for name, (doc, data) in false_statements(some).items():
            entry = cells(doc)[0][2]
            task = mixtures.Most(doc["claim"], data)
            every = sorted({(x[task.pin()], task.mechanism(x)) for x in itertools.product(*task.domain)
                            if task.inside(x)})  # fmt: skip
            low, high = (int(doc["conclusion"][f"right_at_{end}"]) for end in ("least", "most"))
            sure = [task.right(x) for x in itertools.product(*task.domain) if task.inside(x)]
            false = low > len(sure) - sure.count(False) or high < sure.count(True)
            verdict = doc["conclusion"]["verdict"] == "PROVED" and low < len(sure)
            renamed = {**doc, "proof": {**doc["proof"], "cells": [[q, [m], entry] for q, m in every]}}
            for file in (forge.file(doc, data), forge.file(renamed, data)):
                mine, kernels = BOTH.agree(file)
                told[name] += false or verdict
                assert not (false or verdict) or (mine, kernels) == ("rejected", False), name
    assert len([name for name, count in told.items() if count]) >= 5, told


@pytest.mark.parametrize("seed", few(SEEDS, 3))
def test_both_agree_on_files_with_one_change(seed):
    """Anywhere in the proof and the conclusion, and one time of three in the claim."""
    rng, told = np.random.default_rng(seed), Counter()
    for trial in range(2 * ROUNDS):
        some = case(seed, bool(trial % 2))
        places = forge.places(some.doc["claim"] if trial % 3 == 0 else some.doc["proof"])
        path = ("claim" if trial % 3 == 0 else "proof", *places[int(rng.integers(len(places)))])
        if path[:2] == ("claim", "graph"):
            path = ("conclusion", str(rng.choice([*some.doc["conclusion"]])))
        doc = copy.deepcopy(some.doc)
        forge.spoil_leaf(doc, path, rng)
        told[BOTH.agree(forge.file(doc, some.data))] += 1
    assert len(told) > 1, told

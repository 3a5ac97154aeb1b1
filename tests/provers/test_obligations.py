"""A search that is cut into obligations: whoever answers them, and whatever is killed, the certificate is the same."""

import importlib.util
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from sympy import Max

from mechverify import Accuracy, Bounds, ClaimError, Share, ball, capture, prove, tokens, transformer
from mechverify.kernel import check
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.provers import domains, executors
from mechverify.provers.accuracy import enumerate as enumerate_
from mechverify.provers.accuracy import falsify, find, ratios
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.accuracy.ratios import Ratios
from mechverify.provers.base import Budget
from mechverify.provers.executors import Processes
from mechverify.provers.obligations import Desk
from mechverify.provers.ranges import subproblems
from mechverify.provers.ranges.branch import Branching
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.subproblems import Sizes
from mechverify.provers.remaining import Remaining
from mechverify.provers.store import Store
from proofs import induction
from tests.models import as_bytes, random_weights
from tests.provers.test_nested import alone as nested_alone
from tests.provers.test_nested import induction as nested_model
from tests.provers.test_ratios import claimed, heads

ROOT = Path(__file__).parent.parent.parent
SMALL = Sizes(first=4, cells=2, quota=24, few=1)  # so that a second's proof has many parts


def network(dims: int, hidden: int, scale: float, seed: int = 0):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(dims, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)
    net = torch.nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        net[0].weight *= scale
    return net.requires_grad_(False)


def most_of(net, dims: int) -> float:
    points = 2 * torch.rand(100_000, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    return float(net(points).max())


def range_claim(room: float = 0.05, dims: int = 3) -> Bounds:
    net = network(dims, 8, 4.0)
    model = capture(net, torch.zeros(1, dims, dtype=torch.float64))
    return Bounds(model["output"][0], over=ball([0.0] * dims, 1), at_most=round(most_of(net, dims) + room, 6))


def share_claim() -> Share:
    model = capture(network(2, 8, 2.0), torch.zeros(1, 2, dtype=torch.float64))
    return Share(model["output"][0] > 0.1, over=ball([0.0, 0.0], 1), within="1/200")


def fold_claim(weights) -> Accuracy:
    x = tokens("x", length=4, vocab=64)
    return Accuracy(transformer(weights).logits[-1], equals=Max(*x), over=x)


def two_layers(folder: Path) -> Accuracy:
    """4,096 inputs of a model that no rule takes apart."""
    weights = random_weights(np.random.default_rng(0), vocab=8, length=4, d=6, e=3, layers=2, mlp=6)
    (folder / "two.safetensors").write_bytes(as_bytes(weights))
    x = tokens("x", length=4, vocab=8)
    model = transformer(folder / "two.safetensors", act_fn="relu")
    return Accuracy(model.logits[-1], equals=Max(*x), over=x)


def proved(claim, desk: Desk | None):
    with Budget(desk=desk, store=None if desk is None else desk.store) as budget:
        return prove(claim, budget=budget, solver=False)


@pytest.fixture
def many_parts(monkeypatch):
    monkeypatch.setattr(subproblems, "CHEAP", SMALL)
    monkeypatch.setattr(subproblems, "DEAR", SMALL)

    monkeypatch.setattr(enumerate_, "NUMBERS", 2**19)  # parts of 512 inputs
    monkeypatch.setattr(falsify, "SAMPLES", 2**6)  # so that they aren't run before


def nested_claim(folder: Path, monkeypatch) -> Accuracy:
    """Cells of which some stay open, and are cut."""
    nested_alone(monkeypatch)
    return induction.claim(nested_model(folder, noise=0.2)[0], others="any", at_least=None)


def ratios_claim(folder: Path, monkeypatch) -> Accuracy:
    """Cells that are listed, and counted."""
    monkeypatch.setattr(find, "PROVERS", [Ratios()])
    monkeypatch.setattr(ratios, "TOGETHER", 4)
    return claimed(heads(2, noise=0.15, vocab=3, length=18), folder)


@pytest.fixture(params=["range", "share", "fold", "enumerated", "nested", "ratios"])
def claim(request, shipped, many_parts, tmp_path, monkeypatch):
    made = {"range": range_claim, "share": share_claim, "fold": lambda: fold_claim(shipped(4))}
    made |= {"enumerated": lambda: two_layers(tmp_path), "nested": lambda: nested_claim(tmp_path, monkeypatch)}
    made |= {"ratios": lambda: ratios_claim(tmp_path, monkeypatch)}
    return made[request.param]()


def test_processes_come_to_the_same_bytes(claim):
    plain = proved(claim, None)
    alone, several = Desk(), Desk(Processes(2))
    here = proved(claim, alone)
    assert here.certificate == proved(claim, several).certificate == plain.certificate
    assert check(here.certificate).verdict == here.verdict == plain.verdict
    assert len(alone.taken) >= 2 and len(several.taken) >= len(alone.taken)  # a few are begun that nobody needs


def test_with_optimised_lines():
    """More than 16 coordinates: the search's own lines are in the tree. One obligation, here and elsewhere."""
    torch.manual_seed(1)
    layers = torch.nn.Linear(17, 5), torch.nn.ReLU(), torch.nn.Linear(5, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1)
    model = capture(torch.nn.Sequential(*layers).double().eval(), torch.zeros(1, 17, dtype=torch.float64))
    problem = RangeProblem.of(Bounds(model["output"][0], over=ball([0.0] * 17, 1), at_most=0.1), "real")
    work = Branching(problem, Budget())
    work.relax([({}, problem.domain, 1.0)])
    asked = [2, 0, [subproblems._told(cell) for cell in subproblems._taken(work)]]
    assert work.deep and len(asked[2]) == 1
    with Budget(desk=Desk()) as here, Budget(desk=Desk(Processes(1))) as there:
        answers = [budget.ask(subproblems.bounded, problem, asked)() for budget in (here, there)]
    assert answers[0] == answers[1] and answers[0]["total"] == 2
    assert answers[0]["trees"][0]["rule"] == "split" and '"lines": [[' in json.dumps(answers[0]["trees"])


def test_a_false_claim_is_refuted_by_the_same_input(many_parts, monkeypatch):
    """Also where the search finds it in a part, and others are under way."""
    claim = range_claim(room=-0.002)
    for name in ("sample", "look"):
        monkeypatch.setattr(
            f"mechverify.provers.ranges.{'search' if name == 'sample' else 'best_first'}.{name}", nothing
        )
    monkeypatch.setattr("mechverify.provers.ranges.search.PROVERS", [subproblem_prover()])
    found = [proved(claim, desk) for desk in (Desk(), Desk(Processes(2)))]
    assert [f.verdict for f in found] == ["REFUTED"] * 2 and found[0].certificate == found[1].certificate


def nothing(problem, known, *_):
    from mechverify.provers.ranges.inputs import Inputs

    return Inputs.none() if isinstance(known, Budget) else None


def subproblem_prover():
    from mechverify.provers.ranges.best_first import Branch

    return Branch()


def test_a_killed_worker_loses_nothing(many_parts):
    claim, pool = range_claim(), Processes(2)
    whole, desk, killed = proved(claim, Desk()).certificate, Desk(pool), []

    def kill() -> None:
        while len(killed) < 3 and not over.wait(0.02):
            for worker in [pool.all[pipe] for pipe in [*pool.busy] if pipe in pool.all][:1]:
                if len(desk.taken) > 2 * len(killed):
                    os.kill(worker.process.pid, signal.SIGKILL)
                    killed.append(worker.process.pid)

    over = threading.Event()
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert proved(claim, desk).certificate == whole
    finally:
        over.set()
        thread.join()
    assert len(set(killed)) >= 1 and not pool.all


def test_an_obligation_that_ends_every_worker_is_given_up():
    """It fails closed, with what to do."""
    pool = Processes(1)
    try:
        pool.start(0, executors.Task(f"{__name__}:dies", "a", None, 100.0), pickle.dumps(Question()))
        answers: list = []
        while not answers:
            answers = pool.finished(1)
    finally:
        pool.close()
    assert "--jobs" in str(answers[0][1].error) and answers[0][1].text is None


def dies(problem, asked, budget):
    os._exit(1)


class Question:
    """A problem that is no claim."""

    content, travels = "q", True

    def watched(self, watch):
        self.watch = watch


def squared(problem, asked, budget):
    return asked**2


def slow(problem, asked, budget):
    while not budget.spent():
        time.sleep(0.01)
    raise Stopped


def refused(problem, asked, budget):
    raise Rejected("no such thing")


@pytest.fixture
def pool():
    with Budget(desk=Desk(Processes(2))) as budget:
        yield budget


def test_answers_come_in_the_order_in_which_they_were_asked(pool):
    promises = (pool.ask(squared, Question(), n) for n in range(20))
    assert [*pool.in_order(promises)] == [n**2 for n in range(20)]


def test_what_a_worker_raises_is_raised_here(pool):
    with pytest.raises(Rejected, match="no such thing"):
        pool.ask(refused, Question(), None)()
    assert pool.ask(squared, Question(), 3)() == 9


def test_time_limits_and_interrupts_reach_the_workers(pool):
    pool.limit(3)
    promise, begun = pool.ask(slow, Question(), None), time.monotonic()
    with pytest.raises(Stopped):
        promise()
    assert time.monotonic() - begun < 8
    with pool.searching():
        pool.deadline = float("inf")
        pool.ask(slow, Question(), None)
        time.sleep(0.2)
        busy = [worker.process for worker in pool.desk.executor.all.values()]
    pool.desk.drop()  # as the end of a search does
    assert any(process.poll() is not None for process in busy) and not pool.desk.executor.busy
    assert pool.ask(squared, Question(), 4)() == 16


def where(problem, asked, budget):
    time.sleep(0.05)
    return os.getpid()


def test_processes_are_begun_once_there_is_work_enough(many_parts):
    """A short proof is done here, and none is begun."""
    claim, pool = range_claim(), Processes(2, patience=1000.0)
    desk = Desk(pool)
    with Budget(desk=desk) as budget:
        assert prove(claim, budget=budget, solver=False).certificate == proved(claim, Desk()).certificate
        assert not pool.all and len(desk.taken) >= 2


def test_what_waits_for_processes_is_answered_here(monkeypatch):
    """While they load, and then there; and for good where none of them ever is."""
    with Budget(desk=Desk(Processes(2, patience=0.1))) as budget:
        pids, begun = [], time.monotonic()
        while len({*pids}) < 3 and time.monotonic() - begun < 60:
            pids += budget.in_order([budget.ask(where, Question(), len(pids))])
            pids += budget.in_order(budget.ask(where, Question(), len(pids) + i) for i in range(6))
        assert len({*pids}) == 3 and pids[0] == os.getpid() and pids[-1] != os.getpid()
    monkeypatch.setattr(executors.sys, "executable", "/bin/false")
    with Budget(desk=Desk(pool := Processes(2, patience=0.0))) as budget:
        promises = (budget.ask(where, Question(), n) for n in range(40))
        assert {*budget.in_order(promises)} == {os.getpid()} and executors.TRIES <= pool.lost <= executors.TRIES + 1


def test_memory_of_workers_counts(pool):
    pool.ask(squared, Question(), 1)()
    assert pool.desk.memory() > 10e6


def test_workers_end_with_their_parent(tmp_path):
    """Even where it is killed, and they are in the middle of something."""
    code = (
        "import sys, time; from mechverify.provers.executors import Processes; p = Processes(2); time.sleep(1);"
        "print(*[w.process.pid for w in p.all.values()], flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [*map(int, process.stdout.readline().split())]
    process.kill()
    process.wait()
    for _ in range(100):
        alive = [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and "Z" not in state(pid)]
        if not alive:
            break
        time.sleep(0.1)
    assert len(pids) == 2 and not alive


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_what_is_kept_is_not_asked_again(claim, tmp_path):
    first = Desk(store=Store(tmp_path / "kept.sqlite"))
    whole = proved(claim, first).certificate
    again = Desk(Processes(1), Store(tmp_path / "kept.sqlite"))
    assert proved(claim, again).certificate == whole
    assert not again.taken and len(first.taken) >= 2


class Mortal(Store):
    """Raises when it has kept so many answers, as a process that is killed then."""

    lives: int

    def keep(self, key: str, answer: str) -> None:
        super().keep(key, answer)
        if self.new >= self.lives:
            raise KeyboardInterrupt


def test_a_run_that_ends_again_and_again_goes_on(claim, tmp_path):
    """Whatever it was asked is answered once, and the certificate is the same."""
    whole, taken, path = Desk(), [], tmp_path / "kept.sqlite"
    certificate = proved(claim, whole).certificate
    for _ in range(8):
        desk = Desk(store=Mortal(path))
        desk.store.lives = max(1, len(whole.taken) // 3)
        with suppress(KeyboardInterrupt):
            found = proved(claim, desk)
            break
        taken += desk.taken
    assert found.certificate == certificate and taken and len(taken) + len(desk.taken) == len(whole.taken)


def test_cells_that_are_cut_come_back_whole(tmp_path, monkeypatch):
    """As JSON says them, and from a store."""
    monkeypatch.setattr(ratios, "LISTED", 20)
    problem = AccuracyProblem.of(claimed(heads(2, noise=0.3, vocab=5, length=4), tmp_path).changed(margin=0), "real")
    kept = tmp_path / "kept.sqlite"
    proofs, desks = [], [None, Desk(), Desk(store=Store(kept)), Desk(store=Store(kept))]
    for desk in desks:
        with Budget(desk=desk) as budget:
            proofs.append(json.dumps(ratios.bounded(problem, budget).proof))
    assert len({*proofs}) == 1 and '"cut"' in proofs[0] and '"certain": [' in proofs[0]
    assert desks[2].taken and not desks[3].taken


@pytest.mark.parametrize("at_least", ["0.9", "0.1"])
def test_what_settles_a_claim_ends_its_enumeration(at_least, many_parts, monkeypatch):
    """Refuted, or proved, of some parts of all, the same ones whoever runs them."""
    torch.manual_seed(0)
    layers = (
        torch.nn.Embedding(8, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 8),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 2),
    )
    model = capture(torch.nn.Sequential(*layers).double().eval(), torch.zeros(1, 4, dtype=torch.int64))
    claim = Share(model["output"][0] > model["output"][1], over=tokens("x", length=4, vocab=8), at_least=at_least)
    monkeypatch.setattr(enumerate_, "NUMBERS", 2**13)
    monkeypatch.setattr(falsify, "BATCH", 2**6)  # it finds too few wrong inputs itself
    found, here = [], Desk()
    for desk in (None, here, Desk(Processes(2))):
        found.append(proved(claim, desk))
    assert found[0].verdict == ("PROVED" if at_least == "0.1" else "REFUTED")
    assert len({f.certificate for f in found}) == 1 and "open" in found[0].theorem.rules
    assert 1 < len(here.taken) < 8


@pytest.mark.parametrize("near", [1e-6, np.inf])
def test_what_the_kernel_is_asked_of_an_enumeration_is_divided(near, many_parts, tmp_path, monkeypatch):
    """Where torch has run all inputs, those that lie near zero are left."""
    problem = AccuracyProblem.of(two_layers(tmp_path).changed(margin=0), "real")
    margins = problem.margins(np.concatenate([*problem.inputs(problem.domain)]))
    monkeypatch.setattr(enumerate_, "LITTLE", 2**6)
    found, desks = [], [None, Desk(), Desk(Processes(1))]
    for desk, known in [(desk, known) for desk in desks for known in (None, margins)]:
        with Budget(desk=desk) as budget:
            found.append(enumerate_.enumerated(problem, budget, problem.claim.total, 0.0, near, known))
    assert all(f.right == Counts(n := int((margins > 0).sum()), n) for f in found)
    assert all(f.proof == found[0].proof and (f.wrong == found[0].wrong).all() for f in found)
    assert len(desks[1].taken) == (8 if near < 1 else 16)


def test_ties_are_settled_in_obligations(many_parts, tmp_path, monkeypatch):
    """In exact arithmetic, by eights."""
    claim = two_layers(tmp_path).changed(margin=0)
    problem, leads = AccuracyProblem.of(claim, "real"), []
    ids = np.concatenate([*problem.inputs(problem.domain)])
    monkeypatch.setattr(enumerate_, "decide", lambda job, some: np.zeros((2, len(some)), bool))
    close = np.sort(np.abs(problem.margins(ids)))[20]
    for desk in (
        None,
        Desk(),
        Desk(store=Store(tmp_path / "kept.sqlite")),
        Desk(store=Store(tmp_path / "kept.sqlite")),
    ):
        with Budget(desk=desk) as budget:
            leads.append(enumerate_.enumerated(problem, budget, problem.claim.total, 0.0, close))
    assert all(f.right.low == f.right.high == int((problem.margins(ids) > 0).sum()) for f in leads)
    assert all(f.proof == {"rule": "enumerate", "exactly": True} for f in leads) and not desk.taken


def test_a_forged_answer_makes_no_theorem(many_parts, tmp_path):
    """A store that says that all is proved is believed by the search, and not by the kernel."""
    claim = range_claim(room=-0.001)  # false, by little
    forged = {
        "broken": None,
        "open": [],
        "stuck": [],
        "reached": [[-1.0], [-1.0]],
        "proved": 1.0,
        "total": 1,
        "leaves": 1,
    }
    before = subproblems.bounded

    def lies(problem, asked, budget):
        return {**forged, "trees": [{} for _ in asked[2]]}

    lies.__module__, lies.__qualname__ = before.__module__, before.__qualname__
    subproblems.bounded = lies
    try:
        found = proved(claim, Desk())
    finally:
        subproblems.bounded = before
    assert found.verdict != "PROVED"


PROGRAM = """import sys
sys.path.insert(0, {tests!r})
from mechverify.provers.ranges import subproblems
from tests.provers.test_obligations import SMALL, range_claim
subproblems.CHEAP = SMALL
def claim():
    return range_claim(room=0.01, dims={dims})
"""


def run(folder: Path, name: str, *options: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "mechverify.cli",
        "prove",
        "range.py",
        "--no-solver",
        "--out",
        f"{name}.cert",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip


def killed_at_random(folder: Path, kills: int, *options: str) -> None:
    (folder / "range.py").write_text(PROGRAM.format(tests=str(ROOT), dims=3))
    begun, first = time.monotonic(), run(folder, "undisturbed", "--jobs", "1")
    assert "PROVED" in first.communicate()[0]
    whole, rng = time.monotonic() - begun, random.Random(0)
    for _ in range(kills):
        process = run(folder, "killed", "--store", "kept.sqlite", *options)
        try:
            process.wait(rng.uniform(0.3 * whole, whole))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "PROVED" in run(folder, "killed", "--store", "kept.sqlite", *options).communicate()[0]
    assert (folder / "killed.cert").read_bytes() == (folder / "undisturbed.cert").read_bytes()


def test_killed_at_random_moments_a_range_comes_to_the_same_certificate(tmp_path):
    killed_at_random(tmp_path, 2)


@pytest.mark.campaign
def test_killed_with_its_workers(tmp_path):
    killed_at_random(tmp_path, 12, "--jobs", "2")


def test_ctrl_c_leaves_what_is_proved_and_says_how_to_go_on(tmp_path):
    (tmp_path / "range.py").write_text(PROGRAM.format(tests=str(ROOT), dims=5))
    process = run(tmp_path, "stopped", "--store", "kept.sqlite", "--jobs", "2")
    for _ in range(600):  # once some are kept
        time.sleep(0.1)
        if (tmp_path / "kept.sqlite").exists() and Store(tmp_path / "kept.sqlite").database.execute(
            "SELECT count(*) FROM finished"
        ).fetchone()[0] > 2:
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 3 and "the same command goes on" in said and "still open" in said
    assert check((tmp_path / "stopped.cert").read_bytes()).verdict == "BOUNDED"


def test_domains_come_back_to_the_bit():
    part = Domain(((0, 2), (1,)), np.array([-0.1, -np.inf]), np.array([5e-324, 0.3]), ((3, 1, 0.1, True),))
    again = domains.read(domains.told(part))
    assert again.tokens == part.tokens and again.facts == part.facts
    assert again.low.tobytes() == part.low.tobytes() and again.high.tobytes() == part.high.tobytes()


def test_the_estimate_of_what_is_left():
    """On synthetic searches, random trees of obligations: half of what is told lies within a third of the truth, nine of
    ten within a factor of three, and none is told while more is opened than closed."""
    ratios = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        chance = rng.uniform(0.2, 0.45)  # that an obligation leaves two others open
        waiting, times, estimates = 40, [], []
        left = Remaining(times, workers=2)
        while waiting and len(times) < 5_000:
            estimates.append((left.seconds(waiting), len(times)))
            children = 2 * int(rng.random() < chance)
            times.append(rng.exponential(1.0))
            left.answered(children)
            waiting += children - 1
        total = np.array(times)
        ratios += [told / (total[done:].sum() / 2) for told, done in estimates if told is not None]
    ratios = np.array(ratios)
    assert len(ratios) > 1_000
    assert np.mean(np.abs(np.log(ratios)) < np.log(3)) > 0.85, np.quantile(ratios, [0.05, 0.25, 0.5, 0.75, 0.95])
    assert 0.7 < np.median(ratios) < 1.4
    growing = Remaining([1.0] * 100, 1)
    for _ in range(100):
        growing.answered(1)
    assert growing.seconds(10) is None and growing.words(10) == ""
    assert Remaining([], 1).seconds(5) is None


def test_unknown_executors_are_refused(tmp_path, monkeypatch):
    (tmp_path / "range.py").write_text(PROGRAM.format(tests=str(ROOT), dims=3))
    assert "choose processes or ray" in run(tmp_path, "x", "--executor", "dask").communicate()[0]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClaimError, match=r"pip install 'mechverify\[ray\]'"):
        executors.begun("ray", 2)


# --- Ray --------------------------------------------------------------------------------------------------------------

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@with_ray
@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.campaign)])
def test_ray_comes_to_the_same_bytes_whatever_worker_is_killed(many_parts, kills):
    """A real cluster of two workers on this machine; one that has an obligation in hand is killed, in the middle."""
    claim = range_claim(0.01)
    whole, desk = proved(claim, Desk()).certificate, Desk(executors.begun("ray", 2))
    over, killed = threading.Event(), []

    def kill() -> None:
        while len(killed) < kills and not over.wait(0.02):
            if len(desk.taken) > 2 * len(killed) and (busy := [pid for pid in ray_workers() if pid not in killed]):
                with suppress(ProcessLookupError):
                    os.kill(busy[0], signal.SIGKILL)
                    killed.append(busy[0])

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert proved(claim, desk).certificate == whole
    finally:
        over.set()
        thread.join()
    assert len(killed) == kills and len(desk.taken) > 2 * kills


def ray_workers() -> list[int]:
    """Those of this process's own cluster that answer an obligation right now."""
    parents, busy = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::_on_ray"):
                busy.append(int(folder.name))

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [pid for pid in busy if ours(pid)]

"""Strategies over models: rows that survive interrupts, tables that don't flatter, strategies that can't lie."""

import csv
import json
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mechverify import prove
from mechverify.claims import ClaimError
from mechverify.claims.file import load_claim
from mechverify.cli import app
from mechverify.kernel import Rejected, check
from mechverify.provers import frontier
from mechverify.provers.accuracy.strategies import DEFAULT, STRATEGIES, chosen
from mechverify.report.frontier import Mean, Point, Truth, group_of, pareto, points, truths
from tests.models import as_bytes, max_weights

ROOT = Path(__file__).parent.parent
PROOF = ROOT / "proofs" / "max_of_k.py"
OWN = ROOT / "tests" / "docs" / "large_tokens.py"

# The same search as the documented strategy, and then one lie about what it found.
LIES = {
    "counts more than it proved": "proof, right = proof, right + 1",
    "counts everything": "proof, right = proof, problem.domain.size",
    "leaves out what it must cover": "proof['only'] = only[:1]",
    "a cell counted with the wrong rivals": "proof['cells'] = [[0, only[-1], [[0, [only[-1][0]]]], None]]",
    "another rule's name": "proof = {'rule': 'trust me'}",
}


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for seed in range(2):
        weights = max_weights(np.random.default_rng(seed), noise=0.1)
        (folder / f"small{seed}.safetensors").write_bytes(as_bytes(weights))
    return folder


def run(*arguments, code):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def lie(tmp_path, what):
    text = OWN.read_text()
    before = "    return Attempt(proof, Counts(right"
    assert before in text
    path = tmp_path / "liar.py"
    path.write_text(text.replace(before, f"    {LIES[what]}\n{before}"))
    return path


def test_every_row_is_a_certificate_that_says_the_same(models, tmp_path):
    out = tmp_path / "out"
    printed = run(
        "frontier", PROOF, "--weights", models, "--strategy", "brute", "--strategy", OWN, "--out", out, code=0
    )
    with (out / "frontier.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(Path(r["weights"]).stem, Path(r["strategy"]).stem) for r in rows] == [
        (m, s) for m in ("small0", "small1") for s in ("fold", "brute", "large_tokens")
    ]
    for row in rows:
        theorem = check((out / row["certificate"]).read_bytes())
        assert (theorem.right.low, theorem.kernel_ops) == (int(row["low"]), int(row["kernel_ops"]))
        assert theorem.claim.weights_sha256 == row["weights_sha256"]
        assert Fraction(float(row["bound"])) <= Fraction(theorem.right.low, 216) and row["true_how"] == "exact"
    assert int(rows[1]["unexplained"]) == 6**4 and rows[2]["unexplained"] == ""
    assert "large_tokens" in printed.output and "max_of_k, 6^3" in printed.output
    assert "\\texttt{large\\_tokens}" in (out / "frontier.tex").read_text()
    ET.parse(out / "frontier.svg")
    assert (out / "frontier.pdf").read_bytes().startswith(b"%PDF")


def test_an_interrupted_run_goes_on_where_it_stopped(models, tmp_path):
    weights = sorted(models.iterdir())
    tasks = frontier.plan([PROOF], {}, weights, ["listed"], "real")
    assert [t.strategy for t in tasks] == ["fold", "listed"] * 2

    def impatient(row, missing):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frontier.run(tasks, tmp_path, 1, impatient)
    kept = [t for t in tasks if frontier.stored(tmp_path, t)]
    assert kept
    seen = []
    rows = frontier.run(tasks, tmp_path, 1, lambda row, missing: seen.append(missing))
    assert len(rows) == 4 and seen == list(range(4 - len(kept)))[::-1]
    frontier.run(tasks, tmp_path, 1, impatient)  # nothing is left to tell
    (tmp_path / rows[tasks[0].key].certificate).unlink()
    assert frontier.stored(tmp_path, tasks[0]) is None  # a row without its certificate is no row
    (tmp_path / "rows" / f"{tasks[1].key}.json").write_text("{")
    assert frontier.stored(tmp_path, tasks[1]) is None


def test_rows_are_made_again_when_what_decides_them_changes(models, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN.read_text())
    weights = sorted(models.iterdir())[:1]

    def keys(**changes):
        frontier._source.cache_clear()
        given = {"parameters": {}, "semantics": "real"} | changes
        return [t.key for t in frontier.plan([PROOF], given["parameters"], weights, [str(own)], given["semantics"])]

    first = keys()
    assert keys() == first
    assert not set(first) & set(keys(semantics="float32")) and not set(first) & set(keys(parameters={"at_least": "1"}))
    own.write_text(OWN.read_text() + "\n")
    assert keys()[0] == first[0] and keys()[1] != first[1]


def test_what_fails_is_a_row_with_its_reason(models, tmp_path):
    """A strategy that raises, one whose process dies, and one that the kernel refuses don't stop the others."""
    bad = tmp_path / "bad.py"
    bad.write_text(OWN.read_text().replace("    right = 0\n", "    right = 1 / 0\n"))
    dying = tmp_path / "dying.py"
    dying.write_text(OWN.read_text().replace("    right = 0\n", "    import os\n\n    os._exit(9)\n"))
    liar = lie(tmp_path, "counts everything")
    names = [str(p) for p in (dying, bad, liar)]
    tasks = frontier.plan([PROOF], {}, sorted(models.iterdir())[:1], [*names, "listed"], "real")
    rows = frontier.run(tasks, tmp_path / "out", 2, lambda row, missing: None)
    reasons = {Path(t.strategy).stem: rows[t.key].reason for t in tasks}
    assert reasons["fold"] is reasons["listed"] is None
    line = OWN.read_text().splitlines().index("    right = 0") + 1
    assert reasons["bad"] == f"{bad}, line {line}: ZeroDivisionError: division by zero"
    assert "the kernel refuses what strategy" in reasons["liar"] and "proved" in reasons["liar"]
    assert "killed" in reasons["dying"]
    made = points(rows.values(), truths(rows.values()))
    assert {p.strategy for p in made} == {"fold", "listed"}


@pytest.mark.parametrize("what", LIES)
def test_a_strategy_cannot_lie(small_model, tmp_path, what):
    claim = load_claim(PROOF, {"weights": str(small_model)})
    honest = prove(claim, strategy=str(OWN)).theorem.right
    assert 0 < honest.low <= prove(claim, strategy="brute").theorem.right.low
    try:
        right = prove(claim, strategy=str(lie(tmp_path, what))).theorem.right
    except Rejected as error:
        assert "the kernel refuses what strategy" in str(error)
    else:  # a choice that is only unwise
        assert what == "a cell counted with the wrong rivals" and right.low <= honest.low


def test_the_documented_strategy_is_the_tested_one():
    assert OWN.read_text() in (ROOT / "docs" / "compact_proofs.md").read_text().replace("```python\n", "").replace(
        "```", ""
    )


def test_docs_name_every_strategy():
    text = (ROOT / "docs" / "compact_proofs.md").read_text()
    for name, row in STRATEGIES.items():
        assert f"`{name}`" in text, name
        assert row.name == name and all(row[:4])
    assert "brute" not in DEFAULT and frontier.REFERENCE in DEFAULT


def test_a_file_that_is_no_strategy(tmp_path):
    path = tmp_path / "none.py"
    path.write_text("STRATEGY = 1\n")
    with pytest.raises(ClaimError, match="STRATEGY = Strategy"):
        chosen(str(path))
    with pytest.raises(ClaimError, match="can't read strategy file"):
        chosen(str(tmp_path / "missing.py"))


def row(strategy, low, high, weights="a", ops=10, reason=None):
    return frontier.Row("c.py", {"weights": weights}, weights, weights, strategy, 4, 2, 16, low, high, ops, 100, None,
                        0.0, 0.0, None, 0, reason)  # fmt: skip


def test_truth_is_what_the_rows_prove_together():
    one = row("fold", 8, 12), row("listed", 10, 16)
    group = group_of(one[0])
    assert truths(one) == {(group, "a"): Truth(Fraction(10, 16), Fraction(12, 16), "proved")}
    assert truths([*one, row("brute", 11, 11)])[group, "a"].how == "exact"
    nothing = row("fold", 0, 16, reason="unsupported"), row("listed", 4, 16)
    assert truths(nothing, {(group, "a"): 0.5})[group, "a"] == Truth(Fraction(1, 2), Fraction(1, 2), "sampled")
    with pytest.raises(RuntimeError, match="contradict each other"):
        truths([row("fold", 0, 8), row("listed", 9, 16)])


def test_a_point_is_the_mean_over_models_rounded_down():
    rows = [row("fold", 12, 12), row("listed", 6, 16, ops=4), row("fold", 8, 8, "b"), row("listed", 8, 16, "b", ops=6)]
    cheap, dear = points(rows, truths(rows))
    assert (cheap.strategy, cheap.ops.mean, cheap.bound.mean) == ("listed", 5.0, 7 / 16)
    assert cheap.ratio == Mean(0.75, pytest.approx(0.5**0.5 / 2)) and dear.ratio == Mean(1.0, 0.0)
    assert [p.strategy for p in pareto([cheap, dear])] == ["listed", "fold"]


def test_only_what_nothing_beats_is_on_the_front():
    def point(name, ops, ratio):
        nothing = Mean(0.0, 0.0)
        return Point("g", name, "v", 1, 0, nothing, Mean(ratio, 0.0), Mean(ops, 0.0), 1, None, 0.0, 0.0)

    some = [point("a", 1, 0.5), point("b", 2, 0.4), point("c", 2, 0.7), point("d", 3, 0.7)]
    assert [p.strategy for p in pareto(some)] == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.py"], "can't read claim file"),
        ([PROOF, "--strategy", "cubc"], "unknown; did you mean"),
        ([PROOF, "--weights", "nowhere/*.safetensors"], "no such file"),
        ([PROOF, "--semantics", "int8"], "choose real or float32"),
        ([ROOT / "proofs" / "scores.py"], "for claims Accuracy(...)"),
        ([PROOF, "-p", "weights"], "write it as name=value"),
    ],
)
def test_bad_input_is_one_clear_message(arguments, says, tmp_path):
    result = run("frontier", *arguments, "--out", tmp_path / "out", code=2)
    assert says in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_strategies_are_listed():
    printed = run("strategies", code=0).output
    assert all(name in printed for name in STRATEGIES)
    assert json.dumps(DEFAULT)  # names only


def test_the_benchmark_counts_every_input_and_reads_complexities(models):
    from benchmarks.compact_proofs import enumerated, stated
    from benchmarks.published import PUBLISHED, cubic_cost, published_of

    for weights in models.iterdir():
        right, unsure = enumerated(weights)
        proved = prove(load_claim(PROOF, {"weights": str(weights)}), strategy="brute").theorem.right
        assert unsure == 0 and proved == (right.sum(), right.sum())
    assert [stated(c, "v") for c in ("k v^3 + n k v, n inputs", "v^2 d + v^3 o", "v d + d^3", "k")] == [3, 4, 1, 0]
    assert [stated(c, "k") for c in ("v^2 d + k v^2", "v^2 d", "k^2 v")] == [1, 0, 2]
    named = {"lowrank-qk-svd": "low-rank QK", "lowrank-qk-eu": "low-rank QK and EU", "cubic": "cubic", "fold": None}
    assert {n: f and f.name for n in named for f in [published_of(n)]} == named
    assert cubic_cost(4) == PUBLISHED[0].flops and cubic_cost(20) == 25 * cubic_cost(4)

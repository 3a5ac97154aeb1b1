"""What is printed of a theorem, and beside it: pictures, tables, trees and messages say no more than was proved."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sympy import Max
from torch import nn
from typer.testing import CliRunner

from mechverify import Accuracy, capture, prove, tokens
from mechverify.claims import ClaimError
from mechverify.cli import app
from mechverify.errors import TERMS, in_words
from mechverify.kernel import check
from mechverify.kernel.core.operations import OPERATIONS
from mechverify.kernel.core.words import number, units
from mechverify.kernel.statement.ranges import broken
from mechverify.kernel.statement.sentence import state
from mechverify.provers.ranges.smtlib import Query
from mechverify.report.checked import Checked
from mechverify.report.html import write_html
from mechverify.report.latex import write_latex
from tests.independent.sentence import false_lines
from tests.models import as_bytes, random_weights
from tests.soundness import forge, networks
from tests.soundness.networks import Network, constant, given

LINEAR = {"rule": "relaxation", "lines": None}
RELU = Network([given(1), ["relu", [0], None]], {}, [(np.array([-1.0]), np.array([1.0]))], [], 0)
FOLD = {"rule": "fold", "keys": [], "only": None, "cells": []}


def points(*values: float) -> dict:
    return {"rule": "point", "inputs": [[[], [float(v).hex()]] for v in values]}


def replayed(*values: float, net: Network = RELU, low: float = 0.0, high: float | None = 1.0, **settings) -> bytes:
    proof = {"rule": "both", "first": LINEAR, "second": points(*values)}
    return networks.file(*networks.document(net, proof, low=[low], high=[high], **settings))


def run(tmp_path: Path, file: bytes, *arguments: str, name: str = "some.cert"):
    path = tmp_path / name
    path.write_bytes(file)
    command, *options = arguments
    return CliRunner().invoke(app, [command, str(path), *options])


def entry(file: bytes) -> str:
    return dict(state(check(file)).rows())["entry 0"]


def test_what_is_reached_reads_the_right_way_round():
    assert entry(replayed(-0.5)) == "0 to 1 (rounded outwards); reached about 0"
    assert entry(replayed(0.3)).endswith("; reached about 0.3")
    assert entry(replayed(0.25, 0.75)).endswith("; reached 0.2500001 to 0.7499999 (rounded inwards)")
    width = dict(state(check(replayed(0.3))).rows())["proved width"]
    assert width == "mean 1, largest 1 (rounded up)"


def test_where_an_enclosure_is_wide_no_number_is_named():
    """(x + 1e16) - 1e16, which float64 encloses in a range of several units."""
    rows = [given(1), constant([1e16]), ["add", [0, 1], None], ["sub", [2, 1], None]]
    net = Network(rows, {}, [(np.array([-1.0]), np.array([1.0]))], [], 0)
    file = replayed(0.3, net=net, low=-100.0, high=100.0)
    (low,), (high,) = check(file).attained
    assert high - low > 1 and entry(file) == "-100 to 100 (rounded outwards)"


def test_an_output_is_named_as_exact_arithmetic_decodes_it():
    """Logits that float64 encloses too widely to tell apart, through a bias of 1e16 and its negative."""
    weights = random_weights(np.random.default_rng(0), vocab=3, length=1, d=1, e=1)
    weights = {name: np.zeros_like(value, dtype=float) for name, value in weights.items()}
    weights["embed.W_E"] = np.array([[0.3], [0.3], [0.3]])
    weights["blocks.0.attn.b_O"] = np.array([1e16])
    weights["unembed.W_U"] = np.array([[1.0, -1.0, 0.0]])
    weights["unembed.b_U"] = np.array([-1e16, 1e16, 0.0])
    data = as_bytes(weights)
    doc = forge.document(data, {"rule": "counterexample", "inputs": [[1]]}, equals=[["integer", [], 1]], vocab=3, length=1,
                         position=0, right=(0, 2))  # fmt: skip
    (example,) = state(check(forge.file(doc, data))).examples
    assert example == ("wrong on", "[1]: the mechanism says 1, the model 0")


def test_what_no_float64_holds_is_not_said_to_be_reached():
    net = Network([given(1), ["exp", [0], None]], {}, [(np.array([0.0]), np.array([800.0]))], [], 0)
    assert entry(replayed(800.0, net=net, high=None)) == "0 to unbounded (rounded outwards)"


def test_an_input_that_is_listed_twice_counts_once(tmp_path):
    file = replayed(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75, verdict="REFUTED", at_most="1/4")
    assert [b.by > 0.2 for b in broken(check(file))] == [True, True]
    printed = run(tmp_path, file, "check").stdout
    assert printed.count("broken at") == 2 and " more" not in printed
    assert false_lines(printed, file) == []


def test_others_break_a_threshold_by_no_more(tmp_path):
    """All by the same."""
    net = Network([given(1), ["mul", [0, 1], None]], {}, [(np.array([-1.0]), np.array([1.0]))], [], 0)
    net.rows.insert(1, constant([0.0]))
    file = replayed(*np.linspace(0, 1, 7), net=net, low=-1.0, verdict="REFUTED", at_least="1/1")
    printed = run(tmp_path, file, "check").stdout
    assert "and 3 more, by no more" in printed and false_lines(printed, file) == []


def test_a_share_reads_as_a_share():
    data = as_bytes(random_weights(np.random.default_rng(0), vocab=6))
    for share in ("0/1", "1/2", "2/2"):
        theorem = check(forge.file(forge.document(data, {"rule": "enumerate"}, at_least=share), data))
        whole = Fraction(share)
        said = f"at least {whole.numerator}/{whole.denominator}"
        assert state(theorem).threshold == said and f", on {said} of them" in state(theorem).claim


@pytest.mark.parametrize("option", [["--forbid", "ieee754"], ["--limit", "1"], ["--json"], ["--weights", "none"]])
def test_what_it_rests_on_is_told_of_what_is_accepted(tmp_path, option):
    file = replayed(0.5)
    assert run(tmp_path, file, "check", "--about").exit_code == 0
    result = run(tmp_path, file, "check", "--about", *option)
    assert result.exit_code != 0 and "ACCEPTED" not in result.stdout


@pytest.mark.parametrize("split", [
    {"node": 0, "entry": 0, "at": "0/1"}, {"coordinate": 0, "at": "1/3"}, {"coordinate": 0, "at": "1/2"},
])  # fmt: skip
def test_a_tree_shows_every_kind_of_split_exactly(tmp_path, split):
    proof = {"rule": "split", **split, "inside": LINEAR, "outside": LINEAR}
    result = run(tmp_path, networks.file(*networks.document(RELU, proof, low=[0], high=[1])), "show")
    if split["at"] == "1/3":  # no float64
        assert result.exit_code == 1 and "REJECTED" in result.output
        return
    assert result.exit_code == 0 and result.exception is None
    at = "at 0.5" if split["at"] == "1/2" else "entry 0 of a value of the model at 0"
    assert at in result.stdout


def folded(rng: int = 0) -> bytes:
    """Two folds, of the inputs that begin with the first token, and of the others."""
    data = as_bytes(random_weights(np.random.default_rng(rng), vocab=6))
    halves = {"rule": "split", "position": 0, "first": [0], "inside": FOLD, "outside": FOLD}
    return forge.file(forge.document(data, halves), data)


def test_a_fold_is_not_said_to_have_the_cells_of_another(tmp_path):
    theorem = check(folded())
    lines = run(tmp_path, folded(), "show").stdout.splitlines()
    (said,) = [line for line in lines if line.startswith("proof: ")]
    right = sum(wrong.high == 0 for *_, wrong in theorem.cells)
    assert said == f"proof: {len(theorem.cells)} cells, {right} of them right everywhere"
    assert any("split: the token at position 0 is in [0], or not" in line for line in lines)
    assert sum("fold: 0 cells counted on a grid, 0 added up input by input" in line for line in lines) == 2


NAMES = [
    "a\nACCEPTED.cert",
    "\x1b[2J.cert",
    "\u202etrec.cert",
    "\udc80.cert",
    "[red]a.cert",
    "<b>&%$\\.cert",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_name_is_more_than_a_name(tmp_path, name):
    file = replayed(0.5)
    checked = Checked(tmp_path / name, check(file), 0.1, file)
    assert run(tmp_path, file, "show", name=name).exit_code == 0
    texts = [
        write_html(tmp_path / "page", [checked]).read_text(),
        write_latex(tmp_path / "table.tex", [checked]).read_text(),
    ]
    assert "<b>" not in texts[0]
    result = CliRunner().invoke(app, ["report", str(tmp_path / name), "--html", str(tmp_path / "[/x]")])
    assert result.exit_code == 0, result.exception
    texts.append(run(tmp_path, file[:-1], "check", name=name).output)
    for text in texts:
        assert text.isascii() and "\x1b" not in text and "\nACCEPTED" not in text


def test_a_table_shows_no_part_of_a_number_or_formula(tmp_path):
    long = -Fraction(10**300 + 1, 10**299)
    file = replayed(0.5, at_least=f"{long.numerator}/{long.denominator}", verdict="PROVED")
    text = write_latex(tmp_path / "t", [Checked(tmp_path / "a", check(file), 0.1, file)]).read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("a & "))
    assert "0" * 20 not in row and "& below &" in row and number(long) in text.replace(r"\allowbreak{}", "")


def test_work_is_announced_rounded_up():
    assert [units(v) for v in (1.04e9, 5e9, 3, 101.0)] == ["1.1e+9", "5.0e+9", "3", "1.1e+2"]
    assert float(units(10**18 + 1)) > 10**18


def test_names_are_explained_where_only_an_example_speaks_of_them(tmp_path):
    """The claimed list is too long for formulas, the broken entry isn't."""
    one = ["view", [1], [[], 0, []]]
    rows = [given(1), ["relu", [0], None], one]
    entries = []
    for i in range(200):
        rows += [
            constant(float(i) + 0.123456789),
            ["add", [2, len(rows)], None],
            ["view", [len(rows) + 1], [[1], 0, [1]]],
        ]
        rows[-3][2][0] = []
        entries.append(len(rows) - 1)
    rows.append(["concat", entries, 0])
    net = Network(rows, {}, RELU.inputs, [], 0)
    proof = {"rule": "both", "first": {"rule": "relaxation"}, "second": points(0.5)}
    doc, data = networks.document(
        net, proof, low=[None] * 200, high=[None] * 200, n=200, at_most="1/2", verdict="REFUTED"
    )
    doc["claim"]["graph"]["sites"].append(["hidden", 1])
    statement = state(check(networks.file(doc, data)))
    assert any(text.startswith("there hidden[0] is about 0.5") for _, text in statement.examples)
    assert any("n1: hidden" in text for text in statement.asserted)


def test_a_copied_graph_is_work():
    data = as_bytes(random_weights(np.random.default_rng(0), vocab=6))
    idle = [["integer", [], i] for i in range(20_000)]
    plain = forge.document(data, FOLD, tokens=[[0], [0], [0]])
    shifted = [[op, [a + len(idle) for a in args], attr] for op, args, attr in forge.MAX]
    fold = {"rule": "both", "first": FOLD, "second": FOLD}
    large = forge.document(data, FOLD, tokens=[[0], [0], [0]], equals=[*idle, *shifted])
    once, twice = (check(forge.file({**large, "proof": p}, data)).work for p in (FOLD, fold))
    small = check(forge.file({**plain, "proof": fold}, data)).work - check(forge.file(plain, data)).work
    assert twice - once > small + 10 * len(idle)


class Strided(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2).as_strided((1, 2, 3), (6, 3, 1))


class Untaken(nn.Module):
    def forward(self, x):
        return torch.where(torch.tensor([True, False]), x, torch.log(x))


class Turned(nn.Module):
    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return F.scaled_dot_product_attention(
            self.scale * x, x, x, is_causal=True, scale=-1.0 if self.scale > 0 else 1.0
        )


@pytest.mark.parametrize(("module", "shape", "says"), [
    (Strided(), (1, 2, 3), "call contiguous() before"), (Untaken(), (1, 2), "where() leaves out a branch"),
    (Turned(0.7), (1, 1, 3, 2), "is_causal=True and a negative scale"),
])  # fmt: skip
def test_a_right_refusal_gives_the_right_reason(module, shape, says):
    with pytest.raises(ClaimError) as refused:
        capture(module.eval(), torch.rand(shape))
    assert says in str(refused.value) and "please report" not in str(refused.value)


def test_the_advice_helps():
    assert capture(Turned(-0.7).eval(), torch.rand(1, 1, 3, 2))


def test_json_agrees_with_the_lines(tmp_path):
    file = replayed(0.1, 0.5, 0.9, verdict="REFUTED", at_most="1/4")
    said = json.loads(run(tmp_path, file, "check", "--json").stdout)
    assert said["counterexample"]["inputs"] == [0.9] and said["verdict"] == "REFUTED"
    lines = "\n".join(f"{label:>16}  {text}" for label, text in said["statement"])
    assert false_lines(lines, file) == []


def test_a_query_about_a_single_point_asks_for_no_values():
    net = Network(RELU.rows, {}, [(np.array([0.5]), np.array([0.5]))], [], 0)
    text = Query(networks.claim(net), [0], [np.inf]).text
    assert text.endswith("(check-sat)\n") and "(get-value (x0))" in Query(networks.claim(RELU), [0], [np.inf]).text


# names of operations that are those of torch, sympy or mathematics
STANDARD = {"tokens", "input", "weight", "constant", "pi", "softmax", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh",
            "sigmoid", "erf", "softplus", "relu", "gelu", "gelu_tanh", "silu", "sin", "cos", "atan", "integer", "sum", "product", "max",
            "min", "and", "or", "not", "lookup", "slack", "pivot"}  # fmt: skip


class Halved(nn.Module):
    """Two layers of attention, of several heads: too much for rules about one."""

    def __init__(self):
        super().__init__()
        self.embed, self.unembed = nn.Embedding(5, 4), nn.Linear(4, 5)
        self.first, self.second = (nn.MultiheadAttention(4, 2, batch_first=True) for _ in range(2))

    def forward(self, ids):
        x = self.embed(ids)
        x = self.first(x, x, x, need_weights=False)[0] / 3
        return self.unembed(self.second(x, x, x, need_weights=False)[0])


def test_reasons_say_operations_in_the_fields_terms():
    """Every operation's name in a certificate is either such a term, or has one; and none is left in what a user reads."""
    assert {*OPERATIONS} - {*TERMS} == STANDARD and {*TERMS} <= {*OPERATIONS}
    said = in_words(
        "'over_root' on the result of attention is not linear; rule relaxation has no bound for 'gelu'; 'n0'"
    )
    assert (
        said
        == "division by a constant on the result of attention is not linear; rule relaxation has no bound for 'gelu'; 'n0'"
    )
    torch.manual_seed(0)
    model = capture(Halved().eval(), torch.zeros(1, 12, dtype=torch.long), vocab=5)
    x = tokens("x", length=12, vocab=5)
    outcome = prove(Accuracy(model["output"][-1], equals=Max(*x), over=x, at_least="0.5"), time_limit=20)
    assert outcome.verdict == "UNKNOWN" and any("mixes the tokens of several positions" in r for r in outcome.reasons)
    assert not any(f"'{name}'" in reason for name in TERMS for reason in outcome.reasons), outcome.reasons
    assert any("the result of matrix multiplication" in r for r in outcome.reasons), outcome.reasons

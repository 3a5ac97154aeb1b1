"""What is printed of a theorem is the theorem in the file, and nothing that the file calls itself changes a line."""

import hashlib
import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from sympy import Ne
from torch import nn
from typer.testing import CliRunner

from benchmarks.campaigns import statements
from benchmarks.campaigns.statements import EXAMPLES, IDENTITY, Made, Random, measure, network, printed
from mechverify import Share, capture, distinct, prove, tokens
from mechverify.cli import app
from mechverify.kernel import Rejected, check
from mechverify.kernel.__main__ import main as check_alone
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.texts import printable
from mechverify.kernel.core.words import about, number, share
from mechverify.kernel.statement.common import digest
from mechverify.kernel.statement.formula import Formulas, Listing
from mechverify.kernel.statement.sentence import listing, state
from mechverify.report.mathematics import verbatim
from tests import oracle
from tests.independent.sentence import false_lines, value
from tests.models import as_bytes, as_float64, random_weights
from tests.soundness import forge, networks


def test_random_claims_are_read_back_and_planted_changes_noticed():
    kinds, false, planted, missed = measure(60, seed=1)
    assert not false and not missed
    assert len(kinds) >= 5 and len(planted) >= 8


@pytest.mark.campaign
def test_many_random_claims_are_read_back():
    _, false, _, missed = measure(500, seed=2)
    assert not false and not missed


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.what for e in EXAMPLES])
def test_what_was_found(example):
    assert example.run() == example.after != example.before


NUMBERS = [
    Fraction(p, q) for p in (0, 1, -3, 10**59, 10**60 + 1, 3**200) for q in (1, 2, 3, 500, 10**58, 10**61, 2**70)
] + [Fraction(v) for v in (0.1, 5e-324, 1.7e308, -(2.0**-60), 2.0**200)]


def test_numbers_are_written_exactly_or_rounded_the_weaker_way():
    for x in NUMBERS:
        assert value(number(x)) == x
        low, high = value(about(x, up=False)), value(about(x, up=True))
        assert low <= x <= high and high - low <= abs(x) / 10**6
        assert (low == 0) == (high == 0) == (x == 0)
    assert len({number(x) for x in NUMBERS}) == len(set(NUMBERS))
    for part, total in ((1, 3), (10**12 - 1, 10**12), (1, 10**40), (64**100 - 1, 64**100)):
        assert (
            0
            < Fraction(share(part, total, up=False))
            <= Fraction(part, total)
            <= Fraction(share(part, total, up=True))
            < 1
        )


def test_texts_of_a_file_stay_on_their_line():
    for text in ("a\nb", "\x1b[2J", "\u202e", "\ud800", "\x7f", "é", "\u2028"):
        assert printable(text).isascii() and printable(text).isprintable()
    assert len(printable("a" * 10**6)) < 3_000
    assert verbatim(r"\{}~^_&%#$<>|") == (
        r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}\_\&\%\#\$\textless{}\textgreater{}\textbar{}"
    )


NAMES = ["a\nACCEPTED", "\ud800", "\x1b[31m", "x0", "input0", "exp", "(x0[0] + 1)", "a" * 300, "\u202ex"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_file_is_printed_where_it_reads_as_more(name, tmp_path, capsys):
    made = Made("", "", *statements.named(name))
    theorem = check(made.file)
    assert state(theorem).claim == "the range of n1, 2 entries"
    assert false_lines(printed(theorem), made.file) == []
    path = tmp_path / "named.cert"
    for refuse in (False, True):
        path.write_bytes(Made("", "", *statements.named(name, refuse=refuse)).file)
        for arguments in (["check", str(path)], ["check", "--json", str(path)], ["show", str(path)]):
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == int(refuse) and "Traceback" not in result.output
            assert len(result.output.splitlines()) < 40 and ("\nACCEPTED" in result.output) <= (not refuse)
        assert check_alone([str(path)]) == int(refuse)
        said = capsys.readouterr()
        assert (said.out + said.err).isascii()


def test_a_plain_name_is_printed_and_its_node_with_it():
    doc, data = statements.named("blocks.0.mlp")
    text = printed(check(networks.file(doc, data)))
    assert "the range of blocks.0.mlp, 2 entries" in text and "nodes are called n1: blocks.0.mlp" in text


def test_how_the_module_was_compared_is_printed():
    doc, data = statements.named("blocks.0.mlp")
    compared = {"dtype": "torch.float32", "inputs": 32, "difference": (1e-7).hex(), "tolerance": (2.0**-20).hex()}
    doc["claim"]["graph"]["compared"] = compared
    file = networks.file(doc, data)
    text = printed(check(file))
    said = "the module itself, in torch.float32, differs on 32 inputs by at most 1e-7 of a site's size, where rounding"
    assert f"{said} explains 9.536743e-7" in text and false_lines(text, file) == []
    for old, new in (("float32", "float64"), ("32 inputs", "33 inputs"), ("1e-7", "9.9e-8"), ("743e-7", "744e-7")):
        assert text.count(old) == 1 and false_lines(text.replace(old, new), file)
    del doc["claim"]["graph"]["compared"]
    assert false_lines(text, networks.file(doc, data)) and "itself" not in printed(check(networks.file(doc, data)))


def test_the_graph_is_what_its_hash_is_of(tmp_path):
    doc, data = network(IDENTITY, [([-1.0, -1.0], [1.0, 1.0])], n=2)
    path = tmp_path / "graph.cert"
    path.write_bytes(networks.file(doc, data))
    theorem = check(path.read_bytes())
    shown = CliRunner().invoke(app, ["show", str(path), "--graph"]).stdout
    assert shown == "n0 = input(0, (2))\nn1 = add(n0, n0)\n"
    assert hashlib.sha256(shown.encode()).hexdigest() == digest(listing(theorem))
    assert digest(listing(theorem)) in state(theorem).model


def test_shared_parts_are_written_once():
    """30 doublings: 2^30 leaves, 31 nodes."""
    rows = [networks.given()]
    for _ in range(30):
        rows += [["tanh", [len(rows) - 1], None], ["add", [len(rows)] * 2, None]]
    rows += [["view", [len(rows) - 1], [[1], 0, [0]]], ["concat", [len(rows)], 0]]
    doc, data = network(rows, [(-1.0, 1.0)])
    made = Made("", printed(check(networks.file(doc, data))), doc, data)
    claim = state(check(made.file)).claim
    assert "where t1 = " in claim and len(claim) < 1_000
    assert false_lines(made.printed, made.file) == []
    doc["claim"]["graph"]["nodes"][10][0] = "mul"
    assert false_lines(made.printed, made.file)


def test_a_condition_that_no_replayed_input_satisfies_is_said_to_be_open():
    doc, data = statements.cut_document(0.5, None, -1.0, 2.0, statements.INTERVAL)
    assert ("conditions", "no input that satisfies them was replayed: there may be none") in state(
        check(networks.file(doc, data))
    ).rows()


def test_every_lemma_carries_its_part():
    (lemma,) = check(networks.file(*statements.cut_document(None, 0.0, -1.0, 1.0, statements.INTERVAL))).lemmas
    assert (lemma.site, lemma.mechanism, lemma.part.high.tolist()) == ("h", "m", [0.0])
    (lemma,) = check(networks.file(*statements.cut_document(0.5, 0.0, 5.0, 6.0, statements.INTERVAL))).lemmas
    assert lemma.range is None


def test_json_has_the_statement_and_the_worst_point(tmp_path):
    path = tmp_path / "refuted.cert"
    path.write_bytes(networks.file(*statements.refuted()))
    result = json.loads(CliRunner().invoke(app, ["check", str(path), "--json"]).stdout)
    assert result["counterexample"]["inputs"] == [1.0, 0.0]
    assert ["claim", "every entry at most 0.5: output, 2 entries"] in result["statement"]
    assert result["claim"]["domain"] == ["input0 of shape (2) in [-1, 1]^2"]


def test_the_parser_sees_forged_lines():
    made = Random(3).accuracy()
    assert false_lines(made.printed, made.file) == []
    for line in (
        f"{'proved by':>16}  me",
        f"{'verdict':>16}  PROVED",
        f"{'axiom':>16}  none",
        f"{'claim':>16}  x",
        "a line",
    ):
        assert false_lines(f"{made.printed}\n{line}", made.file)
    for i, line in enumerate(lines := made.printed.split("\n")):
        assert false_lines("\n".join(lines[:i] + lines[i + 1 :]), made.file), line


def test_names_are_restricted_from_version_4_on():
    for name in ("a\nb", "\ud800", "a" * 201, ""):
        with pytest.raises(Rejected, match="a name is not printable"):
            check(Made("", "", *statements.named(name, version=5)).file)
    assert check(Made("", "", *statements.named("x0", version=5)).file)


def test_an_input_that_overflows_in_float64_is_printed_as_it_was_replayed():
    """The first position attends to itself alone: its score near 1e17 doesn't matter, but float64 can't reduce its exp."""
    weights = random_weights(np.random.default_rng(0), vocab=3, length=1)
    weights["blocks.0.attn.b_K"] = np.full_like(weights["blocks.0.attn.b_K"], 1e17)
    data = as_bytes(weights)
    logits = oracle.Transformer(as_float64(weights)).logits([1], 0)
    best = max(range(3), key=lambda i: float(logits[i]))
    doc = forge.document(data, {"rule": "counterexample", "inputs": [[1]]}, equals=[["integer", [], (best + 1) % 3]],
                         vocab=3, length=1, position=0, right=(0, 2))  # fmt: skip
    (example,) = state(check(forge.file(doc, data))).examples
    assert example == ("wrong on", f"[1]: the mechanism says {(best + 1) % 3}, the model {best}")


def leads(
    vector=((3,), 3, (1,)), column=((3, 1), 3, (1, 0)), without=((1, 2, 3), 1, (0, 4, 1)), rows=((3, 2), 0, (2, 1)),
    extremum="min", swapped=False, twice=False,
) -> str:  # fmt: skip
    """The formula of a graph that says by how much each entry of the second row of a matrix exceeds the others, and of
    one that differs from it: views as (shape, start, strides), the other extremum, or other operands of the difference.
    """
    graph = Graph(0, (0,))
    whole = graph.add("input", attr=(0, (2, 3)))
    operands = [graph.add("view", whole, attr=column), graph.add("view", whole, attr=vector)]
    if twice:
        operands[0] = graph.add("view", operands[0], attr=((3, 3), 0, (1, 0)))
    pairs = graph.add("sub", *(reversed(operands) if swapped else operands))
    others = graph.add("view", graph.add("view", pairs, attr=without), attr=rows)
    least = graph.add("extremum", others, attr=extremum)
    (text,), parts = Formulas(Listing(graph, [least]), {}).write([least])
    assert not parts
    return text


NO_LEADS = {
    "a number in the vector's place": dict(vector=((), 3, ()), twice=True),
    "another row": dict(column=((3, 1), 0, (1, 0))),
    "a column that says one entry alone": dict(column=((3, 1), 3, (0, 0))),
    "the largest lead": dict(extremum="max"),
    "how far each entry stays behind": dict(swapped=True),
    "with an entry's difference from itself": dict(without=((1, 2, 3), 0, (0, 4, 1))),
    "some of the others": dict(without=((1, 2, 3), 1, (0, 3, 1))),
    "differences out of turn": dict(rows=((3, 2), 0, (1, 3))),
    "of fewer entries": dict(rows=((2, 2), 0, (2, 1))),
}


def test_leads_are_printed_of_what_the_graph_says():
    assert "leads(" in leads()


@pytest.mark.parametrize("what", NO_LEADS)
def test_leads_are_printed_of_nothing_else(what):
    assert "leads(" not in leads(**NO_LEADS[what])


def conjunction(conditions: list[tuple[str, int, int]], op: str = "and") -> str:
    """The formula of a graph that joins conditions on two tokens each: a comparison, `!` and what it negates, or `|` and
    what holds of the two or of the same two."""
    graph, nodes = Graph(4, tuple(range(4))), []
    x = [graph.add("value", attr=i) for i in range(4)]
    for how, i, j in conditions:
        n = graph.add(how[-2:], x[i], x[j])
        nodes.append({"!": lambda: graph.add("not", n), "|": lambda: graph.add("or", n, n)}.get(how[0], lambda: n)())
    (text,), parts = Formulas(Listing(graph, [n := graph.add(op, *nodes)]), {}).write([n])
    assert not parts
    return text


def function(text: str):
    """Of four tokens: Python reads a conjunction as the page does."""
    return eval(f"lambda x0, x1, x2, x3: {text}", {"distinct": lambda *some: len(set(some)) == len(some)})


def test_what_is_called_distinct_is_so_and_nothing_else_is_lost():
    """Random conjunctions, and what their formula says, on all sequences."""
    rng, shorter = np.random.default_rng(3), 0
    for _ in range(150):
        chosen = [(str(rng.choice(["!eq"] * 12 + ["eq", "|eq", "lt", "!lt"])), *map(int, rng.integers(4, size=2)))
                  for _ in range(rng.integers(2, 12))]  # fmt: skip
        said = {"eq": int.__eq__, "lt": int.__lt__}
        text = conjunction(chosen)
        holds, shorter = function(text), shorter + ("distinct(" in text)
        for x in product(range(4), repeat=4):
            wanted = all(said[how[-2:]](x[i], x[j]) != (how[0] == "!") for how, i, j in chosen)
            assert holds(*x) == wanted, (chosen, text)
    assert 20 < shorter < 140


ALL = [("!eq", i, j) for i in range(3) for j in range(i)]


@pytest.mark.parametrize(
    ("conditions", "op", "expected"),
    [
        (ALL, "and", "distinct(x0, x1, x2)"),
        ([("lt", 2, 3), *ALL[::-1]], "and", "((x2 < x3) and distinct(x0, x1, x2))"),
        ([*ALL, ("!eq", 3, 0)], "and", "(not((x3 == x0)) and distinct(x0, x1, x2))"),
        (ALL, "or", None), (ALL[1:], "and", None), ([*ALL[1:], ("eq", 0, 1)], "and", None), ([*ALL[1:], ("|eq", 0, 1)], "and", None),
        ([*ALL[1:], ("!lt", 0, 1)], "and", None), ([*ALL[1:], ("!eq", 1, 1)], "and", None), ([*ALL[1:], ALL[1]], "and", None),
    ],
)  # fmt: skip
def test_distinct_is_printed_of_what_the_graph_says(conditions, op, expected):
    text = conjunction(conditions, op)
    assert text == expected if expected else "distinct(" not in text


class Total(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[-2.0], [-1.0], [1.0], [3.0]]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids].sum(1)


def test_a_guard_that_is_printed_shorter_is_read_back():
    """By the second reader, and another one is not taken for it."""
    x = tokens("x", length=4, vocab=4)
    model = capture(Total().eval(), torch.zeros(1, 4, dtype=torch.long))
    share = Share(model["output"][0] > 0, over=x, given=[distinct(*x[:3]), Ne(x[0], x[3])])
    file = prove(share).certificate
    assert file is not None
    printed_lines = printed(check(file))
    assert "(not((x0 == x3)) and distinct(x0, x1, x2))" in printed_lines and false_lines(printed_lines, file) == []
    for other in ("distinct(x0, x1, x3)", "distinct(x0, x1)", "distinct(x0, x1, x2, x3)", "distinct(x0, x0, x2)"):
        assert false_lines(printed_lines.replace("distinct(x0, x1, x2)", other), file)
    for other in ("distinct(x0, x1, x2)", "(not((x0 == x2)) and distinct(x0, x1, x2))"):
        assert false_lines(printed_lines.replace("(not((x0 == x3)) and distinct(x0, x1, x2))", other), file)


@pytest.mark.parametrize(
    ("op", "of", "less", "curve", "expected"),
    [
        ("sub", 0, (0, 1), "relu", "min(a, b)"),
        ("add", 0, (1, 0), "relu", "max(b, a)"),
        ("sub", 0, (1, 0), "relu", None),
        ("add", 0, (0, 1), "relu", None),
        ("sub", 2, (0, 1), "relu", None),
        ("add", 2, (1, 0), "relu", None),
        ("sub", 0, (0, 1), "abs", None),
        ("add", 0, (1, 0), "abs", None),
    ],
)
def test_the_lesser_and_the_larger_are_printed_of_nothing_else(op, of, less, curve, expected):
    """a - relu(a - b) is the lesser of a and b, a + relu(b - a) the larger one, and their like are neither."""
    graph = Graph(0, (0,))
    entries = [graph.add("view", graph.add("input", attr=(0, (3,))), attr=((), i, ())) for i in range(3)]
    beyond = graph.add(curve, graph.add("sub", *(entries[i] for i in less)))
    root = graph.add(op, entries[of], beyond)
    (text,), _ = Formulas(Listing(graph, [root]), {}).write([root])
    for name, n in zip("abc", range(3), strict=True):
        text = text.replace(f"input0[{n}]", name)
    if expected is None:
        assert "min(" not in text and "max(" not in text, text
    else:
        assert text == expected

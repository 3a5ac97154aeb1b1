"""A sentence in the letters of mathematics is the printed one, sign by sign."""

import json
import re
from html import unescape

import pytest

from mechverify.kernel.statement.sentence import state
from mechverify.report import mathematics
from mechverify.report.mathematics import Piece, verbatim
from tests.report import made

FORMULAS = [
    ("max(x0, x1)", r"$\max(x_{0},\allowbreak x_{1})$"),
    ("(x12 mod 59)", r"$(x_{12}\bmod 59)$"),
    ("(input0[1, :] - 3/7)", r"$(\mathit{input}_{0}[1,\allowbreak :]-3/7)$"),
    ("(a.b_c ^ 2)", r"$(\text{\ttfamily a.b\_c}^{2})$"),
    ("(1 if (x0 == 2) else '0'[3])", r"$(1\text{ if }(x_{0}=2)\text{ else }\text{\ttfamily '0'}[3])$"),
    ("(3*2^-70 <= n5)", r"$(3\cdot 2^{-70}\le n_{5})$"),
    ("leads(t1)", r"$\operatorname{leads}(t_{1})$"),
    ('einsum(n3, n4, "ij,jk->ik")', r"$\operatorname{einsum}(n_{3},\allowbreak n_{4},\allowbreak "
     r"\text{\ttfamily {\ttfamily\char34}ij,jk-\textgreater{}ik{\ttfamily\char34}})$"),
    ("over_root(q, 32)", r"$\operatorname{over\_root}(\text{\ttfamily q},\allowbreak 32)$"),
]  # fmt: skip
KNOWN = {
    *(f"<{slash}{tag}>" for tag in ("math", "mrow", "mi", "mn", "mo", "mtext", "msub", "msup") for slash in ("", "/")),
    "<wbr>", '<mtext class="name">', '<mo stretchy="false">', '<mo form="infix">', '<mo separator="true">',
}  # fmt: skip


@pytest.mark.parametrize(("text", "latex"), FORMULAS)
def test_formulas_are_set_sign_by_sign(text, latex):
    assert mathematics.latex([Piece(text, True)]) == latex


@pytest.mark.parametrize("text", [text for text, _ in FORMULAS])
def test_what_mathml_shows_is_what_was_printed(text):
    shown = unescape(re.sub("<[^>]*>", "", mathematics.mathml([Piece(text, True)])))
    for sign, plain in (("−", "-"), ("=", "=="), ("≤", "<="), ("·2", "*2^"), ("\xa0", " ")):
        shown = shown.replace(sign, plain)
    assert shown.replace(" ", "") == text.replace(" ^ ", "").replace(" ", "")


@pytest.mark.parametrize("text", made.HOSTILE)
def test_no_formula_is_markup(text):
    for formula in (text, f"'{text}'", json.dumps(text), f"{text}(x0)"):
        shown = mathematics.mathml([Piece(formula, True), Piece(text, False)])
        assert set(re.findall("<[^>]*>", shown)) <= KNOWN


def test_a_claim_is_cut_and_loses_nothing(kinds):
    for one in kinds.values():
        statement = state(one.theorem)
        pieces = mathematics.claim(statement)
        assert "".join(piece.text for piece in pieces) == statement.claim
        assert next(p.text for p in pieces if p.formula) in statement.subject


def test_shared_parts_are_formulas():
    doc, data = made.networks.document(made.NET, n=2)
    statement = state(made.checked(made.networks.file(doc, data)).theorem)._replace(
        claim="the range of [(t1 + 1), t1], 2 entries, where t1 = max(x0, x1, x2)", subject="[(t1 + 1), t1]"
    )
    pieces = mathematics.claim(statement)
    assert [piece.text for piece in pieces if piece.formula] == ["[(t1 + 1), t1]", "t1 = max(x0, x1, x2)"]
    assert "".join(piece.text for piece in pieces) == statement.claim


def test_long_numbers_may_be_broken():
    digits = "0.1000000000000000055511151231257827"
    for set_ in (mathematics.latex([Piece(digits, True)]), mathematics.mathml([Piece(digits, True)])):
        assert digits not in set_
        assert re.sub(r"<[^>]*>|\\allowbreak |\$", "", set_) == digits


def test_words_are_words():
    assert mathematics.latex([Piece("50 % & x_1 ", False), Piece("x1", True)]) == r"50 \% \& x\_1 $x_{1}$"
    assert mathematics.mathml([Piece("a < b & c", False)]) == "a &lt; b &amp; c"


def test_a_text_holds_no_ligature_and_no_command():
    assert verbatim("a--b ''c'' ?`") == "a-{}-b '{}'c'{}' ?{}`"
    for text in made.HOSTILE:
        known = re.sub(r"\\text[a-z]+\{\}|\{\\ttfamily\\char34\}|\\[_&%#${}]", "", verbatim(text))
        assert not set(known) & set('\\~^<>|"_&%#$'), known

"""The kernel's sentence in the letters of mathematics: in LaTeX, and in MathML for a page.

The formulas of a sentence (docs/statement.md) are set sign by sign, in their order: nothing is simplified, left out or
put in other brackets, so that what is set says what is printed. What can't be set as mathematics is set verbatim.
"""

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from mechverify.kernel.statement.common import Statement

SIGN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*") | (?P<name>'[^']*') | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:\*2\^-?[0-9]+|/[0-9]+)?)
      | \^[ ](?P<power>[0-9]+) | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:[.@][A-Za-z0-9_]+)*)
      | (?P<sign>==|<=|>=|//|[-+*<>=(),:[\]]) | (?P<blank>[ ]+) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
SIGNS = {  # LaTeX, and the character of MathML
    "==": ("=", "="), "<=": (r"\le ", "≤"), ">=": (r"\ge ", "≥"), "*": (r"\cdot ", "·"),
    "//": (r"\mathbin{/\!\!/}", "//"), "-": ("-", "−"), ",": (r",\allowbreak ", ","), "and": (r"\land ", "∧"),
    "or": (r"\lor ", "∨"), "mod": (r"\bmod ", "mod"), "pi": (r"\pi ", "π"),
}  # fmt: skip
WORDS = ("if", "else", "where", "at", "of")
NAMED = ("max", "min", "exp", "log", "sin", "cos", "tanh")  # LaTeX has them
INDEXED = re.compile(r"(x|t|n|input)([0-9]+)")
LETTERS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
           ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\ttfamily\char34}",
           **{c: f"\\{c}" for c in "_&%#${}"}}  # fmt: skip
MINUS = "−"
LONG = 24  # characters of a number that is kept together
BREAK, BREAKABLE = "\n", re.compile(r'<mo (form="infix"|separator)')
HASH = re.compile(r"[0-9a-f]{32,}")


class Piece(NamedTuple):
    """Of a sentence: words, or a formula."""

    text: str
    formula: bool


def claim(statement: Statement) -> list[Piece]:
    """The claim, cut: the pieces' texts together are `statement.claim`."""
    rest, where, shared = statement.claim.partition(", where t1 = ")
    pieces = []
    for part in filter(None, (statement.subject, statement.equals)):
        formula = part.partition(", where t1 = ")[0]
        before, found, after = rest.partition(formula)
        if found:
            pieces += [Piece(before, False), Piece(formula, True)]
            rest = after
    pieces += [Piece(rest, False)]
    if where:
        pieces += [Piece(", where ", False), Piece(f"t1 = {shared}", True)]
    return [piece for piece in pieces if piece.text]


def latex(pieces: list[Piece]) -> str:
    """For the body of a document with amsmath."""
    return "".join(
        f"${''.join(_in_latex(*_set(*sign)) for sign in _signs(piece.text))}$"
        if piece.formula
        else in_words(piece.text)
        for piece in pieces
    )


def mathml(pieces: list[Piece]) -> str:
    """For the body of a page; lines may be broken after commas and between operands."""
    return "".join(
        _in_lines(_in_mathml(*_set(*sign)) for sign in _signs(piece.text))
        if piece.formula
        else escape(piece.text)
        for piece in pieces
    )


def _in_lines(signs: Iterable[str]) -> str:
    """Formulas that a line may end between: a browser breaks none."""
    found = "".join(f"{sign}{BREAK if BREAKABLE.match(sign) else ''}" for sign in signs)
    parts = filter(None, found.split(BREAK))
    return "<wbr>".join(f"<math><mrow>{part}</mrow></math>" for part in parts)


def in_words(text: str) -> str:
    """Any text in LaTeX; hashes may be broken at the ends of lines."""

    def breakable(found: re.Match) -> str:
        return r"\allowbreak{}".join(re.findall(".{1,8}", found[0]))

    return HASH.sub(breakable, verbatim(text))


def verbatim(text: str) -> str:
    """Any text as it stands: no sign is a command, and none become another one together."""
    text = "".join(LETTERS.get(c, c) for c in text)
    return re.sub(r"([-'`,!?])(?=[-'`,])", r"\1{}", text)


def _signs(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each sign, blanks left out; a word before a bracket is a `function`."""
    for found in SIGN.finditer(text):
        kind = group = found.lastgroup or "other"
        if kind == "word" and text[found.end() : found.end() + 1] == "(":
            kind = "function"
        if kind != "blank":
            yield kind, found[group]


def _set(kind: str, text: str) -> tuple[str, str, str]:
    """(how, text, index), as the sign is to be set."""
    if kind in ("word", "sign", "function") and text in SIGNS:
        return "sign", text, ""
    if kind == "word" and text in WORDS:
        return "words", text, ""
    if kind == "word" and (indexed := INDEXED.fullmatch(text)):
        return "indexed", indexed[1], indexed[2]
    if kind in ("number", "power", "function"):
        return kind, text, ""
    return "plain" if kind == "sign" else "name", text, ""


def _in_latex(how: str, text: str, index: str) -> str:
    match how:
        case "sign":
            return SIGNS[text][0]
        case "plain":
            return text
        case "number":
            base, two, power = text.partition("*2^")
            base = r"\allowbreak ".join(_parts(base))
            return rf"{base}\cdot 2^{{{power}}}" if two else base
        case "power":
            return f"^{{{text}}}"
        case "words":
            return rf"\text{{ {text} }}"
        case "indexed":
            letter = text if len(text) == 1 else rf"\mathit{{{text}}}"
            return f"{letter}_{{{index}}}"
        case "function" if text in NAMED:
            return f"\\{text}"
        case "function":
            return rf"\operatorname{{{_spelt(text)}}}"
    return rf"\text{{\ttfamily {verbatim(text)}}}"


def _parts(number: str) -> list[str]:
    """Of a long number, between which a line may end."""
    return re.findall(".{1,10}", number) if len(number) > LONG else [number]


def _spelt(text: str) -> str:
    return text.replace("_", r"\_")


def _in_mathml(how: str, text: str, index: str) -> str:
    match how:
        case "sign":
            how = ' separator="true"' if text == "," else ' form="infix"'
            return f"<mo{how}>{escape(SIGNS[text][1])}</mo>"
        case "plain" if text in "()[]:":
            return f'<mo stretchy="false">{text}</mo>'
        case "plain":
            return f'<mo form="infix">{escape(text)}</mo>'
        case "number":
            base, two, power = text.replace("-", MINUS).partition("*2^")
            number = BREAK.join(f"<mn>{part}</mn>" for part in _parts(base))
            times = f"<mo>·</mo><msup><mn>2</mn><mn>{power}</mn></msup>"
            return f"{number}{times if two else ''}"
        case "power":
            return f"<msup><mrow></mrow><mn>{text}</mn></msup>"
        case "words":
            return f"<mtext>&nbsp;{text}&nbsp;</mtext>"
        case "indexed":
            return f"<msub><mi>{text}</mi><mn>{index}</mn></msub>"
        case "function":
            return f"<mi>{escape(text)}</mi>"
    return f'<mtext class="name">{escape(text)}</mtext>'


def named(text: str) -> list[str]:
    """The names of values in a formula, as they are printed."""
    return [sign for kind, sign in _signs(text) if kind in ("word", "name")]

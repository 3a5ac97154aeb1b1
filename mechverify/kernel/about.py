"""What a theorem rests on: the modules of the kernel that its check used, which are those that are loaded."""

import io
import re
import sys
import tokenize
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent
BESIDE = {
    "__init__",
    "__main__",
    "about",
    "core.words",
}  # modules that decide nothing; nor do those of statement/
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
          tokenize.ENDMARKER}  # fmt: skip


class Module(NamedTuple):
    """`lines` that hold code, `tokens` of Python without comments, docstrings and layout; lemmas that it cites."""

    name: str
    lines: int
    tokens: int
    lemmas: tuple[str, ...]


def module(path: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    tokens, lines, before = 0, set(), tokenize.NEWLINE
    stream = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for token, following in pairwise(stream):
        alone = before in LAYOUT and following.type == tokenize.NEWLINE  # a docstring
        if token.type not in LAYOUT and not (token.type == tokenize.STRING and alone):
            tokens += 1
            lines.update(range(token.start[0], token.end[0] + 1))
        before = token.type
    cited = re.findall(r"\b[Ll]emmas? [^\n]*", source)
    lemmas = {
        number for text in cited for number in re.findall(r"\b[A-Z][0-9]{1,2}\b", text)
    }
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    return Module(
        name,
        len(lines),
        tokens,
        tuple(sorted(lemmas, key=lambda number: (number[0], int(number[1:])))),
    )


def loaded() -> list[Module]:
    """Of this process: right where nothing but the kernel was imported."""
    prefix, found = "mechverify.kernel.", []
    for name, value in sorted(sys.modules.items()):
        inside = name.removeprefix(prefix)
        file = getattr(value, "__file__", None)
        if (
            name.startswith(prefix)
            and file
            and inside not in BESIDE
            and not inside.startswith("statement")
        ):
            found.append(module(Path(file)))
    return [m for m in found if m.tokens]


def everything() -> list[Module]:
    return [m for m in map(module, sorted(ROOT.rglob("*.py"))) if m.tokens]


def table(modules: list[Module]) -> list[str]:
    lines, tokens = sum(m.lines for m in modules), sum(m.tokens for m in modules)
    rows = [
        f"{m.lines:6}  {m.tokens:6}  {m.name:22}  {', '.join(m.lemmas)}".rstrip()
        for m in modules
    ]
    return [
        " lines  tokens  module",
        *rows,
        f"{lines:6}  {tokens:6}  in {len(modules)} modules",
    ]

"""The pages a reader sees, their fenced blocks, and how a block is held to what it says.

`python` blocks run, in the order of the page and in one namespace; one whose first line is `# NAME.py` is also that
file, for commands below it. In a `console` block each `$ command` runs, and the lines under it must occur in what it
prints, in that order, blanks apart; `...` stands for what is left out. In a `sh` block commands are only looked up: the
command, its options, the files and parameters that it names. Other blocks hold no commands.
"""

import importlib
import inspect
import os
import re
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import typer
from typer.testing import CliRunner

from mechverify.cli import app

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


class Block(NamedTuple):
    language: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text := page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(m[1], text[: m.start()].count("\n") + 2, m[2]) for m in found]


@contextmanager
def desk(folder: Path):
    """A working directory like a clone's root, in which nothing shipped can be overwritten."""
    for name in ("proofs", "toy_models"):
        (folder / name).symlink_to(ROOT / name)
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    modules = set(sys.modules)
    try:
        yield folder
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def execute(block: Block, page: Path, names: dict) -> None:
    if named := re.match(r"# ([\w/]+\.py)\n", block.text):
        Path(named[1]).write_text(block.text)
    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def commands(text: str) -> list[tuple[list[str], list[str]]]:
    """(words, lines below) of each command: of a console's, those after `$ `; of a shell block's, every line."""
    found: list[tuple[list[str], list[str]]] = []
    console = any(line.startswith("$ ") for line in text.splitlines())
    for line in text.splitlines():
        if line.startswith("$ ") or not console:
            words = shlex.split(line.removeprefix("$ "), comments=True)
            found += [(words, [])] if words else []
        elif line.strip():
            found[-1][1].append(line)
    return found


def run(words: list[str]) -> str:
    words = [Path(words[0]).name, *words[1:]]
    if words[0] == "mechverify":
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, words[1:])
        assert result.exit_code in (0, 1) and "Traceback" not in result.output, result.output
        return result.output
    raise AssertionError(f"a console block can't run {words[0]}: make it a sh block")


def occur(lines: list[str], printed: str) -> str | None:
    """The first line that isn't printed after those before it."""
    rest = [" ".join(line.split()) for line in printed.splitlines()]
    for line in (wanted for wanted in lines if wanted.strip() != "..."):
        if (text := " ".join(line.split())) not in rest:
            return line
        rest = rest[rest.index(text) + 1 :]
    return None


def look_up(words: list[str]) -> None:
    words = [Path(words[0]).name, *words[1:]]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[:2] == ["python", "-m"]:
        source = importlib.util.find_spec(words[2])  # type: ignore[attr-defined]
        assert source is not None, words
        origin = Path(str(source.origin))
        _options(words[3:], origin.with_name("__main__.py") if origin.name == "__init__.py" else origin)
    elif words[0] == "python":
        _options(words[2:], ROOT / words[1])
    elif words[0] == "mechverify":
        _mechverify(words[1], words[2:])
    else:
        assert words[0] in ("git", "sha256sum"), f"unknown command {words[0]}"


def _options(words: list[str], source: Path) -> None:
    text = source.read_text()
    for option in (w for w in words if w.startswith("--")):
        assert f'"{option}"' in text, f"{source}: no option {option}"


def _mechverify(name: str, words: list[str]) -> None:
    """The command has the options, and the claim's file the parameters."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert name in commands, f"no command {name}"
    known = {option for p in commands[name].params for option in (*p.opts, *p.secondary_opts)}
    for option in (w for w in words if re.match(r"--?[a-z]", w)):
        assert option in known, f"mechverify {name}: no option {option}"
    files = [w for w in words if w.endswith(".py") and Path(w).exists()]
    for file in (f for f in words if f.startswith("proofs/")):
        assert file in files, file
    given = [words[i + 1].split("=")[0] for i, w in enumerate(words) if w == "-p"]
    if files and given:
        module = importlib.import_module(files[0].removesuffix(".py").replace("/", "."))
        assert set(given) <= set(inspect.signature(module.claim).parameters), words

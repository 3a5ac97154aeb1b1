"""What a page shows runs, prints what it says, and leads where it points."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, commands, desk, execute, look_up, occur, run

COMMAND = re.compile(r"^\$? ?(\.venv/bin/)?(mechverify|python|make) ", re.MULTILINE)
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@named
def test_every_block_does_what_it_says(page, tmp_path):
    names: dict = {}
    with desk(tmp_path):
        for block in blocks(page):
            where = f"{page}:{block.line}"
            if block.language == "python":
                execute(block, page, names)
            elif block.language == "console":
                for words, below in commands(block.text):
                    printed = run(words)
                    assert occur(below, printed) is None, f"{where}: {occur(below, printed)}\nnot in\n{printed}"
            elif block.language == "sh":
                for words, _ in commands(block.text):
                    look_up(words)
            else:
                assert not COMMAND.search(block.text), f"{where}: commands in a block that nobody runs"


def test_what_is_not_printed_is_noticed():
    assert occur(["a  b", "...", "d"], "x\na b\nc\nd") is None
    assert occur(["d", "a b"], "a b\nd") == "a b"


@pytest.mark.parametrize(
    "line",
    [
        "mechverify prove proofs/none.py",
        "mechverify prove proofs/max_of_k.py --colour red",
        "mechverify prove proofs/max_of_k.py -p speed=9",
        "mechverify improve proofs/max_of_k.py",
        "python benchmarks/bounds.py --fast",
        "make tea",
    ],
)
def test_a_command_that_is_not_there_is_noticed(line, tmp_path):
    with desk(tmp_path), pytest.raises((AssertionError, OSError)):
        look_up(line.split())


LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h).lower()).replace(" ", "-") for h in heads
    }


def text_of(page: Path) -> str:
    """Without blocks and code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S))


@named
def test_links_lead_somewhere(page):
    for target in LINK.findall(text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(goal), f"{page}: {target}; there are {sorted(anchors(goal))}"


def test_every_page_is_reached_from_the_front_page():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            links = (t.partition("#")[0] for t in LINK.findall(text_of(page)))
            waiting += [(page.parent / t).resolve() for t in links if t.endswith(".md")]
    assert seen == set(PAGES)


@named
def test_files_named_in_code_exist(page):
    for name in re.findall(
        r"`((?:mechverify|docs|tests|benchmarks|proofs|toy_models)/[\w/.]+\.\w+)`", page.read_text()
    ):
        assert (ROOT / name).exists(), f"{page}: {name}"


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100

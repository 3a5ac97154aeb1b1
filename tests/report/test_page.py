"""The page says what the kernel says, says what nobody checked, and nothing that a file's author wrote is markup."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from typer.testing import CliRunner

from mechverify.cli import app
from mechverify.kernel.core.container import pack, unpack
from mechverify.kernel.statement.sentence import state
from mechverify.report.figures import pictures
from mechverify.report.html import write_html
from mechverify.report.statement import lines
from mechverify.report.tree import DEPTH, MOST, Step, outline, terminal
from tests.report import made

TAGS = {"a", "article", "body", "br", "code", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "footer", "h1",
        "h2", "h3", "h4", "head", "header", "html", "li", "main", "meta", "nav", "p", "pre", "section", "span", "strong",
        "style", "summary", "table", "tbody", "td", "th", "thead", "title", "tr", "ul", "wbr"}  # fmt: skip
MATH = {"math", "mi", "mn", "mo", "mrow", "msub", "msup", "mtext"}
DRAWN = {"svg", "g", "path", "text", "tspan", "defs", "use", "image", "clippath", "rect", "pattern"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and the text within elements of a class."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.within = [], [], []
        self.open: list[tuple[str, str]] = []
        self.feed(text)
        self.words = " ".join("".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("br", "meta", "wbr"):
            self.open.append((tag, dict(attrs).get("class") or ""))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.text.append(data)
        if any(name == "unsaid" for _, name in self.open):
            self.within.append(data)


def page(tmp_path, *checked) -> Page:
    text = write_html(tmp_path / "page", checked).read_text("ascii")
    found = Page(text)
    assert not found.open
    return found


def spaced(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("kind", ["fold", "listed", "bounds", "refuted", "share"])
def test_every_line_of_the_theorem_is_on_the_page(kind, kinds, tmp_path):
    found = page(tmp_path, kinds[kind])
    for label, text in lines(kinds[kind].theorem):
        assert label in found.words and spaced(text) in found.words, (label, text)


def test_what_nobody_checked_stands_apart(kinds, tmp_path):
    for kind in ("bounds", "fold"):
        found = page(tmp_path, kinds[kind])
        statement = state(kinds[kind].theorem)
        apart, whole = spaced(" ".join(found.within)), found.words
        for text in statement.asserted:
            assert spaced(text) in apart and whole.count(spaced(text)) >= 1
        for _, text in (*statement.proved, ("", statement.domain[0])):
            assert spaced(text) not in apart
        assert bool(apart) == bool(statement.asserted) == (kind == "bounds")


def test_a_claim_that_is_refuted_never_stands_alone(kinds, tmp_path):
    """Wherever the page sets the claim apart from its list, the verdict begins the line."""
    text = write_html(tmp_path, [kinds["refuted"]]).read_text()
    (claim,) = re.findall(r'<p class="claim [^>]*>(.*?)</p>', text, re.DOTALL)
    assert re.sub("<[^>]*>", "", claim).startswith("REFUTED: every entry at most 0.25")


SQUARE = made.Network(
    [["input", [], [0, [2, 2]]], ["softmax", [0], "causal"]], {}, [(np.full((2, 2), -1.0), np.ones((2, 2)))], [], 0
)  # fmt: skip


def hostile(text: str) -> bytes:
    """A file that calls its module, the site that the claim is about, and another one so: pictures show the latter."""
    points = {"rule": "point", "inputs": [[[], [(0.5).hex()] * 4]]}
    doc, data = made.networks.document(SQUARE, points, n=4, at_most="1/4", verdict="REFUTED")
    graph = doc["claim"]["graph"]
    graph["replayed"]["module"] = text
    graph["sites"] = [[text, 1], [f"{text}!", 1]]
    doc["claim"]["site"] = f"{text}!"
    return made.networks.file(doc, data)


def test_nothing_that_an_author_writes_is_markup(tmp_path):
    for text in made.HOSTILE:
        one = made.checked(hostile(text), text.replace("/", "|"))
        two = one._replace(path=one.path.with_name(f"{one.path.name}2"))
        found = page(tmp_path, one, two)
        assert {tag for tag, _ in found.tags} <= TAGS | MATH | DRAWN
        for tag, attributes in found.tags:
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
            link = attributes.get("href", attributes.get("xlink:href", "#"))
            assert link.startswith(("#", "data:image/png;base64,")) and "src" not in attributes
        assert f"the module {json.dumps(text)}" in found.words  # as text, whole


def test_a_page_asks_for_nothing(whole):
    text = whole.read_text("ascii")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert re.findall(r"https?://[^\"]*", text.replace("http://www.w3.org/", "")) == []
    assert [path.name for path in whole.parent.iterdir()] == ["index.html"]


def test_ids_are_unique_and_headings_in_order(whole):
    found = Page(whole.read_text("ascii"))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {a for _, attributes in found.tags for a in attributes.get("aria-labelledby", "").split()}
    assert named <= set(ids)
    assert {a["href"][1:] for tag, a in found.tags if tag in ("a", "use") and "href" in a} <= set(ids)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels))


def test_every_picture_is_told(kinds, tmp_path):
    for kind, names in (("fold", {"cells", "margins", "attention", "values", "cost"}), ("bounds", {"bounds", "values"}),
                        ("refuted", {"bounds", "values"}), ("share", {"map", "margins"})):  # fmt: skip
        found = {picture.name: picture for picture in pictures(kinds[kind])}
        assert set(found) == names, kind
        for picture in found.values():
            assert picture.alt.endswith(".") and picture.caption.endswith((".", "]", ").")), picture.caption
        sampled = {n for n in names if n in ("bounds", "map", "margins")}
        assert all(re.search("no part of the theorem", found[n].caption) for n in sampled)


def test_a_page_is_the_same_each_time(kinds, tmp_path):
    some = kinds["fold"], kinds["share"]
    one, two = (write_html(tmp_path / str(i), some).read_bytes() for i in range(2))
    assert one == two


def halves(levels: int) -> dict:
    if not levels:
        return {"rule": "relaxation", "lines": None}
    at = float(np.ldexp(1.0, -levels)).hex()
    return {"rule": "split", "coordinate": 0, "at": at, "inside": halves(0), "outside": halves(levels - 1)}


def count(step: Step) -> tuple[int, int]:
    """Steps that are shown, and that are said to be below."""
    pairs = [count(s) for s in step.steps]
    return 1 + sum(a for a, _ in pairs), step.below + sum(b for _, b in pairs)


@pytest.mark.parametrize("levels", [1, 5, 40])
def test_no_step_of_a_proof_is_lost(levels):
    proof = halves(levels)
    doc, data = made.networks.document(made.NET, proof, low=[None] * 2, high=[None] * 2, n=2)
    one = made.checked(made.networks.file(doc, data))
    root = outline(one.data, one.theorem)
    shown, below = count(root)
    assert shown - 1 + below == 2 * levels + 1
    assert (below == 0) == (levels < DEPTH) and shown <= MOST + 1
    assert terminal(root).children


def test_a_certificate_that_is_not_accepted_has_no_page(tmp_path):
    contents = unpack(made.bounds())
    document = json.loads(contents["certificate.json"])
    document["conclusion"]["high"] = [(0.5).hex(), (0.0).hex()]
    path = tmp_path / "false.cert"
    path.write_bytes(pack({**contents, "certificate.json": json.dumps(document).encode()}))
    for option in ("--html", "--figures", "--latex"):
        result = CliRunner().invoke(app, ["report", str(path), option, str(tmp_path / "out")])
        assert result.exit_code == 1 and "REJECTED" in result.output and not (tmp_path / "out").exists()

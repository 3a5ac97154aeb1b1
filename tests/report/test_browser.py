"""The page in a real browser: extra `browser` (`pip install "mechverify[browser]"`) and a Chromium on the path."""

import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`: playwright isn't installed")
axe = pytest.importorskip("axe_playwright_python", reason="needs the extra `browser`: axe-core isn't installed")
NAMES = "chromium", "chromium-browser", "google-chrome", "chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser on the path: none of {', '.join(NAMES)}")
WIDTHS = 390, 820, 1440  # pixels of a phone, a tablet, a desk
AXE = (Path(axe.__file__).parent / "axe.min.js").read_text()
FAR = """() => [...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, svg, math, pre'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, whole):
    """Opens the page, and afterwards says what it complained of and asked for."""
    complaints: list[str] = []

    def at(width: int, **settings):
        page = browser.new_context(viewport={"width": width, "height": 900}, **settings).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url)
                if not request.url.startswith("data:") and request.url != whole.as_uri() else None)  # fmt: skip
        page.goto(whole.as_uri())
        return page

    yield at
    for context in browser.contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_axe_finds_nothing(opened, width, scheme):
    page = opened(width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(FAR) == []
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    assert [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found["violations"]] == []
    assert len(found["passes"]) > 20
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark != "rgb(255, 255, 255)") == (scheme == "dark")


def test_axe_would_find_something(opened):
    page = opened(390)
    page.evaluate("document.documentElement.lang = ''; document.querySelector('.soft').style.color = '#ccc'")
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {runOnly: ['html-has-lang', 'color-contrast']})")
    assert {v["id"] for v in found["violations"]} == {"html-has-lang", "color-contrast"}


def test_every_picture_is_seen(opened):
    page = opened(820)
    boxes = page.evaluate("[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().toJSON())")
    assert len(boxes) > 10 and all(b["width"] > 300 and b["height"] > 80 for b in boxes)
    named = page.evaluate("[...document.querySelectorAll('figure svg')].map(e => e.querySelector('title').textContent)")
    assert all(len(text) > 20 for text in named)


def test_a_tree_unfolds_by_mouse_and_by_key(opened):
    page = opened(390)
    step = page.locator("#c1 .tree summary", has_text="both: the better of two").first
    leaf = page.locator("#c1 .tree .leaf", has_text="counterexample: 3 wrong inputs").first
    assert not leaf.is_visible()
    step.click()
    assert leaf.is_visible()
    step.focus()
    page.keyboard.press("Enter")
    assert not leaf.is_visible()


def test_the_table_leads_to_each_certificate(opened):
    page = opened(1440)
    for link in page.locator("nav a").all():
        goal = link.get_attribute("href")
        link.click()
        assert page.evaluate("location.hash") == goal and page.locator(goal).is_visible()


def test_what_is_folded_is_printed(opened):
    page = opened(820)
    leaf = page.locator("#c1 .tree .leaf", has_text="counterexample: 3 wrong inputs").first
    page.emulate_media(media="print")
    assert leaf.is_visible() and leaf.bounding_box()["height"] > 5
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert len(page.pdf()) > 50_000


def test_no_script_runs_on_it(opened, whole, tmp_path):
    """Were something of an author's to become a script after all, the page's policy stops it."""
    page = opened(820)
    text = whole.read_text().replace("</header>", "</header><script>document.title = 'taken'</script>"
                                     "<img src=x onerror=\"document.title = 'taken'\">")  # fmt: skip
    (tmp_path / "spoilt.html").write_text(text)
    spoilt = page.context.browser.new_context().new_page()
    spoilt.goto((tmp_path / "spoilt.html").as_uri())
    assert spoilt.title() == "6 theorems"

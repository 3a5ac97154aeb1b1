"""One self-contained page for some checked certificates."""

from pathlib import Path

from jinja2 import Environment

from mechverify.files import write
from mechverify.kernel import Theorem
from mechverify.kernel.core.texts import printable
from mechverify.report.figures import cells_figure
from mechverify.report.statement import lines

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>mechverify report</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
 section{border-top:1px solid #ccc;margin-top:2rem} dl{display:grid;grid-template-columns:10rem 1fr;gap:.2rem 1rem}
 dt{color:#666;text-align:right} dd{margin:0;overflow-wrap:anywhere} svg{max-width:100%;height:auto}
 .PROVED{color:#137333}.REFUTED{color:#b3261e}.BOUNDED{color:#0b6a86}
</style><h1>mechverify report</h1>
<p>Each theorem below was checked by the kernel when this page was written. Check again with
<code>python -m mechverify.kernel CERTIFICATE</code>, which needs nothing but numpy.</p>
{% for item in items %}<section><h2>{{ item.name }}: <span class="{{ item.verdict }}">{{ item.verdict }}</span></h2>
<dl>{% for label, text in item.lines %}<dt>{{ label }}</dt><dd>{{ text }}</dd>{% endfor %}
<dt>checked in</dt><dd>{{ '%.2f' % item.seconds }} s</dd></dl>
{% if item.figure %}<figure>{{ item.figure|safe }}
<figcaption>The cells of the proof: query token across, value of the mechanism upwards.</figcaption></figure>
{% endif %}</section>{% endfor %}</html>
"""


def _names(checked: list[tuple[Path, Theorem, float]]) -> list[str]:
    """File names, numbered where two are alike."""
    names = [printable(path.name) for path, _, _ in checked]
    return [f"{i + 1}-{n}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def write_html(folder: Path, checked: list[tuple[Path, Theorem, float]]) -> Path:
    """Write `folder`/index.html, and each figure as a file of its own beside it; return the page's path."""
    items = [
        {
            "name": name, "verdict": theorem.verdict, "lines": lines(theorem), "seconds": seconds,
            "figure": cells_figure(theorem),
        }
        for name, (_, theorem, seconds) in zip(_names(checked), checked, strict=True)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        if item["figure"]:
            write(folder / f"{item['name']}.svg", item["figure"].encode())
    page = folder / "index.html"
    text = Environment(autoescape=True).from_string(PAGE).render(items=items)
    write(page, text.encode())
    return page

"""Makes the operations' part of docs/certificate.md and of docs/certificate.schema.json from the kernel's table, and
the page's table of rules about counts from the schema.

    python -m benchmarks.grammar

A test compares what is committed with what this makes.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mechverify.kernel.core.operations import INTEGERS, LISTED, OPERATIONS

DOCS = Path(__file__).parent.parent / "docs"
PAGE, SCHEMA = DOCS / "certificate.md", DOCS / "certificate.schema.json"
OPERATIONS_PART, RULES_PART = (
    (f"<!-- {what}: made by python -m benchmarks.grammar -->\n", f"<!-- end of {what} -->\n")
    for what in ("operations", "rules")
)


def table() -> str:
    """Operations that differ by their names alone share a row."""

    def said(name: str) -> tuple[str, str, str]:
        row = OPERATIONS[name]
        return "1 or more" if row.operands is None else str(row.operands), row.attribute.words, row.meaning

    rows = []
    for cells, names in groupby(LISTED, said):
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {' | '.join(cells)} |\n")
    return "| operation | operands | attribute | value |\n|---|---|---|---|\n" + "".join(rows)


def rules() -> str:
    """Those of claims that count: `title` says their fields, `description` what they prove."""
    proof = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]["proof"]
    rows = [
        f"| `{rule['properties']['rule']['const']}` | {rule['title']} | {rule['description']} |\n"
        for rule in proof["oneOf"]
        if "title" in rule
    ]
    return "| rule | fields beside `rule` | proves |\n|---|---|---|\n" + "".join(rows)


def page(text: str) -> str:
    """The page with the present tables between their marks."""
    for (start, end), made in ((OPERATIONS_PART, table()), (RULES_PART, rules())):
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = before + start + made + end + after
    return text


def rows(names: Sequence[str]) -> list[dict[str, Any]]:
    """A schema of [operation, operands, attribute] for each kind of row."""

    def kind(name: str) -> str:
        count = OPERATIONS[name].operands
        operands = {"minItems": 1} if count is None else {"minItems": count, "maxItems": count}
        return json.dumps([operands, OPERATIONS[name].attribute.schema])

    found = []
    for same, group in groupby(names, kind):
        alike = [*group]
        found.append({"prefixItems": [{"const": alike[0]} if len(alike) == 1 else {"enum": alike}, *json.loads(same)]})
    return found


def schema(document: dict[str, Any]) -> dict[str, Any]:
    """The schema with the present operations: of a captured graph, and of a mechanism."""
    defined = document["$defs"]
    model = [name for name in LISTED if name not in INTEGERS]
    changed = {
        "operation": defined["operation"] | {"oneOf": [*rows(model), {"$ref": "#/$defs/node"}]},
        "node": defined["node"] | {"oneOf": rows(INTEGERS)},
    }
    return document | {"$defs": defined | changed}


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    made = schema(json.loads(SCHEMA.read_text(encoding="utf-8")))
    SCHEMA.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Write docs/api.md: what `import mechverify` gives, from signatures and docstrings.

python docs/api.py
"""

import inspect
import re
from pathlib import Path

import mechverify

PAGE = Path(__file__).parent / "api.md"
GROUPS = {
    "Models": "transformer load capture pair_mlp Part",
    "Domains": "tokens box ball union normal uniform",
    "Claims": "Accuracy Share Bounds Within Holds Cases",
    "Circuits and interventions": "Circuits Same differ Equivariant parts interchanged smallest",
    "Words for mechanisms": "Mod count distinct dyck kth_largest lookup",
    "Proving and checking": "prove check Verdict Theorem",
    "Errors": "MechverifyError ClaimError NotACertificate Rejected Unsupported OverLimit",
}
HEAD = """# Python, name by name

Made from the docstrings by `docs/api.py`. All of these are `from mechverify import NAME`, load on first use, and are
typed. [The language of claims](language.md) says what mechanisms and conditions may be made of, [the
notebook](notebook.ipynb) shows some of it at work.
"""


def entry(name: str) -> str:
    value = getattr(mechverify, name)
    if value is None:  # uniform
        return f"### {name}\n\nThe distribution of a box's coordinates where none is said.\n"
    text = inspect.cleandoc(value.__doc__ or "")
    members = [f"* {line}" for line in _members(value)] if inspect.isclass(value) else []
    return "\n".join(
        [f"### {name}\n", f"```text\n{_signature(name, value)}\n```\n", text, "", *members, *[""] * bool(members)]
    )


def _signature(name: str, value: type) -> str:
    if inspect.isclass(value) and issubclass(value, BaseException):
        return f"class {name}({', '.join(base.__name__ for base in value.__bases__)})"
    try:
        said = str(inspect.signature(value))
    except (TypeError, ValueError):
        return name
    said = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", said)  # where a type comes from
    parts = said.removeprefix("(").split(", ")
    lines, line = [], f"{name}("
    for part in parts:
        if len(line) + len(part) > 100:
            lines.append(line.rstrip())
            line = "    "
        line += part + ", "
    return "\n".join([*lines, line.removesuffix(", ")])


def _members(value: type) -> list[str]:
    """Its own methods and properties that say what they are."""
    found = []
    for name, member in vars(value).items():
        function = member.fget if isinstance(member, property) else getattr(member, "func", member)
        if not name.startswith("_") and callable(function) and getattr(function, "__doc__", None):
            text = " ".join(inspect.cleandoc(function.__doc__).split())
            found.append(f"`{name}{'' if function is not member else '()'}`: {text}")
    return found


def page() -> str:
    sections = [f"## {title}\n\n" + "\n".join(map(entry, names.split())) for title, names in GROUPS.items()]
    return f"{HEAD}\n" + "\n".join(sections).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())

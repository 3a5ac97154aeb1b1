"""What a reader of a certificate has to trust, counted."""

from importlib.resources import files

from mechverify.kernel.check import AXIOMS, VERSIONS
from mechverify.kernel.rules import RULES


def modules() -> list[tuple[str, int, int]]:
    """(module, lines, those that aren't blank) of the kernel."""
    root = files("mechverify.kernel")
    folders = [root, *(p for p in root.iterdir() if p.is_dir())]
    paths = [p for folder in folders for p in folder.iterdir() if p.name.endswith(".py") and p.name != "__init__.py"]
    texts = {str(p)[len(str(root)) + 1 :]: p.read_text(encoding="utf-8").splitlines() for p in paths}
    return sorted((name, len(text), sum(1 for line in text if line.strip())) for name, text in texts.items())


def about() -> str:
    rows = modules()
    total, full = sum(r[1] for r in rows), sum(r[2] for r in rows)
    rules = {"both", "split", *(rule for kind in RULES.values() for rule in kind)}
    return "\n".join(
        [
            f"mechverify.kernel: {full} lines with comments and docstrings ({total} with blank ones)",
            f"{len(rows)} modules, standard library and numpy only:",
            *(f"{lines:6}  {name}" for name, _, lines in rows),
            f"reads certificate format version {', '.join(map(str, VERSIONS))}",
            f"rules: {', '.join(sorted(rules))}",
            *(f"axiom {name}: {text}" for name, text in AXIOMS.items()),
        ]
    )

"""What starts at once, because it loads nothing that it doesn't need."""

import subprocess
import sys
from pathlib import Path

import pytest

import mechverify
from mechverify import MechverifyError

ROOT = Path(__file__).parent.parent
CERTIFICATE = ROOT / "tests" / "data" / "version_5.cert"
SLOW = ["torch", "sympy", "z3", "safetensors", "matplotlib", "jinja2"]
WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError(f"{{name}} must not be needed")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {root!r})
{code}
"""
COMMAND = "sys.argv = ['mechverify', *{words!r}]\nfrom mechverify.cli import main\nmain()"


def run(code: str, refused: list[str]) -> subprocess.CompletedProcess:
    source = WITHOUT.format(refused=refused, root=str(ROOT), code=code)
    return subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "refused"),
    [(["--help"], [*SLOW, "numpy"]), (["prove", "--help"], [*SLOW, "numpy"]), (["check", str(CERTIFICATE)], SLOW),
     (["check", "--json", str(CERTIFICATE)], SLOW), (["show", str(CERTIFICATE)], SLOW)],
)  # fmt: skip
def test_commands_that_need_no_search_load_none(words, refused):
    done = run(COMMAND.format(words=words), refused)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_import_loads_nothing():
    assert not run("import mechverify\nassert 'prove' in dir(mechverify)", [*SLOW, "numpy", "rich", "typer"]).returncode


def test_check_in_python_needs_numpy_alone():
    code = f"import mechverify\nprint(mechverify.check({str(CERTIFICATE)!r}), mechverify.OverLimit)"
    done = run(code, [*SLOW, "rich", "typer"])
    assert done.stdout.startswith("<PROVED: every entry at most"), done.stderr


def test_every_name_is_there():
    assert mechverify.uniform is None  # the distribution that needs no parameters
    for name in set(mechverify.__all__) - {"uniform"}:
        assert getattr(mechverify, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'improve'"):
        mechverify.improve  # noqa: B018
    assert (Path(mechverify.__file__).parent / "py.typed").exists()


def test_editors_see_every_name(tmp_path):
    """pyright, which is not run by the suite elsewhere, knows what a lazy name is."""
    used = tmp_path / "used.py"
    used.write_text(
        "import mechverify as m\nreveal_type(m.check('a'))\nreveal_type(m.Accuracy)\nm.prove(1)\n"
        "try: ...\nexcept m.OverLimit as e: reveal_type(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", str(used)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for part in ('"m.check(\'a\')" is "Verdict"', "type[Accuracy]", '"Literal[1]"', '"e" is "OverLimit"'):
        assert part in done.stdout, done.stdout


def test_all_errors_are_of_one_class(tmp_path):
    from mechverify.graph.source import CaptureError
    from mechverify.relax.lirpa import LirpaError

    for kind in (mechverify.ClaimError, CaptureError, LirpaError, mechverify.Rejected, mechverify.NotACertificate):
        assert issubclass(kind, MechverifyError)
    assert issubclass(mechverify.ClaimError, ValueError)
    (tmp_path / "no.cert").write_text("nothing")
    with pytest.raises(MechverifyError) as caught:
        mechverify.check(tmp_path / "no.cert")
    assert caught.value.__notes__ == ["give a whole file that `mechverify prove` wrote (NAME.cert)"]
    with pytest.raises(mechverify.OverLimit, match="--limit"):
        mechverify.check(CERTIFICATE, limit=1)
    with pytest.raises(mechverify.Rejected) as caught:
        mechverify.check(CERTIFICATE, forbid=["ieee754"])
    assert "don't rely on it" in caught.value.__notes__[0]

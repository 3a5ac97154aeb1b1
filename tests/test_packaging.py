"""What a release holds: it builds, installs with plain pip, and its source archive alone checks a certificate."""

import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CERTIFICATES = sorted((ROOT / "tests" / "data").glob("*.cert"))
RELEASE = runpy.run_path(str(ROOT / "release.py"))
NUMPY_ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "mechverify"):
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import mechverify.kernel.__main__ as kernel
assert kernel.__file__.startswith(sys.argv[1]), kernel.__file__
sys.exit(kernel.main(sys.argv[2:]))
"""
INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
import mechverify
assert mechverify.__file__.startswith(sys.argv[1]), mechverify.__file__
print(mechverify.check(sys.argv[2]).verdict)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    wheel, sdist = sorted(RELEASE["write"](folder), key=lambda path: path.suffix != ".whl")
    return folder, wheel, sdist


def python(source: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_package_and_nothing_else(dist):
    with zipfile.ZipFile(dist[1]) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(n for n in names if n.endswith("METADATA"))).decode()
        entries = wheel.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "mechverify" in tops and "mechverify/py.typed" in names
    assert "mechverify/report/page.html" in names
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "mechverify").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert "mechverify = mechverify.cli:main" in entries
    needed = {re.split(r"[<>=]", line)[0] for line in re.findall(r"^Requires-Dist: ([^;\n]*)$", metadata, re.M)}
    assert needed == {"torch", "numpy", "sympy", "z3-solver", "safetensors", "rich", "typer", "matplotlib", "jinja2"}
    assert "lirpa" not in metadata.lower()  # pip would refuse it: docs/faq.md


@pytest.mark.parametrize("which", [1, 2], ids=["wheel", "sdist"])
def test_plain_pip_installs_it(which, dist, tmp_path):
    options = ["--no-build-isolation"] if which == 2 else []  # which would ask the network for setuptools
    pip("install", "--no-deps", *options, "--target", tmp_path, dist[which])
    done = python(INSTALLED, tmp_path, CERTIFICATES[-1])
    assert done.stdout.strip() == "PROVED", done.stderr
    assert (tmp_path / "bin" / "mechverify").exists()


def test_the_source_archive_alone_checks_with_numpy(dist, tmp_path):
    with tarfile.open(dist[2]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for name in ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "docs/soundness.md", "proofs/max_of_k.py"):
        assert (folder / name).exists(), name
    for certificate in CERTIFICATES:
        done = python(NUMPY_ALONE, folder, certificate)
        assert done.returncode == 0 and done.stdout.startswith("ACCEPTED"), done.stderr
        changed = bytearray(certificate.read_bytes())
        changed[-100] ^= 1
        (tmp_path / "changed.cert").write_bytes(changed)
        assert python(NUMPY_ALONE, folder, tmp_path / "changed.cert").returncode in (1, 2)


def test_hashes_are_those_of_the_files(dist):
    folder, *archives = dist
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {path.name: RELEASE["digest"](path.read_bytes()) for path in archives}
    listed = [line.split("  ") for line in (folder / "CONTENTS").read_text().splitlines()]
    check = [row for row in listed if row[2].endswith("mechverify/kernel/check.py")]
    here = RELEASE["digest"]((ROOT / "mechverify" / "kernel" / "check.py").read_bytes())
    assert [row[0] for row in check] == [here, here]


def test_a_second_build_has_the_same_contents(dist, tmp_path):
    RELEASE["write"](tmp_path)
    assert (tmp_path / "CONTENTS").read_text() == (dist[0] / "CONTENTS").read_text()


def test_one_version_everywhere():
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()

"""Build what a release holds, and list its hashes.

    python release.py [FOLDER]      # dist by default

The folder gets the wheel, the source archive, SHA256SUMS (of both, for `sha256sum --check`) and CONTENTS (of every file
in each). The tree is copied first, so that nothing is left in it and nothing but what git would track gets in.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent
TAKEN = ("mechverify", "docs", "proofs", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "MANIFEST.in", "Makefile",
         "README.md", "pyproject.toml", "release.py")  # fmt: skip
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"  # as pip asks it
SINCE = "315532800"  # 1980, the first time that a zip can have: two builds have the same times


def build(folder: Path) -> list[Path]:
    """The wheel and the source archive."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for item in TAKEN:
            if (ROOT / item).is_dir():
                shutil.copytree(ROOT / item, copy / item, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(ROOT / item, copy / item)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": SINCE}
        for hook in ("build_wheel", "build_sdist"):
            command = [sys.executable, "-c", BUILD, hook, str(folder.resolve())]
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{hook} failed; it needs setuptools of 77 or later\n{done.stdout}{done.stderr}")
    return sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])


def contents(archive: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path in the archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: digest(wheel.read(name)) for name in sorted(wheel.namelist())}
    with tarfile.open(archive) as sdist:
        files = {m.name: sdist.extractfile(m) for m in sdist.getmembers() if m.isfile()}
        return {name: digest(file.read()) for name, file in sorted(files.items()) if file is not None}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(folder: Path) -> list[Path]:
    built = build(folder)
    sums = [f"{digest(path.read_bytes())}  {path.name}\n" for path in built]
    (folder / "SHA256SUMS").write_text("".join(sums))
    listed = [f"{value}  {path.name}  {name}\n" for path in built for name, value in contents(path).items()]
    (folder / "CONTENTS").write_text("".join(listed))
    return built


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")):
        print(path)

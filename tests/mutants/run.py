"""Plant every fault of faults.py in a copy of the project, one at a time, and see that a test fails.

    python -m tests.mutants.run [WORD] [--jobs N]     # only faults whose rule or source holds WORD; N at a time

Exit code 0 if every fault is noticed.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parent.parent.parent
COPIED = ("mechverify", "tests", "benchmarks", "toy_models", "proofs", "pyproject.toml")
LONGEST = 900.0  # seconds; a fault that makes the tests hang is not noticed by them
FAILED = 77  # what a process exits with where a test failed; one that breaks down exits with 1
CASES = {"4": "not campaign", "30": ""}  # rounds of random cases, and marks: most faults are noticed in the first few

# The tests of each fault have a process of their own, forked from one that has loaded what doesn't change.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "sympy", "z3", "flint", "hypothesis", "pytest", "typer", "jsonschema"])


def sought(text: str) -> re.Pattern[str]:
    """What finds a piece of source however it is laid out: spaces, line ends and trailing commas within don't count."""
    pieces = re.findall(r"\w+|\s+|.", text, re.DOTALL)
    found = re.escape(pieces[0])
    for before, piece, after in zip(pieces[:-1], pieces[1:], [*pieces[2:], ""], strict=True):
        if not after and piece.isspace():
            found += re.escape(piece)
        elif piece.isspace():
            word = re.match(r"\w", before) and re.match(r"\w", after)
            found += r"\s+" if word else r"\s*"
        else:
            found += r"\s*" + (r"(?:,\s*)?" if piece in ")]}" else "") + re.escape(piece)
    return re.compile(found)


def planted(fault: Fault, source: str) -> str:
    """`source` with the fault in it. Errors: ValueError where it has no place, or more than one."""
    changed, places = sought(fault.old).subn(lambda _: fault.new, source)
    if places != 1:
        raise ValueError(f"{fault.file} holds {places} times: {fault.old}")
    return changed


def noticed(fault: Fault, folder: Path) -> bool:
    """Whether the tests fail once the fault is in `folder`'s copy of the kernel (and is then taken out again), and pass
    without it. Errors: RuntimeError where they don't."""
    for rounds in CASES:
        if _fail_without(folder, fault.tests, rounds):
            raise RuntimeError(f"{fault.tests} fails without a fault, in {rounds} rounds")
        with _planted_in(folder, fault):
            if _failing(folder, fault.tests, rounds):
                return True
    return False


def _fail_without(folder: Path, tests: str, rounds: str) -> bool:
    """Whether they do; seen once."""
    key = folder.name, tests, rounds
    if key not in _without:
        _without[key] = _failing(folder, tests, rounds)
    return _without[key]


_without: dict[tuple[str, str, str], bool] = {}


class Quickest:
    """Of pytest: the quickest tests first, by how long each took when it last ran in this folder."""

    def __init__(self, folder: Path):
        self.path = folder / "durations.json"
        self.known: dict[str, float] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.took = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.took[report.nodeid] = self.took.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps({**self.known, **self.took}))


def _failing(folder: Path, tests: str, rounds: str) -> bool:
    """Whether tests ran, and one failed."""
    running = PROCESSES.Process(target=_run_tests, args=(folder, tests.split(), rounds))
    running.start()
    running.join(LONGEST)
    if running.is_alive():
        running.kill()
        running.join()
    return running.exitcode == FAILED


@contextmanager
def _planted_in(folder: Path, fault: Fault) -> Iterator[None]:
    path = folder / "mechverify" / "kernel" / fault.file
    source = path.read_text(encoding="utf-8")
    path.write_text(planted(fault, source), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(source, encoding="utf-8")


def _run_tests(folder: Path, tests: list[str], rounds: str) -> None:
    """Run pytest on `folder`'s copy in this process."""
    silence = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    for name in [n for n in sys.modules if n.split(".")[0] in COPIED]:  # this file came from the project itself
        del sys.modules[name]
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "MECHVERIFY_ROUNDS": rounds}
    sys.dont_write_bytecode = True
    found = pytest.main(["-x", "-q", "-m", CASES[rounds], "-p", "no:cacheprovider", *tests], plugins=[Quickest(folder)])
    sys.exit(FAILED if found == pytest.ExitCode.TESTS_FAILED else 0)


def copy(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        (
            shutil.copytree(source, folder / name, ignore=ignore)
            if source.is_dir()
            else shutil.copy(source, folder / name)
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    chosen = [f for f in FAULTS if options.word in f.rule or options.word in f.old]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        folders: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            copy(Path(name, str(job)))
            folders.put(Path(name, str(job)))

        def tried(fault: Fault) -> bool:
            folder, start = folders.get(), time.monotonic()
            try:
                found = noticed(fault, folder)
            except RuntimeError as error:
                print(f"NO TEST  {error}", flush=True)
                found = False
            finally:
                folders.put(folder)
            seconds, what = time.monotonic() - start, fault.new or f"(dropped) {fault.old}"
            print(f"{'noticed' if found else 'MISSED '}  {seconds:5.1f} s  {fault.rule}: {what}", flush=True)
            return found

        found = list(pool.map(tried, chosen))
    print(f"{sum(found)} of {len(chosen)} faults in {len({f.rule for f in chosen})} rules are noticed")
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The table of operations: complete, the same names in the core and in the relaxation, and no defaults."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from mechverify.kernel.core import document
from mechverify.kernel.core import operations as core
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.functions import FUNCTIONS
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.integers import OPERATIONS as INTEGERS
from mechverify.kernel.core.operations.concatenation import Concat
from mechverify.kernel.relaxation import operations as relaxation
from mechverify.kernel.relaxation import rule
from tests.soundness.networks import Network, claim, given

ROOT = Path(__file__).parent.parent.parent
INTERNAL = {"select", "slack", "pivot", "secant", "exchanged", "blend", "rounding"}  # no file names them
PARTS = ("shape", "value", "slice")
REAL = ("linear", "ball", "ends", "transposed", "bends", "back")


def plant(monkeypatch, table, name, row):
    """A row that no module has."""
    monkeypatch.setitem(table.modules, name, "")
    monkeypatch.setitem(table.loaded, name, row)


@pytest.mark.parametrize(
    "table", [core.OPERATIONS, relaxation.OPERATIONS, FUNCTIONS], ids=["core", "bounds", "functions"]
)
def test_every_module_of_rows_is_named_and_holds_the_rows_that_it_is_said_to_hold(table):
    package = next(iter(table.modules.values())).rpartition(".")[0]
    beside = {path.stem for path in Path(import_module(package).__file__).parent.glob("*.py")} - {"__init__"}
    assert {module.rpartition(".")[2] for module in table.modules.values()} == beside
    rows = {name: module for module in set(table.modules.values()) for name in import_module(module).ROWS}
    assert rows == table.modules


def test_rows_are_loaded_where_they_are_asked_for():
    script = """
import sys
from mechverify.kernel.core.operations import LISTED, row_of
inside = lambda: {m.rpartition(".")[2] for m in sys.modules if m.startswith("mechverify.kernel.core.operations.")}
assert "softmax" in LISTED and inside() == set(), inside()
row_of("input")
assert inside() == {"inputs"}, inside()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_core_and_the_relaxation_have_the_same_rows():
    assert list(core.OPERATIONS) == list(relaxation.OPERATIONS)
    assert set(core.OPERATIONS) - set(core.LISTED) == INTERNAL == set(core.UNNAMED)
    assert {*FUNCTIONS, *INTEGERS} < set(core.LISTED)
    assert {*core.GROUPS["functions"]} == {"power", *FUNCTIONS}
    assert ("value", "integer", *INTEGERS) == core.INTEGERS


@pytest.mark.parametrize("name", core.OPERATIONS)
def test_a_row_says_everything(name):
    row = core.OPERATIONS[name]
    assert row.meaning and (row.operands is None or row.operands >= 0)
    assert (row.attribute is core.UNWRITTEN) == (name in INTERNAL)
    assert all(getattr(type(row), part) is not getattr(core.Operation, part) for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_row_that_lacks_a_part_cannot_be_made(part):
    parts = {p: lambda *_: None for p in PARTS if p != part}
    with pytest.raises(TypeError, match=part):
        type("Lacking", (core.Operation,), {**parts, "operands": 1, "attribute": core.NOTHING, "meaning": ""})()


@pytest.mark.parametrize("base", [relaxation.Linear, relaxation.Curved])
def test_a_bound_that_lacks_a_part_cannot_be_made(base):
    assert inspect.isabstract(base)
    with pytest.raises(TypeError, match="ends"):
        type("Lacking", (base,), {part: lambda *_: None for part in ("ball", "transposed", "reads")})()
    with pytest.raises(TypeError, match="reads"):
        type("Lacking", (base,), {part: lambda *_: None for part in ("ball", "transposed", "ends")})()


@pytest.mark.parametrize("name", relaxation.OPERATIONS)
def test_what_a_row_does_not_say_is_refused(name):
    """Of a rewritten graph's real operations all is said; of the others nothing that is asked of real ones."""
    row = relaxation.OPERATIONS[name]
    said = {
        part for part in ("linear", "ends", "back") if getattr(type(row), part) is not getattr(relaxation.Row, part)
    }
    real = name not in {"tokens", "softmax", "extremum", "ascending", "select", "value", "integer", *INTEGERS}
    assert said == ({"linear", "ends", "back"} if real else set())


def test_an_operation_without_a_row_is_refused(monkeypatch):
    with pytest.raises(Rejected, match="unknown operation 'unheard_of'"):
        Graph(2, (0, 1)).add("unheard_of", attr=0)
    plant(monkeypatch, core.OPERATIONS, "unheard_of", Concat())
    monkeypatch.setattr(document, "LISTED", [*core.LISTED, "unheard_of"])
    job = Job(claim(Network([given(2), ["unheard_of", [0], 0]], {}, [(np.zeros(2), np.ones(2))], [], 0)), Float64())
    with pytest.raises(Unsupported, match="no bound for 'unheard_of'"):
        rule.ranges(job, [job.claim.domain])


def test_the_number_of_operands_is_checked_for_every_row():
    for name, row in core.OPERATIONS.items():
        graph = Graph(2, (0, 1))
        wrong = 0 if row.operands is None else row.operands + 1
        with pytest.raises(Rejected, match="operands"):
            graph.add(name, *[graph.add("pi")] * wrong, attr=((), (0.0,)))

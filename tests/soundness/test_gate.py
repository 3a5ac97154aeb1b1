"""One gate for work and memory: whatever in the kernel makes arrays, or loops over ranges, asks it first.

A function that does so calls `reserve`, `spend` or `step` before; the others are listed here, each with what bounds it.
"""

import ast
from pathlib import Path

import pytest

KERNEL = Path(__file__).parent.parent.parent / "mechverify" / "kernel"
MAKES = {"zeros", "ones", "eye", "full", "arange", "empty", "tile", "repeat", "tri", "indices", "ndindex", "identity",
         "linspace", "range", "meshgrid", "kron"}  # fmt: skip
GATE = {"reserve", "spend", "step"}

AXES = "as many as a value has axes, or a graph has letters in a contraction"
ASKED = "no larger than values that whoever calls it has asked for"
TABLES = "no larger than the tables that the rule has asked for"
READS = "as large as tables._reads, which calls it, has asked for"
BATCH = "a batch of inputs, whose size is chosen by the memory that they take"
RULE = "asks, in every turn, before what a turn does"

ALLOWED = {
    "about.module": "reads the kernel's own files, after the check",
    "core/architectures/transformer.transformer": "as many as the weights have layers",
    "core/arithmetic.points": AXES,
    "core/arithmetic.Arithmetic.contract": "the result is a node's value, or a form that was asked for",
    "core/places.scatter": "an index of its operand's length; it refuses what is too large itself",
    "core/arithmetic.Arithmetic.whole": AXES,
    "core/arithmetic._parts": "slices of an array that is there",
    "core/arithmetic._spread": AXES,
    "counting/automaton.derive": "STATE_LIMIT and TABLE_LIMIT are its gate, which it asks at every position",
    "counting/automaton._Reader.read": "states times tokens, which derive asks for",
    "counting/automaton.unique_rows": "an index of rows that are there",
    "counting/apart.apart": "as many as there are positions",
    "counting/apart.sequences": RULE,
    "compact/peeled.mean_row": TABLES,
    "check._decide": "arrays of no inputs",
    "core/ranges.RangeClaim.everything": "as many as the output has entries: at most MOST_ENTRIES",
    "core/ranges.RangeClaim.nothing": "as many as the output has entries: at most MOST_ENTRIES",
    "core/ranges.RangeClaim.theorem": "arrays of no inputs",
    "core/domain.Domain.inputs": BATCH,
    "core/domain.listed": RULE,
    "core/accuracy.AccuracyClaim.judge": BATCH,
    "counting/guard.listed": RULE,
    "replay/points._by_parts": "as many as the file lists inputs",
    "replay/points._together": "as many inputs as are evaluated at a time, whose evaluation asks",
    "core/judging.decide": BATCH,
    "core/judging.refine": BATCH,
    "core/buffers.need_causal": "square like a tensor that the file holds",
    "core/elementary._blocks": "entries of a value that is there",
    "compact/enclosed.Enclosed.__init__": "as many as there are tokens",
    "compact/enclosed.Enclosed._table": TABLES,
    "compact/enclosed.Enclosed._place": TABLES,
    "core/evaluate.Evaluation.align": AXES,
    "differences/rule.jointly": "the numbers of nodes that it has added, each of which asked",
    "relaxation/noise.Spread._joined": "as many as noise asks for",
    "relaxation/noise.norm": "DOUBLINGS",
    "relaxation/operations/tokens.Tokens.reads": READS,
    "relaxation/operations/integers.Value.reads": READS,
    "relaxation/operations/__init__.no_tokens": READS,
    "core/operations/softmax.kept": "as many as a softmax has entries: a node's value",
    "core/exact._exactly": AXES,
    "core/float64.check_environment": "three numbers",
    "core/judging.evaluated": BATCH,
    "core/double.Double._product": "one number",
    "core/double._joined": "as large as what it joins",
    "core/prefixes._contracted": "one number, where the product is too large to look at",
    "core/prefixes._read": "as large as a node, or one number",
    "core/prefixes.Shared.__getitem__": BATCH,
    "core/prefixes.positions": "as many as the domain has",
    "core/summands._Copy._elementwise": "ROOM was asked for",
    "core/summands._Copy._strip": AXES,
    "core/summands._Copy._view": "as large as the entries that are asked for",
    "core/prefixes.spread": "as many slices as SPREAD allows",
    "core/products.check_matmul": "small matrices",
    "core/products.contract": "the result is a node's value, or a form that was asked for",
    "core/products.Layout.__init__": AXES,
    "core/products.product": "as many as two rows have slices: at most five",
    "core/products._steps": "as many as there are rows",
    "core/rough.Rough.contract": "the result is a node's value",
    "core/rough.Slices.cut": "two slices of rows that are there",
    "core/rough.Slices.times": "as many as a row has slices",
    "core/euclidean.Euclidean.contract": "the result is a node's value",
    "core/euclidean.longest": "as many as there are inputs",
    "core/euclidean.repeats": "entries of a value that is there",
    "core/rough.one_by_one": "rows of the operands, and as many terms as they have",
    "core/products.sliced": "SLICES times rows that are there",
    "core/integers.absorb": "at most eight columns of what derive or an evaluation has asked for",
    "relaxation/intervals.Intervals.__init__": "as many as there are cells, which relaxation/rule.cells asks for",
    "relaxation/intervals.Intervals.source": ASKED,
    "relaxation/operations/concatenation.Concat._places": ASKED,
    "relaxation/operations/conversion.Pick.ends": ASKED,
    "relaxation/operations/tokens.Tokens.positions": "as many as there are positions",
    "relaxation/operations/views.View.transposed": ASKED,
    "compact/apart.Joint.of": TABLES,
    "compact/leads._inverse": TABLES,
    "compact/apart.leads": "at most BLOCK numbers at a time",
    "compact/leads.Leads._scaled": TABLES,
    "relaxation/backward.Relaxed.range": "at most FORMS coefficients at a time, and asks for them",
    "counting/split._following": "states times counts, which _with asks for",
    "counting/split.by_count": "as many as there are positions",
    "counting/form._in_positions": "the scores of one head, which an evaluation has asked for",
    "counting/form._placed": "what _attend asks for",
    "counting/form._among": "what _concatenated asks for",
    "counting/form._concatenated": ASKED,
    "counting/form.sum_of_ratios": "as many as there are tokens",
    "ratios/linear.Box.__init__": "as many as there are tokens",
    "ratios/linear.Expansion.linear": ASKED,
    "ratios/linear.Box.around": "heads times positions times rivals, for which Expansion asks",
    "mixtures/behind.Affine.affine": ASKED,
    "mixtures/behind.Behind.affine": RULE,
    "mixtures/behind._strides": AXES,
    "mixtures/columns.Columns.least": ASKED,
    "mixtures/columns._over_heads": "as many as there are heads",
    "mixtures/rule.Group.__init__": "as many as there are outputs",
    "mixtures/rule.Group.lead": "rivals of leaves that are there; it asks for the columns' tables",
    "mixtures/rule.Group.least": ASKED,
    "ratios/linear._plus_all": "as many as there are heads",
    "core/forms.Forms._about_zero": "as many as the ball it is about has",
    "core/forms.Forms._columns": ASKED,
    "core/forms.Forms._disturbed": "as many as the operation has given already",
    "core/forms.Forms._masked": "one number",
    "core/forms.Forms._softmax": "one number",
    "core/forms.finely": "as many as there are inputs",
    "nested/layers.entry_of_pattern": "the entries of a pattern, whose node has as many",
    "nested/patterns.Looked.least": "one number",
    "nested/patterns._one": "one number",
    "ratios/ranges._layer": "one number",
    "ratios/ranges._least": "as many as there are ends",
    "ratios/ranges._range": "as many as there are entries",
    "ratios/ranges.check": "as many as there are ends, or tokens",
    "ratios/rule.Cell._cut": "as many as there are positions",
    "ratios/rule.Cell.linear": "as many as there are rivals",
    "ratios/rule.InputClass.__init__": "as many as there are outputs",
    "fold/neurons._read": "what reach asks for",
    "fold/neurons._bounds": "the trials, which reach asks for",
    "fold/neurons._by_query": "what reach holds of each neuron already, in a row for every token",
    "fold/neurons._relu": AXES,
    "counting/nonpositive._windows": "refuses more than WINDOW_LIMIT points itself",
    "relaxation/norms._add_up_to_zero": "refuses more than ROOM numbers itself",
    "relaxation/norms._integral": "no larger than the forms that _add_up_to_zero has asked for",
    "compact/parts._Reader._over": "as many as a value has axes",
    "counting/form._own": "as many as its table has",
    "counting/owners.owners": "as many as its table has, which was asked for",
    "fold/ratio.Analysis.__init__": "as many as there are tokens",
    "fold/ratio.Analysis._attend": AXES,
    "fold/ratio.Analysis.read": "as many as a row of scores has",
    "counting/recursion.completions": "one number",
    "counting/recursion.sizes_by_token": "as many as a layer has states, which derive bounds",
    "counting/smallest.smallest": "states times outputs, which InputClass.cells asks for",
    "counting/by_class.smallest_by_class": RULE,
    "counting/sums.sums": RULE,
    "relaxation/rewriting._slice": "as many as a node has axes",
    "relaxation/order._flat": "as many as a node has axes",
    "relaxation/order.ascending": "as many as the axis of a node has entries",
    "relaxation/order.exchanges": "each is a node, which the graph asks for",
    "relaxation/softmax._differences": ASKED,
    "relaxation/softmax._quotients": "as many as a node has axes",
    "relaxation/lines._pieces": "as many as there are pieces",
    "compact/order.kept_in_order": TABLES,
    "compact/rule.InputClass.shown": TABLES,
    "compact/rule.InputClass.sums": RULE,
    "nested/ranges.highest": "joins as many numbers as it has asked for",
    "nested/sums.windows": "as many as a box has tokens",
    "nested/rule.Cell.decided": "as many as there are outputs",
    "nested/rule.Cell._possible": "as many as there are positions",
    "nested/layers._alone": "as many as there are heads",
    "nested/layers.two_layers": "the shape of a node, of at most HEADS rows",
    "nested/rule.least_mean": "as many as there are rivals",
    "nested/rule.weighed": "as many as there are positions",
    "nested/scores.Scores._mean": "as many as there are heads",
    "nested/scores.Scores._row": "as many as there are heads",
    "nested/scores.Scores.differences": "as many as a box has tokens, for each head",
    "nested/sums.Columns.__init__": "as many as a box has tokens",
    "nested/sums.Window.__init__": "as many as a box has tokens",
    "nested/sums.Window._rest": "an array of one number",
    "nested/sums.Window.all_columns": "no larger than the windows of which differences has asked for all tokens",
    "nested/sums.Window._somewhere": "no larger than the columns of the window, of which __init__ speaks",
    "nested/sums.Window.around": "arrays of one number",
    "nested/sums.Window.most": "no larger than the windows of which differences has asked for all tokens",
    "nested/sums.Window.together": "an array of one number for each token of a box",
    "fold/rule.Terms.minima": ASKED,
    "fold/rule.Cell.list_wrong": RULE,
    "relaxation/rule.check": "as many as the file has leaves",
    "core/attention.softmax": ASKED,
    "statement/ranges._coordinates": "the coordinates of the domain's box, which the file lists",
    "statement/ranges._range": "the first entries",
    "statement/share.state": "the first inputs",
    "statement/common._sequences": "the vocabulary, which the file lists",
    "core/measure.Measure.along": "as large as the points that are given",
    "core/masses.Disjoint._box_of": "marks asks before",
    "core/masses._shares": "as many as the file lists boxes: disjoint asks before",
    "core/measure.Measure.bow": "as large as the corners that are given",
    "core/measure.Measure.mass": "as many as there are boxes, and coordinates",
    "relaxation/cases.Sloped._back": "as many as a form that is there has rows",
    "relaxation/cases.Sloped.below": "as many as a form that is there has rows, and the box coordinates",
    "relaxation/cases.Sloped.kinks": "as many as there are cells",
    "relaxation/cases._bounds": "of ATOMS, which are their gate; and of a node, which was asked for",
    "differences/rule.Differences._exchanged": "as many ones as a row of a softmax has entries",
    "relaxation/cones.Round.marks": "as many as the box has coordinates",
    "relaxation/cones.Round.mass": "as many as there are boxes, and the corners of SOLID coordinates",
    "relaxation/cones.Round._slope": "as many as the box has coordinates",
    "relaxation/cones.faces": "as many as the box has coordinates",
    "relaxation/shares._Level.open": "as many as there are atoms",
    "relaxation/shares._judge": "as many as there are cubes in a block, and forms at the nodes that they meet",
    "relaxation/shares._levels": "as many as there are cubes in a block, and nodes that they meet",
    "relaxation/shares._told": "as many as the shares that it is given",
    "relaxation/shares._together": "as many as there are pairs of a cube and a node in a level",
    "relaxation/shares._after": "as many as there are pairs of a cube and a node in the next level",
    "relaxation/halfspaces.least_in": "as many as the box has coordinates",
    "relaxation/conditions._extremum": "no more than ATOMS",
    "relaxation/shares._Grid.cubes": "as many as the grid, which was asked for, has cells",
    "relaxation/shares._Grid.take": "as many as the box has coordinates",
    "relaxation/halfspaces._corner_sum": "the corners of a cube of MAIN coordinates",
    "relaxation/shares._counts": "as many as there are parts, or cubes in a block",
    "relaxation/shares._halves": "as many as there are cubes in a block",
    "relaxation/shares.check": "as many as the file has leaves",
    "relaxation/shares.counts": "as many as the file has leaves",
    "relaxation/halfspaces.of_cube": "MAIN coordinates",
    "relaxation/tables._evaluated": "rows times a node's size, no more than LAST as the node has a table, and evaluated",
    "relaxation/tables._ends": "as many as the node has, which were asked for",
    "relaxation/tables._rows": "asked for where no more than ROOM numbers come out",
    "relaxation/tables._prime": "up to the next prime, and a square root",
    "core/words.listed": "blocks of a list that is there",
}


def name_of(call: ast.Call) -> str:
    """Of np.zeros, ar.xp.zeros, range and the like; "" for methods of values."""
    f = call.func
    if isinstance(f, ast.Name):
        return f.id
    if isinstance(f, ast.Attribute):
        owner = f.value.attr if isinstance(f.value, ast.Attribute) else getattr(f.value, "id", "")
        return f.attr if f.attr in GATE or owner in ("np", "xp", "math", "itertools") else ""
    return ""


def constant(node: ast.expr) -> bool:
    """A size that no file decides: numbers, and as many of them as an array has axes."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Tuple | ast.List):
        return all(map(constant, node.elts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):  # (1,) * a.ndim
        return isinstance(node.left, ast.Tuple) and constant(node.left)
    if isinstance(node, ast.Attribute):
        return node.attr == "ndim"
    return False


def functions(tree: ast.Module, prefix: str = "") -> list[tuple[str, ast.AST]]:
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            found += functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            found.append((prefix + node.name, node))
    return found


def unguarded(source: str) -> list[str]:
    """Functions, with what they make before they ask."""
    found = []
    for name, function in functions(ast.parse(source)):
        calls = [n for n in ast.walk(function) if isinstance(n, ast.Call)]
        asks = min((c.lineno for c in calls if name_of(c) in GATE), default=10**9)
        made = [c for c in calls if name_of(c) in MAKES and not all(map(constant, c.args[:2])) and c.lineno < asks]
        if made:
            found.append(name)
    return found


def everything() -> dict[str, Path]:
    return {f"{p.relative_to(KERNEL).with_suffix('').as_posix()}.{name}": p
            for p in sorted(KERNEL.rglob("*.py")) for name in unguarded(p.read_text())}  # fmt: skip


def test_nothing_is_made_before_the_gate_is_asked():
    assert sorted(set(everything()) - set(ALLOWED)) == []


def test_no_exception_is_left_over():
    assert sorted(set(ALLOWED) - set(everything())) == []


@pytest.mark.parametrize("source", [
    "def f(n):\n    return np.eye(n)", "def f(n):\n    a = np.zeros(n)\n    reserve(n)", "def f(n):\n    for i in range(n): pass",
    "class A:\n    def f(self, n):\n        return self.ar.xp.full((n, n), 1.0)",
])  # fmt: skip
def test_what_is_not_asked_for_is_found(source):
    assert unguarded(source)


@pytest.mark.parametrize("source", [
    "def f(n):\n    reserve(n)\n    return np.eye(n)", "def f(ar, n):\n    ar.spend(n)\n    for i in range(n): pass",
    "def f(a):\n    return np.zeros((1,) * a.ndim)", "def f():\n    return np.ones(3)",
])  # fmt: skip
def test_what_is_asked_for_is_not(source):
    assert not unguarded(source)

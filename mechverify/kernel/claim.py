"""What is to be decided: a model, a domain, and a mechanism or thresholds for one of the model's values.

Lemmas C5, C8, C9 (docs/soundness/core.md); L14 (docs/soundness/relaxation.md).
"""

import copy
import hashlib
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel import container
from mechverify.kernel.architectures import ARCHITECTURES
from mechverify.kernel.arithmetic import Arithmetic
from mechverify.kernel.errors import Rejected
from mechverify.kernel.evaluate import Evaluation, batch_size
from mechverify.kernel.exact import Exact
from mechverify.kernel.fields import Reader
from mechverify.kernel.float64 import float_above, float_below
from mechverify.kernel.functions import FUNCTIONS
from mechverify.kernel.graph import Graph
from mechverify.kernel.integers import LONGEST, OPERATIONS
from mechverify.kernel.meter import Meter
from mechverify.kernel.relaxation import Rewritten, rewritten
from mechverify.kernel.semantics import SEMANTICS, Real
from mechverify.kernel.tables import Tables

MOST_ENTRIES = 2**16  # of an output
SLOWER = 16  # units of work of an exact evaluation, for each of a float64 one
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")  # that a module may have been given in


class Bounds(NamedTuple):
    """The number of right inputs in a part of the domain lies between these exact integers."""

    low: int
    high: int


class Range(NamedTuple):
    """Every entry of a value lies between these numbers [entries], everywhere in a part of the domain."""

    low: np.ndarray
    high: np.ndarray


class Domain(NamedTuple):
    """A product of token sets, `tokens[i]` the distinct ids, ascending, allowed at position i; and of a box, all real
    inputs flattened one after another: its corners `low` and `high` [coordinates]. Of these, the inputs for which the
    `facts` hold: (node, entry, at, above) says that an entry of a rewritten node is at least `at`, or at most."""

    tokens: tuple[tuple[int, ...], ...]
    low: np.ndarray = np.zeros(0)
    high: np.ndarray = np.zeros(0)
    facts: tuple[tuple[int, int, float, bool], ...] = ()

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def size(self) -> int:
        """The number of token sequences."""
        return prod(map(len, self.tokens))

    def split(self, position: int, first: set[int]) -> tuple["Domain", "Domain"]:
        """The inputs whose token at `position` is in `first`, and the others: together, exactly this domain."""
        halves = [tuple(t for t in self.tokens[position] if (t in first) == inside) for inside in (True, False)]
        return tuple(
            self._replace(tokens=(*self.tokens[:position], half, *self.tokens[position + 1 :])) for half in halves
        )

    def cut(self, coordinate: int, at: float) -> tuple["Domain", "Domain"]:
        """The inputs with that coordinate up to `at`, and from there on."""
        low, high = self.low.copy(), self.high.copy()
        low[coordinate] = high[coordinate] = at
        return self._replace(high=high), self._replace(low=low)

    def sides(self, node: int, entry: int, at: float) -> tuple["Domain", "Domain"]:
        """The inputs for which that entry is at most `at`, and at least."""
        return tuple(self._replace(facts=(*self.facts, (node, entry, at, above))) for above in (False, True))

    def inputs(self, start: int, stop: int) -> np.ndarray:
        """Sequences number `start` to `stop` - 1 in lexicographic order, ids [stop - start, length]."""
        index, columns = np.arange(start, stop), []
        for here in reversed(self.tokens):
            index, digit = np.divmod(index, len(here))
            columns.append(np.array(here)[digit])
        return np.stack(columns[::-1], -1)

    def contains(self, inputs: np.ndarray) -> bool:
        return all(np.isin(inputs[:, i], here).all() for i, here in enumerate(self.tokens))


class ProvedLemma(NamedTuple):
    """Sites, by name, whose difference has these bounds [entries] on that part of the domain; None where no input of
    the part satisfies the claim's conditions."""

    site: str
    mechanism: str
    range: Range | None
    part: Domain


class Claim:
    """What a certificate states about the weights in `weights_data` (a safetensors file); rejects what isn't a claim.

    `accuracy`: row `position` of a site (None: the site itself) decodes to the mechanism's value. An input is right if
    output `target` (an integer node) of the vector node `output` exceeds every other by more than `margin` (zero if the
    claim has none). A tie, and a target that is no output, is wrong.
    `bounds`: every entry of a site (or of a row) lies between `least` and `most` [entries], for all inputs for which no
    entry of the sites `where` is negative. `cases` are sites whose entries a proof may tell apart.
    """

    def __init__(self, entry: Reader, weights_data: bytes, meter: Meter | None = None):
        self.stated = entry.value
        self.kind = entry["kind"].one_of(["accuracy", "bounds"])
        counted = self.kind == "accuracy"  # what rule fold reads off a graph holds for the kernel's own architectures
        self.semantics = entry["semantics"].one_of(SEMANTICS if counted else ["real"])
        self.architecture = entry["architecture"].one_of(ARCHITECTURES if counted else ["captured"])
        self.weights_sha256 = entry["weights_sha256"].text()
        if self.weights_sha256 != hashlib.sha256(weights_data).hexdigest():
            raise Rejected("the weights in the file are not those that the claim names (SHA-256 differs)")
        try:
            self.weights = container.read_weights(weights_data)
        except ValueError as error:
            raise Rejected(f"weights: {error}") from None
        self.domain, values, shapes = _domain(entry["domain"], real=not counted)
        self.graph = Graph(self.domain.length, values, meter)
        self.target = add_expression(self.graph, entry["equals"]) if self.kind == "accuracy" else None
        self.captured = self.architecture == "captured"
        if self.captured:
            sites = captured(self.graph, self.weights, entry["graph"], shapes)
        else:
            sites = ARCHITECTURES[self.architecture](self.graph, self.weights)
        self.shapes, self.sites = shapes, sites
        self.site, position = entry["site"].one_of(sites), entry["position"]
        self.output = sites[self.site]
        self.position = None if position.value is None else position.an_integer(0, 2**20)
        if self.position is not None:
            self.output = self.graph.select(self.output, 0, self.position)
        node = self.graph.nodes[self.output]
        if node.kind != "real" or (self.kind == "accuracy" and len(node.shape) != 1):
            raise Rejected(f"row {self.position} of site {self.site!r} is not a vector of outputs")
        self.outputs = _entries(self.graph, self.output)
        self.at_least = _fraction(entry["at_least"]) if counted else None
        self.margin = entry["margin"].number() if counted and "margin" in entry.value else Fraction(0)
        if not 0 <= self.margin < 2**1000:
            raise Rejected("a margin is negative, or too large")
        self.where: tuple[int, ...] = ()
        self.cases: tuple[int, ...] = ()
        if self.captured:
            self.where, self.cases = (_conditions(self.graph, entry[name], sites) for name in ("where", "cases"))
        self.loaded = len(self.graph.nodes)  # what the document lists, before rules add nodes of their own
        if self.kind == "bounds":
            self.least, self.most = (_thresholds(entry[name], self.outputs) for name in ("at_least", "at_most"))
        entry.close()

    @property
    def names(self) -> list[str]:
        """Those that the file chose, of sites and tensors."""
        return [*self.sites, *self.weights]

    @property
    def axioms(self) -> list[str]:
        return ["ieee754", *(["capture"] if self.captured else []), *SEMANTICS[self.semantics].axioms]


class Job:
    """A claim, the arithmetic to decide it in, and what the rules leave behind for the report."""

    def __init__(self, claim: Claim, arithmetic: Arithmetic):
        self.claim, self.ar = claim, arithmetic
        self.model = SEMANTICS[claim.semantics](arithmetic)
        self.model.accept(claim.weights)
        self.cells: list[tuple] = []  # (query token, class, size, wrong) of every fold cell
        self.wrong: list[np.ndarray] = []  # inputs that were replayed
        self.points: list[np.ndarray] = []  # and real inputs [number, coordinates], with the enclosed value there
        self.attained: list[Range] = []
        self.broken: list[np.ndarray] = []  # of these, booleans [number]: a threshold is surely broken there
        self.axioms: set[str] = set()  # that rules needed, beside the claim's
        self.lemmas: list[ProvedLemma] = []  # of rule cut

    def about(self, graph: Graph, output: int, domain: Domain, shapes: list[tuple[int, ...]]) -> "Job":
        """About another value of the same model, which leaves nothing behind for the report."""
        claim = copy.copy(self.claim)
        claim.graph, claim.output, claim.domain, claim.shapes = graph, output, domain, shapes
        claim.outputs, claim.loaded, claim.least, claim.most = _entries(graph, output), len(graph.nodes), None, None
        job = Job(claim, self.ar)
        job.axioms = self.axioms
        return job

    def decide(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two boolean arrays [inputs]: surely right, surely wrong (in every evaluation that the semantics speaks
        of). Neither where rounding leaves it open."""
        step = batch_size(self.claim.graph, [self.claim.output, self.claim.target])
        parts = [self._decide(inputs[i : i + step], self.model) for i in range(0, len(inputs), step)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def surely_wrong(self, inputs: np.ndarray) -> np.ndarray:
        """As `decide` says; one by one in exact arithmetic where float64 leaves it open. Booleans [inputs]."""
        try:
            wrong = self.decide(inputs)[1]
        except Rejected:  # an overflow, of any of them
            wrong = np.zeros(len(inputs), bool)
        if type(self.ar) is not Exact:
            for i in np.flatnonzero(~wrong):
                one = inputs[i : i + 1]
                wrong[i] = self.exactly(lambda model, one=one: self._decide(one, model)[1][0])
        return wrong

    def exactly(self, evaluate: Callable[[Real], Any]) -> Any:
        """What is evaluated with the model in exact arithmetic; its work counts as this job's."""
        outer = self.ar.watch
        inner = None if outer is None else lambda work, allowed: outer(self.ar.work + SLOWER * work, self.ar.limit)
        ar = Exact((self.ar.limit - self.ar.work) / SLOWER, inner)
        try:
            return evaluate(SEMANTICS[self.claim.semantics](ar))
        finally:
            self.ar.ops, self.ar.work = self.ar.ops + ar.ops, self.ar.work + SLOWER * ar.work

    def _decide(self, inputs: np.ndarray, model: Real) -> tuple[np.ndarray, np.ndarray]:
        claim, ar = self.claim, model.ar
        values = Evaluation(claim.graph, claim.weights, model, inputs)
        logits, target = values[claim.output], np.broadcast_to(values[claim.target], len(inputs))
        logits = logits.map(lambda a: np.broadcast_to(a, (len(inputs), claim.outputs)))
        possible = (target >= 0) & (target < claim.outputs)
        at = np.where(possible, target, 0)[:, None]
        margin = ar.sub(logits.map(lambda a: np.take_along_axis(a, at, 1)), logits)
        margin = ar.sub(margin, ar.rational(claim.margin)) if claim.margin else margin
        rival = np.arange(claim.outputs) != at
        wins = ((ar.lower(margin) > 0) | ~rival).all(1)
        loses = ((ar.upper(margin) <= 0) & rival).any(1)
        return possible & wins, ~possible | loses

    @cached_property
    def roots(self) -> Rewritten:
        """Of rules interval and linear."""
        roots = rewritten(self.claim.graph, self.claim.output, (*self.claim.where, *self.claim.cases))
        if not roots.values.issuperset(roots.conditions):
            raise Rejected("a condition doesn't depend on the input")
        return roots

    @cached_property
    def tables(self) -> Tables | None:
        """Of the nodes that rules interval and linear bound; none without tokens."""
        graph, roots = self.claim.graph, self.roots
        if not graph.length:
            return None
        wanted = [n for n, m in roots.of.items() if m in roots.values]
        return Tables(graph, self.claim.weights, self.model, wanted, roots.narrowed[: len(self.claim.where)])

    def enclose(self, tokens: np.ndarray, points: np.ndarray) -> tuple[Range, np.ndarray]:
        """Bounds [inputs, entries] of the output at single inputs, and at which of them [inputs] an entry surely breaks
        its threshold: in float64, and in exact arithmetic where that rejects an input or leaves this open. Rejects an
        input that isn't shown to satisfy the claim's conditions."""
        try:
            (low, high), broken, decided = self._enclosed(tokens, points, self.model)
        except Rejected:
            if len(tokens) > 1:
                each = [self.enclose(tokens[i : i + 1], points[i : i + 1]) for i in range(len(tokens))]
                ranges, broken = zip(*each, strict=True)
                return Range(*map(np.concatenate, zip(*ranges, strict=True))), np.concatenate(broken)
            low, high = np.zeros((2, 1, self.claim.outputs))
            broken = decided = np.zeros(1, bool)
        for i in np.flatnonzero(~decided):
            one = tokens[i : i + 1], points[i : i + 1]
            ends, *told = self.exactly(lambda model, one=one: self._enclosed(*one, model))
            low[i], high[i] = (list(map(f, end[0])) for f, end in zip((float_below, float_above), ends, strict=True))
            broken[i] = told[0][0]
        return Range(low, high), broken

    def _enclosed(self, tokens: np.ndarray, points: np.ndarray, model: Real) -> tuple[Range, np.ndarray, np.ndarray]:
        """The output's bounds, floats or Fractions [inputs, entries]; where one entry surely breaks its threshold; and
        where that is decided, one way or the other."""
        claim, ar = self.claim, model.ar
        inputs, start = [], 0
        for shape in claim.shapes:
            inputs.append(points[:, start : start + prod(shape)].reshape(-1, *shape))
            start += prod(shape)
        values = Evaluation(claim.graph, claim.weights, model, tokens, inputs=inputs)
        if not all((ar.lower(values[n]) >= 0).all() for n in claim.where):
            raise Rejected("a point is not shown to satisfy the claim's conditions")
        value = values[claim.output]
        value = value.map(lambda a: np.broadcast_to(a, (len(tokens), *a.shape[1:])).reshape(len(tokens), -1))
        low, high = ar.lower(value), ar.upper(value)
        if type(ar) is Exact:
            ar.spend(claim.outputs, 1, 100)
            unit = Fraction(2) ** value.exponent
            low, high = low * unit, high * unit
            least, most = self._exact_thresholds
        else:
            least, most = self._float_thresholds
        broken = ((high < least) | (low > most)).astype(bool).any(1)
        return Range(low, high), broken, broken | ((low >= least) & (high <= most)).astype(bool).all(1)

    @cached_property
    def _exact_thresholds(self) -> tuple[np.ndarray, np.ndarray]:
        """[entries]; infinite where there are none."""
        claim = self.claim
        self.ar.spend(claim.outputs, 1, 100)
        least, most = claim.least or [-np.inf] * claim.outputs, claim.most or [np.inf] * claim.outputs
        return np.array(least, object), np.array(most, object)

    @cached_property
    def _float_thresholds(self) -> tuple[np.ndarray, np.ndarray]:
        """A float64 is below a threshold if and only if it is below the next float64."""
        self.ar.spend(self.claim.outputs, 1, 1_000)
        least, most = self._exact_thresholds
        return np.array(list(map(float_above, least))), np.array(list(map(float_below, most)))


def _entries(graph: Graph, output: int) -> int:
    count = prod(graph.nodes[output].shape)
    if count > MOST_ENTRIES:
        raise Rejected(f"the output has {count} entries (limit {MOST_ENTRIES})")
    return count


def _conditions(graph: Graph, entry: Reader, sites: dict[str, int]) -> tuple[int, ...]:
    """Real nodes, by the names of their sites."""
    nodes = tuple(sites[name.one_of(sites)] for name in entry.items(2**8))
    if any(graph.nodes[n].kind != "real" for n in nodes):
        raise Rejected(f"{entry.where}: a condition is no real value")
    return nodes


def add_expression(graph: Graph, entry: Reader) -> int:
    """Add a mechanism, written as a list of nodes that refer back to earlier ones, and return its root.

    Each node is [op, [operands], attribute]; operands are indices into the same list.
    """
    ids: list[int] = []
    for row in entry.items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(["value", "integer", *OPERATIONS])
        args = operands.integers(2**12)
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        ids.append(graph.add(name, *(ids[a] for a in args), attr=ATTRIBUTES[name](attribute)))
    return ids[-1]


def captured(graph: Graph, weights: dict[str, np.ndarray], entry: Reader, shapes: list) -> dict[str, int]:
    """Add a captured model's nodes, rows [op, [operands], attribute], and return its sites, names of nodes."""
    ids: list[int] = []
    for row in entry["nodes"].items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(ATTRIBUTES)
        args, attr = operands.integers(2**12), ATTRIBUTES[name](attribute)
        if len(args) != OPERANDS.get(name, 1) and not (args and name in ("concat", *OPERATIONS)):
            raise Rejected(f"{row.where}: {name!r} on {len(args)} operands")
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        if name == "weight" and (attr[0] not in weights or not _fits(attr[1], weights[attr[0]].shape)):
            raise Rejected(f"the graph reads a tensor {attr[0]!r} of shape {attr[1]}, which the weights don't hold")
        if name == "input" and (attr[0] >= len(shapes) or attr[1] != shapes[attr[0]]):
            raise Rejected(f"the graph reads input {attr[0]} of shape {attr[1]}; the domain's inputs are {shapes}")
        ids.append(graph.add(name, *(ids[a] for a in args), attr=attr))
    sites = {}
    for row in entry["sites"].items(2**16, 1):
        name, node = row.items(2, 2)
        if name.text() in sites:
            raise Rejected(f"{name.where}: two sites of one name")
        sites[name.text()] = ids[node.an_integer(0, len(ids) - 1)]
    replayed = entry["replayed"]
    replayed["inputs"].an_integer(0), replayed["difference"].number(), replayed["module"].text()
    replayed.close()
    if "compared" in entry.value:  # not in files of earlier versions
        compared = entry["compared"]
        compared["dtype"].one_of(FLOATS), compared["inputs"].an_integer(0)
        compared["difference"].number(), compared["tolerance"].number()
        compared.close()
    entry.close()
    return sites


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(shape) == len(whole) and all(0 < a <= b for a, b in zip(shape, whole, strict=True))


def _sizes(entry: Reader) -> tuple[int, ...]:
    return tuple(v.an_integer(1, 2**24) for v in entry.items(16))


def _pair(first: Callable[[Reader], Any], second: Callable[[Reader], Any]) -> Callable[[Reader], tuple]:
    def read(entry: Reader) -> tuple:
        a, b = entry.items(2, 2)
        return first(a), second(b)

    return read


def _view(entry: Reader) -> tuple:
    shape, offset, strides = entry.items(3, 3)
    return _sizes(shape), offset.an_integer(0), tuple(strides.integers(16))


def _constant(entry: Reader) -> tuple:
    shape, values = entry.items(2, 2)
    numbers = tuple(v.float64() for v in values.items(2**16))
    if len(numbers) != prod(_sizes(shape)):
        raise Rejected(f"{entry.where}: the entries don't fill the shape")
    return _sizes(shape), numbers


def _einsum(entry: Reader) -> str:
    if not re.fullmatch(r"[a-z]{0,16},[a-z]{0,16}->[a-z]{0,16}", entry.text()):
        raise Rejected(f"{entry.where}: expected a contraction of two operands")
    return entry.text()


def _mask(entry: Reader) -> Any:
    if type(entry.value) is int:
        return entry.an_integer(1)
    return entry.one_of(["causal"]) if type(entry.value) is str else tuple(r.text() for r in entry.items(2**12, 1))


def _nothing(entry: Reader) -> None:
    if entry.value is not None:
        raise Rejected(f"{entry.where}: this operation has no attribute")


def _integer(entry: Reader) -> int | None:
    return None if entry.value is None else entry.an_integer()


def _table(entry: Reader) -> tuple[int, ...]:
    return tuple(entry.integers(LONGEST))


# The operations of a captured graph, and how their attribute is read.
ATTRIBUTES: dict[str, Callable[[Reader], Any]] = {
    "tokens": _nothing,
    "input": _pair(lambda e: e.an_integer(0, 2**10), _sizes),
    "weight": _pair(Reader.text, _sizes),
    "constant": _constant,
    "view": _view,
    "concat": lambda e: e.an_integer(0, 15),
    "einsum": _einsum,
    "softmax": _mask,
    "power": lambda e: e.an_integer(2, 16),
    "over_root": lambda e: e.an_integer(1, 2**30),
    **dict.fromkeys(["gather", "add", "sub", "mul", "pi", "number", "pick", *FUNCTIONS], _nothing),
    **{name: _table if name in OPERATIONS and OPERATIONS[name].table else _integer
       for name in ("value", "integer", *OPERATIONS)},
}  # fmt: skip


OPERANDS = {**dict.fromkeys(["tokens", "input", "weight", "constant", "pi", "value", "integer"], 0),
            **dict.fromkeys(["gather", "add", "sub", "mul", "einsum", "pick"], 2)}  # fmt: skip


def _domain(entry: Reader, real: bool) -> tuple[Domain, tuple[int, ...], list[tuple[int, ...]]]:
    """Token sets by position (ids, ascending), the integer that each id of the vocabulary means, and the shapes of
    the inputs, if they may be real."""
    inputs = entry["inputs"].items(2**8) if real else []
    values = tuple(entry["values"].integers(2**20))
    tokens = tuple(tuple(row.integers()) for row in entry["tokens"].items(2**10, 0 if inputs else 1))
    entry.close()
    for here in tokens:
        if not here or here[0] < 0 or here[-1] >= len(values) or not all(a < b for a, b in pairwise(here)):
            raise Rejected("a token set of the domain is empty, not ascending, or not within the vocabulary")
    shapes, corners = [], [[], []]
    for row in inputs:
        shape, *ends = row.items(3, 3)
        shapes.append(_sizes(shape))
        for corner, end in zip(corners, ends, strict=True):
            numbers = [v.float64() for v in end.items(2**20)]
            if len(numbers) != prod(shapes[-1]):
                raise Rejected(f"{end.where}: the entries don't fill the shape")
            corner += numbers
    low, high = np.array(corners, np.float64).reshape(2, -1)
    if not (low <= high).all():
        raise Rejected("a box of the domain is empty")
    domain = Domain(tokens, low, high)
    if domain.size >= 2**13_000:
        raise Rejected("the domain has more than 2^13000 inputs")
    return domain, values, shapes


def _thresholds(entry: Reader, n: int) -> list[Fraction] | None:
    """One number for all entries, or one for each."""
    if entry.value is None:
        return None
    if type(entry.value) is str:
        return [entry.number()] * n
    return [v.number() for v in entry.items(n, n)]


def _fraction(entry: Reader) -> Fraction | None:
    if entry.value is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,400})/([1-9][0-9]{0,399})", entry.text())
    if parts is None or int(parts[1]) > int(parts[2]):
        raise Rejected(f"{entry.where}: expected null or a fraction 'p/q' of at most one")
    return Fraction(int(parts[1]), int(parts[2]))

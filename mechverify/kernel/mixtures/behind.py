"""What a model does behind attention, as a function of the mixture alone, bounded by lines over boxes of mixtures.

For one query token the graph is cut where attention mixes: there stand real inputs instead,

    z = B^T t + c + r,

t in a box along the rows of B, c a centre, r the little that B leaves out. Rule relaxation's lines then bound every
form of the output from below by one of t, side by side for many boxes.

Lemmas X3, X4 (docs/soundness/mixtures.md).
"""

from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.owners import is_query
from mechverify.kernel.mixtures.columns import Mixture, mixture
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Cells
from mechverify.kernel.relaxation.lines import hull
from mechverify.kernel.relaxation.operations import Forms
from mechverify.kernel.relaxation.rewriting import rewritten
from mechverify.kernel.relaxation.rule import ROOM

TURNED, CENTRE, REST = range(3)  # the real inputs


class Boxes(NamedTuple):
    """Of mixtures, side by side: t between the raw arrays `low` and `high` [boxes, J], the centres c [boxes, d],
    float64 numbers, and each entry of r at most `rest` [boxes, d] in size, raw."""

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    rest: np.ndarray


class Behind:
    """The graph behind the mixture for one query token, with the directions B, float64 numbers [J, d]."""

    def __init__(self, job: Job, query: int, directions: np.ndarray):
        mixed = job.once(mixture)
        self.job, self.directions = job, directions
        self.graph = Graph(0, job.claim.graph.values, job.ar)
        self.output = _behind(mixed, self.graph, query, directions)
        self.roots = rewritten(self.graph, self.output)
        nodes = [self.graph.nodes[n] for n in self.graph.varying([self.roots.output])]
        widest = max(prod(node.shape) for node in nodes)
        self.step = max(1, ROOM // (2 * widest**2))  # boxes at a time

    def affine(
        self,
        boxes: Boxes,
        right: np.ndarray,
        rivals: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slopes [boxes, rivals, J] and constants [boxes, rivals], raw, such that output[right] - output[rival] >=
        slope.t + constant for every mixture of a box; a constant may be -inf. `right` [boxes], `rivals` [boxes,
        rivals]. Complexity: that of rule relaxation."""
        slopes, constants = [], []
        for start in range(0, len(right), self.step):
            some = slice(start, start + self.step)
            part = Boxes(*(a[some] for a in boxes))
            found = self._affine(part, right[some], rivals[some])
            slopes.append(found[0])
            constants.append(found[1])
        return np.concatenate(slopes), np.concatenate(constants)

    def _affine(
        self,
        boxes: Boxes,
        right: np.ndarray,
        rivals: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        ar, outputs = self.job.ar, prod(self.graph.nodes[self.roots.output].shape)
        reserve(*rivals.shape, max(outputs, len(self.directions)))
        inputs = (
            hull(ar, ar.exact(boxes.low), ar.exact(boxes.high)),
            ar.exact(boxes.centre),
            hull(ar, ar.exact(-boxes.rest), ar.exact(boxes.rest)),
        )
        allowed = np.zeros((len(right), 0, len(self.graph.values)), bool)
        lines = Affine(
            ar, self.graph, self.job.claim.weights, self.roots, Cells(inputs, allowed)
        )
        each = np.arange(outputs)
        lead = (right[:, None, None] == each) - (rivals[..., None] == each).astype(
            float
        )
        return lines.affine(lead)


class Affine(Relaxed):
    """Forms of the output are left as forms of t."""

    left: Ball | None = None
    leaving = False

    def affine(
        self,
        coefficients: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of forms [boxes, rows, outputs]: slopes [boxes, rows, J] and constants [boxes, rows]."""
        if np.any(self.empty):
            raise Rejected("bounds of a box that is not empty contradict each other")
        shape = self.graph.nodes[self.root].shape
        form = self.ar.exact(coefficients.reshape(*coefficients.shape[:2], *shape))
        self.leaving = True
        constants = self.form(self.root, form)
        self.leaving = False
        width = self.cells.inputs[TURNED].mid.shape[1]
        slopes = np.zeros((*coefficients.shape[:2], width))
        if self.left is not None:
            slopes = slopes + self.left.mid
        return slopes, constants

    def _back(
        self,
        start: int,
        n: int,
        k: Ball,
    ) -> tuple[Forms, Ball | None]:
        node = self.graph.nodes[n]
        if not (self.leaving and node.op == "input" and node.attr[0] == TURNED):
            return super()._back(start, n, k)
        if np.any(k.rad):
            raise Rejected("a coefficient of a mixture overflows")
        self.left = k
        return [], None


def rest(
    ar: Arithmetic,
    directions: np.ndarray,
    centre: np.ndarray,
    at: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
) -> np.ndarray:
    """What the entries of z - c - B^T t don't exceed in size, raw [cells, d], for t = B z - s, centres c [cells, d] and
    s `at` [cells, J]: it is (I - B^T B)(z - c) - B^T (B c - s), and z lies between `least` and `most` [d]."""
    reserve(max(directions.shape), directions.shape[1])
    b, c = ar.exact(directions), ar.exact(centre)
    eye = ar.exact(np.eye(directions.shape[1]))
    beside = ar.sub(eye, ar.contract("jd,je->de", b, b)).size
    ends = [ar.sub(points(end), c) for end in (least, most)]
    far = [ar.upper(end.size) for end in ends]
    missed = ar.sub(ar.contract("cd,jd->cj", c, b), ar.exact(at)).size
    first = ar.contract("cd,de->ce", points(np.maximum(*far)), beside)
    return ar.upper(ar.add(first, ar.contract("cj,jd->cd", missed, b.size)))


def _behind(
    mixed: Mixture,
    graph: Graph,
    query: int,
    directions: np.ndarray,
) -> int:
    """Adds to a graph the output as a function of TURNED, CENTRE and REST."""
    old, new = mixed.graph, _mixtures(mixed, graph, directions)
    for n in old.ancestors([mixed.output]):
        node = old.nodes[n]
        if n in new:
            continue
        if node.op == "gather" and is_query(old, old.nodes[node.args[1]]):
            if old.nodes[node.args[1]].attr[1] == mixed.pin and node.args[0] in new:
                new[n] = _row(graph, new[node.args[0]], node, query)
        elif node.op in ("weight", "constant", "pi") or (
            node.args and all(a in new for a in node.args)
        ):
            new[n] = graph.add(node.op, *(new[a] for a in node.args), attr=node.attr)
    if mixed.output not in new:
        raise Unsupported("what follows attention reads other tokens than the query's")
    return new[mixed.output]


def _mixtures(
    mixed: Mixture,
    graph: Graph,
    directions: np.ndarray,
) -> dict[int, int]:
    """A node for each that attention makes, of the entries of z."""
    wide, width = directions.shape
    turned, centred, left = (
        graph.add("input", attr=(i, (size,)))
        for i, size in ((TURNED, wide), (CENTRE, width), (REST, width))
    )
    numbers = tuple(directions.ravel().tolist())
    back = graph.add("constant", attr=((wide, width), numbers))
    z = graph.add("einsum", turned, back, attr="j,jd->d")
    z = graph.add("add", graph.add("add", z, centred), left)
    new, start = {}, 0
    for n in mixed.nodes:
        shape = mixed.graph.nodes[n].shape
        new[n] = graph.add("view", z, attr=(shape, start, _strides(shape)))
        start += prod(shape)
    return new


def _row(
    graph: Graph,
    table: int,
    node: Node,
    query: int,
) -> int:
    """The row of a table at the query's token."""
    size = prod(node.shape)
    return graph.add(
        "view", table, attr=(node.shape, query * size, _strides(node.shape))
    )


def _strides(
    shape: tuple[int, ...],
) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))

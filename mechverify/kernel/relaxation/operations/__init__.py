"""What the relaxation knows of each operation: an interval of its value, what a form of it becomes, and which tokens
each entry depends on.

The rows have the names and the modules of core/operations. A row of a real operation is `Linear`, whose interval is
computed on balls and whose forms are transposed, or `Curved`, whose interval comes from the operands' ends. Rows of
ids say which tokens they stand for, rows of integers a span. What a row doesn't say is refused; what it reads, each
row must say.

Lemmas L7, L10, L11, L13 (docs/soundness/relaxation.md).
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.loading import Rows
from mechverify.kernel.core.operations import GROUPS, Node, Span
from mechverify.kernel.relaxation.lines import Ends

if TYPE_CHECKING:
    from mechverify.kernel.core.graph import Graph
    from mechverify.kernel.relaxation.backward import Relaxed
    from mechverify.kernel.relaxation.intervals import Intervals

ONE_HOT = -1  # stands for the tokens themselves, one-hot, [length x vocabulary], where a form names a node
Forms = list[tuple[int, Ball]]  # of nodes; those of one node are added


class Row(ABC):
    """Of one operation; `known` has what was found of earlier nodes. Here everything but `reads` is refused."""

    fixed = (
        False  # whether the value is the same on all inputs, without operands that are
    )
    # whether what `back` leaves out lies between two lines (`bent`) or in a ball, so that forms bound from both sides
    two_sided = False

    def linear(self, known: "Intervals", n: int) -> bool:
        """Whether node n's interval is computed on balls."""
        raise self._refused(known, n)

    def bends(self, known: "Intervals", n: int) -> bool:
        """Whether lines are needed to carry a form through node n."""
        raise self._refused(known, n)

    def ball(self, known: "Intervals", n: int) -> Ball:
        """Of a linear node, from its operands' balls."""
        raise self._refused(known, n)

    def ends(self, known: "Intervals", n: int, found: Ends) -> Ends:
        """From the operands' ends, of which some may be infinite; `found` is what a linear node's ball says."""
        raise self._refused(known, n)

    def transposed(self, known: "Intervals", n: int, k: Ball) -> Forms:
        """Of a linear node: the forms of its operands whose sum is the form `k`."""
        raise self._refused(known, n)

    def back(
        self, known: "Relaxed", start: int, n: int, k: Ball
    ) -> tuple[Forms, Ball | None]:
        """Forms and a number whose sum is not above the form `k` of node n, one of the forms of node `start`."""
        raise self._refused(known, n)

    def positions(self, known: "Intervals", n: int) -> np.ndarray:
        """Of ids: at which position each stands."""
        raise self._refused(known, n)

    def spans(self, known: "Intervals", n: int) -> list[Span]:
        """Of an integer, cell by cell."""
        raise self._refused(known, n)

    @abstractmethod
    def reads(
        self, graph: "Graph", node: Node, args: list[np.ndarray]
    ) -> np.ndarray | None:
        """Which positions' tokens each entry may depend on, booleans [*shape, length], from the operands'; None: it
        isn't known."""

    def _refused(self, known: "Intervals", n: int) -> Unsupported:
        return Unsupported(
            f"rule relaxation has no bound for {known.graph.nodes[n].op!r}"
        )


def no_tokens(graph: "Graph", node: Node) -> np.ndarray:
    return np.zeros((*node.shape, graph.length), bool)


class Elementwise(Row, ABC):
    """An entry depends on the operands' entries at its own place, or at the one that they broadcast, alone."""

    def reads(self, graph, node, args):
        found = no_tokens(graph, node)
        for x in args:
            found = found | x.reshape(*(1,) * (found.ndim - x.ndim), *x.shape)
        return found


class Linear(Row, ABC):
    """Forms go through by transposing."""

    two_sided = True

    def linear(self, known, n):
        return True

    def bends(self, known, n):
        return False

    @abstractmethod
    def ball(self, known, n) -> Ball: ...

    @abstractmethod
    def ends(self, known, n, found) -> Ends: ...

    @abstractmethod
    def transposed(self, known, n, k) -> Forms: ...

    def back(self, known, start, n, k) -> tuple[Forms, Ball | None]:
        return self.transposed(known, n, k), None


class Curved(Row, ABC):
    two_sided = True

    def linear(self, known, n):
        return False

    @abstractmethod
    def ends(self, known, n, found) -> Ends: ...


class Fixed(Linear):
    """The same on all inputs."""

    fixed = True

    def ends(self, known, n, found):
        return found

    def transposed(self, known, n, k):
        raise self._refused(known, n)  # a form ends before, at the value

    def back(self, known, start, n, k):
        return [], known.dot(k, known.balls[n])

    def reads(self, graph, node, args) -> np.ndarray | None:
        return no_tokens(graph, node)


class Exact(Fixed):
    """Numbers, whose ends they are."""

    def ends(self, known, n, found):
        number = self.ball(known, n).mid
        return number, number


class Ending(Curved):
    """A form ends here, at the interval."""

    def bends(self, known, n):
        return False

    def back(self, known, start, n, k):
        return [], known.dot(k, known.balls[n])


def balls(known: "Intervals", n: int) -> list[Ball]:
    return [known.balls[a] for a in known.graph.nodes[n].args]


def operand_ends(known: "Intervals", n: int) -> list[Ends]:
    return [known.ends[a] for a in known.graph.nodes[n].args]


OPERATIONS: Rows[Row] = Rows("relaxation.operations", GROUPS)


def row_of(name: str) -> Row:
    if name not in OPERATIONS.modules:
        raise Unsupported(f"rule relaxation has no bound for {name!r}")
    return OPERATIONS[name]

"""How a certificate names the values of a rewritten graph: by the document's nodes.

`17` is the value of node 17, `17[2,:]` its slice at index 2 of the first axis, as far as the graph is narrowed to that
slice; `17.total` and `17[2,:].total` are values within the rewriting of these, by their role there (the table in
docs/certificate.md); `output` is the claim's output. So what becomes of one node moves no other's names.

Lemma L14 (docs/soundness/relaxation.md).
"""

import re
from collections.abc import Iterator
from math import prod

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.relaxation.rewriting import Rewriting

NUMBER = r"(?:0|[1-9][0-9]{0,6})"
NAME = re.compile(
    rf"({NUMBER})(?:\[((?:{NUMBER}|:)(?:,(?:{NUMBER}|:))*)\])?(?:\.([a-z]+))?", re.ASCII
)
OUTPUT = "output"

Index = tuple[
    int | None, ...
]  # for each axis where a slice is taken, or None: all of it


class Names:
    """Of a job's rewritten graph."""

    def __init__(self, job: Job):
        self.ar, rewriting = job.ar, job.once(Rewriting)
        self.graph, self.roots = rewriting.graph, rewriting.roots

    def node(self, entry: Reader) -> int:
        """The rewritten node of that name."""
        if (text := entry.text()) == OUTPUT:
            return self.roots.output
        match = NAME.fullmatch(text)
        number = int(match[1]) if match else len(self.graph.listed)
        if match and number < len(self.graph.listed):
            shape = self.graph.nodes[self.graph.listed[number]].shape
            listed = match[2].split(",") if match[2] else [":"] * len(shape)
            index = tuple(None if i == ":" else int(i) for i in listed)
            for n, rest in (
                self._slices(number, index) if len(index) == len(shape) else ()
            ):
                found = (
                    self.roots.steps.get((within(self.graph, n), match[3]))
                    if match[3]
                    else self.roots.of.get(n)
                )
                if found is not None and set(rest) <= {None}:
                    return found
        raise Rejected(f"{entry.where}: nothing is relaxed that is called {text!r:.60}")

    def places(self, number: int, entry: int) -> list[tuple[int, int]]:
        """The rewritten nodes that hold an entry of the document's node of that number, and which of theirs it is: of
        those that the input alone decides."""
        if not 0 <= number < len(self.graph.listed):
            return []
        shape = self.graph.nodes[self.graph.listed[number]].shape
        if not 0 <= entry < prod(shape):
            return []
        held = {
            (self.roots.of[n], ravelled(rest, self.graph.nodes[n].shape)): None
            for n, rest in self._slices(number, unravelled(entry, shape))
            if n in self.roots.of and self.roots.of[n] in self.roots.values
        }
        return list(held)

    def _slices(self, number: int, index: Index) -> Iterator[tuple[int, Index]]:
        """Nodes whose values are the document's node's, or its slice at some of the indices; and the other ones."""
        graph, standing = self.graph, self.roots.standing
        todo, seen = [(graph.listed[number], index)], set()
        while todo:
            state = n, rest = todo.pop()
            self.ar.step(1 + len(rest), 1)
            if state in seen:
                continue
            seen.add(state)
            yield state
            for axis in reversed(
                range(len(rest))
            ):  # of several slices, that of the first axis comes first
                at = rest[axis]
                if (
                    at is not None
                    and (part := graph.parts.get((n, axis, at))) is not None
                ):
                    todo.append((part, rest[:axis] + rest[axis + 1 :]))
            if n in standing:
                todo.append((standing[n], rest))


def within(graph: Graph, n: int) -> int:
    """Where the names of what stands within a node's rewriting begin: at the operation that a disturbance is of."""
    node = graph.nodes[n]
    return node.args[0] if node.op == "rounding" else n


def unravelled(entry: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where the entry of that number stands, in row-major order."""
    index = []
    for size in reversed(shape):
        entry, i = divmod(entry, size)
        index.append(i)
    return tuple(reversed(index))


def ravelled(index: Index, shape: tuple[int, ...]) -> int:
    entry = 0
    for i, size in zip(index, shape, strict=True):
        assert i is not None
        entry = entry * size + i
    return entry

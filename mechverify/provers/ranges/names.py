"""What a certificate calls the values of the rewritten graph: the inverse of what the kernel reads."""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.relaxation.names import (
    OUTPUT,
    Index,
    Names,
    ravelled,
    unravelled,
    within,
)
from mechverify.kernel.relaxation.rewriting import Rewriting


class Entry(NamedTuple):
    """The document's node and its entry; and the entries of rewritten nodes where that value stands."""

    node: int
    entry: int
    places: tuple[tuple[int, int], ...]

    def halves(self, part: Domain, at: float) -> tuple[tuple[Domain, Domain], dict]:
        """The inputs for which it is at most `at`, and at least; and how a certificate tells the split."""
        return part.sides(self.places, at), {
            "node": self.node,
            "entry": self.entry,
            "at": at.hex(),
        }


class Called:
    """Names of a job's rewritten nodes: `of[node]`, where there is one."""

    def __init__(self, job: Job):
        rewriting = job.once(Rewriting)
        self.graph, self.roots, self.names = (
            rewriting.graph,
            rewriting.roots,
            job.once(Names),
        )
        self.of: dict[int, str] = {}
        self.held: dict[
            int, tuple[int, Index]
        ] = {}  # the document's node whose value a node has, or whose slice
        self._parts = {
            n: list(parts)
            for n, parts in groupby(
                sorted(self.graph.parts.items()), key=lambda part: part[0][0]
            )
        }
        self._roles: dict[int, list[tuple[str, int]]] = {}
        for (n, role), new in self.roots.steps.items():
            self._roles.setdefault(n, []).append((f".{role}", new))
        for number, n in enumerate(self.graph.listed):
            self._call(number, n)
        self.of.setdefault(self.roots.output, OUTPUT)
        self.of = {
            n: text
            for n, text in self.of.items()
            if self.names.node(Reader(text, text)) == n
        }

    def entry(self, n: int, entry: int) -> Entry | None:
        """What the document calls an entry of a rewritten node; None if it is none of the model's."""
        if n not in self.held:
            return None
        number, index = self.held[n]
        free = iter(unravelled(entry, self.graph.nodes[n].shape))
        shape = self.graph.nodes[self.graph.listed[number]].shape
        place = (
            number,
            ravelled(tuple(next(free) if i is None else i for i in index), shape),
        )
        places = self.names.places(*place)
        return Entry(*place, tuple(places)) if (n, entry) in places else None

    def _call(self, number: int, root: int) -> None:
        """By the document's node, and its slices."""
        for n, index in self._slices(root):
            text = f"{number}[{','.join(':' if i is None else str(i) for i in index)}]" if any(
                i is not None for i in index
            ) else str(number)  # fmt: skip
            if n in self.roots.of:
                self.of.setdefault(self.roots.of[n], text)
                self.held.setdefault(self.roots.of[n], (number, index))
            for role, new in self._roles.get(within(self.graph, n), []):
                self.of.setdefault(new, text + role)

    def _slices(self, root: int) -> Iterator[tuple[int, Index]]:
        todo: list[tuple[int, Index]] = [
            (root, (None,) * len(self.graph.nodes[root].shape))
        ]
        seen = set()
        while todo:
            state = n, index = todo.pop(0)
            if state in seen:
                continue
            seen.add(state)
            yield state
            if n in self.roots.standing:
                todo.append((self.roots.standing[n], index))
            free = [axis for axis, i in enumerate(index) if i is None]
            for (_, axis, at), part in self._parts.get(n, []):
                axis = free[axis]
                todo.append((part, (*index[:axis], at, *index[axis + 1 :])))

"""Writing torch's values into an expression graph: constants, moved entries, contractions, softmax.

A `Value` depends on the inputs; a tensor is a constant, and becomes a node when something needs one. Values have the
shape that torch gives them, a leading batch axis of one included; what is computed drops leading axes of
one and views them back, and views of views are one view, so that the graph itself has next to no batch axes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from mechverify.kernel.core.graph import Graph, Node

SMALL = 16  # entries of a constant that stands in the graph itself
PIECES = 4096  # views that one rearrangement may take
View = tuple[tuple[int, ...], int, tuple[int, ...]]


class NotLowered(Exception):
    """An operation can't be written in the graph's operations; the message says what to do instead."""


class Value(NamedTuple):
    """A node that has torch's shape; and, where they apply: which entries are not minus infinity (booleans of that
    shape), or what each token id has become (`table` [vocab], integers or booleans)."""

    node: int
    keep: Tensor | None = None
    table: Tensor | None = None


Operand = Value | Tensor | float


class Builder:
    """Adds nodes for operations on operands: values, constant tensors or numbers."""

    def __init__(self, graph: Graph, state: dict[str, Tensor]):
        """`state`: float64 tensors by state-dict name; what shares their memory becomes a view of that weight."""
        self.graph = graph
        self.weights: dict[str, np.ndarray] = {}
        self.softmaxes: list[tuple[Value, Value]] = []  # (scores, pattern), in order
        self.axis_of: dict[
            int, tuple[Value, int]
        ] = {}  # of a pattern's node: scores without a mask, and the axis
        self.norms: list[
            int
        ] = []  # nodes that are normalised vectors, before weight and bias
        self.attentions: list[
            tuple[list[int], list[int], list[int]]
        ] = []  # of fused ones: scores, patterns, averages
        self.truths: set[int] = set()  # nodes whose entries are 1 and 0 alone
        self._stored = {}
        self.taken = {*state}  # names that the module gives
        for name, tensor in state.items():
            if (
                tensor.numel()
                and tensor.untyped_storage().nbytes() == tensor.numel() * 8
            ):
                self._stored.setdefault(
                    tensor.untyped_storage().data_ptr(), (name, tensor.contiguous())
                )
        self._constants: dict[tuple, int] = {}

    # --- nodes

    def shape(self, x: Operand) -> tuple[int, ...]:
        if isinstance(x, Value):
            return self.graph.nodes[x.node].shape
        return tuple(x.shape) if isinstance(x, Tensor) else ()

    def is_state(self, x: Operand) -> bool:
        """Whether x is a weight's own memory."""
        return isinstance(x, Tensor) and x.untyped_storage().data_ptr() in self._stored

    def node(self, x: Operand) -> int:
        """A real node of the operand's shape."""
        if not isinstance(x, Value):
            return self._constant(torch.as_tensor(x, dtype=torch.float64))
        if x.keep is not None:
            raise NotLowered(
                "minus infinity may only be added or filled in right before a softmax"
            )
        if self.graph.nodes[x.node].kind == "ids":
            raise NotLowered(
                "token ids can only be embedded: use nn.Embedding or one_hot"
            )
        return x.node

    def _constant(self, x: Tensor) -> int:
        if not x.numel():
            raise NotLowered("a tensor without entries")
        known = self._stored.get(x.untyped_storage().data_ptr())
        if not bool(torch.isfinite(x).all()):
            raise NotLowered(
                f"{known[0] if known else 'a constant'} holds infinity or not-a-number"
            )
        if known:
            name, base = known
            strides = tuple(
                step * (size > 1)
                for size, step in zip(x.shape, x.stride(), strict=True)
            )
            return self.view(
                self._weight(name, base),
                (tuple(x.shape), int(x.storage_offset()), strides),
            )
        if x.numel() > 1 and bool((x == x.flatten()[0]).all()):
            return self.view(
                self._constant(x.flatten()[0].clone()),
                (tuple(x.shape), 0, (0,) * x.ndim),
            )
        array = x.contiguous().numpy()
        key = array.shape, array.tobytes()
        if key not in self._constants:
            if x.numel() <= SMALL:
                entries = tuple(float(v) for v in array.ravel())
                self._constants[key] = self.graph.add(
                    "constant", attr=(array.shape, entries)
                )
            else:
                self._constants[key] = self._new_weight(x)
        return self._constants[key]

    def _weight(self, name: str, x: Tensor) -> int:
        self.weights[name] = x.detach().numpy()
        return self.graph.add("weight", attr=(name, tuple(x.shape)))

    def _new_weight(self, x: Tensor) -> int:
        taken = self.taken | {*self.weights}
        name = next(
            name for k in itertools.count() if (name := f"constant.{k}") not in taken
        )
        return self._weight(name, x.clone(memory_format=torch.contiguous_format))

    def table(self, x: Tensor) -> int:
        """A weight node, as `gather` needs one, of a constant."""
        x = x.to(torch.float64)
        node = self._constant(x)
        if self.graph.nodes[node].op == "weight":
            return node
        key = "table", tuple(x.shape), x.contiguous().numpy().tobytes()
        if key not in self._constants:
            self._constants[key] = self._new_weight(x)
        return self._constants[key]

    # --- moving entries

    def view(self, node: int, attr: View) -> int:
        """The view of a node; the node itself where nothing moves."""
        shape, offset, strides = attr
        if shape == self.graph.nodes[node].shape and attr == _affine(_indices(shape)):
            return node
        return self.graph.add("view", node, attr=(shape, offset, strides))

    def unviewed(self, node: int) -> int:
        while self.graph.nodes[node].op == "view":
            (node,) = self.graph.nodes[node].args
        return node

    def joined(self, node: int) -> list[int]:
        """The nodes whose entries a node shows, or a concatenation, or a product with a constant."""
        node = self.unviewed(node)
        op, args, *_ = self.graph.nodes[node]
        if op in ("constant", "weight"):
            return []
        return (
            [m for a in args for m in self.joined(a)]
            if op in ("concat", "mul")
            else [node]
        )

    def reshape(self, node: int, shape: Sequence[int]) -> int:
        return (
            node
            if tuple(shape) == self.graph.nodes[node].shape
            else self.move([node], _indices(shape))
        )

    def move(self, nodes: list[int], index: np.ndarray) -> int:
        """The entries `index` (any shape) of the nodes, flattened and put one after the other: one view where
        possible, else a concatenation of views. Views of views become one where possible."""
        ends = np.cumsum([math.prod(self.graph.nodes[n].shape) for n in nodes])
        left = PIECES

        def one_view(part: np.ndarray) -> tuple[int, View] | None:
            source = int(np.searchsorted(ends, part.flat[0], side="right"))
            start = int(ends[source - 1]) if source else 0
            if part.min() < start or part.max() >= ends[source]:
                return None
            n = self.graph.nodes[nodes[source]]
            if n.op == "view" and (
                attr := _affine(_view_indices(n.attr).reshape(-1)[part - start])
            ):
                return n.args[0], attr
            attr = _affine(part - start)
            return attr and (nodes[source], attr)

        def build(part: np.ndarray) -> int:
            nonlocal left
            if whole := one_view(part):
                return self.view(*whole)
            axes = [axis for axis, size in enumerate(part.shape) if size > 1]
            axis, cuts = min(
                ((axis, _cuts(part, axis, one_view)) for axis in axes),
                key=lambda pair: len(pair[1]),
            )
            left -= len(cuts)
            if left < 0:
                raise NotLowered(
                    f"takes more than {PIECES} slices: use a regular slice, stride or reshape"
                )
            parts = [build(np.take(part, range(a, b), axis)) for a, b in cuts]
            return self.graph.add("concat", *parts, attr=axis)

        if self.graph.nodes[nodes[0]].kind == "ids" and not one_view(index):
            raise NotLowered(
                "this order of token positions isn't a slice: embed first, then reorder"
            )
        return build(index)

    @overload
    def moved(self, x: Value, how: Callable[[Tensor], Tensor]) -> Value: ...
    @overload
    def moved(self, x: Operand, how: Callable[[Tensor], Tensor]) -> Operand: ...
    def moved(self, x: Operand, how: Callable[[Tensor], Tensor]) -> Operand:
        """What `how`, which moves entries alone, makes of x."""
        if not isinstance(x, Value):
            return how(torch.as_tensor(x, dtype=torch.float64))
        index = how(
            torch.arange(math.prod(self.shape(x)), dtype=torch.float64).reshape(
                self.shape(x)
            )
        ).long()
        if index.numel() == 0:
            return index.double()
        keep = None if x.keep is None else x.keep.reshape(-1)[index]
        keep = None if keep is None or bool(keep.all()) else keep
        node = self.move([x.node], index.numpy())
        if x.node in self.truths:
            self.truths.add(node)
        return Value(node, keep, x.table)

    def shaped(self, x: Operand, shape: Sequence[int]) -> Operand:
        return self.moved(x, lambda a: a.reshape(tuple(shape)))

    def concat(self, xs: Sequence[Operand], axis: int) -> Value:
        return Value(self.graph.add("concat", *map(self.node, xs), attr=axis))

    # --- computing

    def elementwise(self, op: str, *xs: Operand, attr: int | None = None) -> Value:
        """A function of one operand, or an operation on two that broadcast."""
        shape = torch.broadcast_shapes(*map(self.shape, xs))
        if (
            len(xs) == 2
        ):  # the number itself, where all entries of a constant are one number; one operand has the shape
            first, second = xs
            first = self._number(first, self.shape(second), shape)
            xs = first, self._number(second, self.shape(first), shape)
        nodes = [self.stripped(self.node(x)) for x in xs]
        return Value(self.reshape(self.graph.add(op, *nodes, attr=attr), shape))

    def along_last(
        self, op: str, x: Operand, shape: tuple[int, ...], attr: str | None = None
    ) -> Value:
        """An operation on the entries of the last axis, and the shape of what comes out."""
        node = self.graph.add(op, self.stripped(self.node(x), 1), attr=attr)
        return Value(self.reshape(node, shape))

    def _number(self, x: Operand, other: tuple[int, ...], shape: torch.Size) -> Operand:
        if not isinstance(x, Tensor) or other != shape or self.is_state(x):
            return x
        return float(x.flatten()[0]) if bool((x == x.flatten()[0]).all()) else x

    def stripped(self, node: int, rank: int = 0) -> int:
        """Without leading axes of one, where more than `rank` axes are."""
        shape = self.graph.nodes[node].shape
        while len(shape) > rank and shape[0] == 1:
            shape = shape[1:]
        return self.reshape(node, shape)

    def einsum(self, spec: str, x: Operand, y: Operand) -> Value:
        """Of two operands, as torch.einsum without ellipsis: axes of one broadcast, a letter of one operand may be
        summed; letters within a term are distinct."""
        spec = _lower_case(spec)
        terms, result = spec.split("->")[0].split(","), spec.split("->")[1]
        nodes = [self.node(x), self.node(y)]
        sizes: dict[str, int] = {}
        for term, node in zip(terms, nodes, strict=True):
            for letter, size in zip(term, self.graph.nodes[node].shape, strict=True):
                sizes[letter] = max(sizes.get(letter, 1), size)
        for k, node in enumerate(nodes):  # axes of one go
            shape = self.graph.nodes[node].shape
            terms[k] = "".join(
                c for c, size in zip(terms[k], shape, strict=True) if size > 1
            )
            nodes[k] = self.reshape(node, [size for size in shape if size > 1])
        for k in (0, 1):  # a letter that one operand alone sums over
            alone = "".join(
                c for c in terms[k] if c not in result and c not in terms[1 - k]
            )
            if alone:
                ones = self.node(
                    torch.ones([sizes[c] for c in alone], dtype=torch.float64)
                )
                rest = "".join(c for c in terms[k] if c not in alone)
                nodes[k] = self.graph.add(
                    "einsum", nodes[k], ones, attr=f"{terms[k]},{alone}->{rest}"
                )
                terms[k] = rest
        out = "".join(c for c in result if sizes[c] > 1)
        if self.graph.nodes[nodes[1]][:3] == ("constant", (), ((), (1.0,))):
            order = [terms[0].index(c) for c in out]
            node = self.moved(Value(nodes[0]), lambda a: a.permute(order)).node
        elif out in terms and "" in terms:
            node = self.graph.add("mul", *nodes)
        else:
            node = self.graph.add(
                "einsum", *nodes, attr=f"{terms[0]},{terms[1]}->{out}"
            )
        return Value(self.reshape(node, [sizes[c] for c in result]))

    def softmax(self, x: Operand, dim: int) -> Value:
        """Over axis `dim`; entries that are minus infinity are masked."""
        if not isinstance(x, Value):
            x = Value(self.node(x))
        last = self.moved(x, lambda a: a.movedim(dim, -1))
        result = self.moved(self._softmax(last), lambda a: a.movedim(-1, dim))
        self.softmaxes.append((x, result))
        if x.keep is None:
            self.axis_of[result.node] = x, dim
        return result

    def _softmax(self, x: Value) -> Value:
        """Over the last axis: one node, or one for each part of the first axis whose masks differ."""
        shape, keep = self.shape(x), x.keep
        if keep is not None and keep.ndim > 2:
            if shape[0] == 1:
                return self.moved(
                    self._softmax(self.moved(x, lambda a: a[0])), lambda a: a[None]
                )
            if bool((keep != keep[:1]).any()):
                parts = [
                    self._softmax(self.moved(x, lambda a, k=k: a[k]))
                    for k in range(shape[0])
                ]
                return self.concat([self.moved(p, lambda a: a[None]) for p in parts], 0)
            if bool(
                (
                    keep[0].reshape(-1, *shape[-2:])
                    != keep[0].reshape(-1, *shape[-2:])[0]
                ).any()
            ):
                inner = self._softmax(self.moved(x, lambda a: a.movedim(0, -3)))
                return self.moved(inner, lambda a: a.movedim(-3, 0))
        node = self.stripped(x.node, 1 if keep is None else 2)
        attr = _mask(keep, self.graph.nodes[node])
        if type(attr) is not str and (isinstance(attr, int) or len(attr) == 1):
            node = self.stripped(node, 1)
        return Value(self.reshape(self.graph.add("softmax", node, attr=attr), shape))


def _mask(keep: Tensor | None, scores: Node) -> int | str | tuple[str, ...]:
    """The attribute of a softmax node on `scores` [..., j, i]."""
    n = scores.shape[-1]
    if keep is None or bool(keep.all()):
        return n
    if not bool(keep.any(-1).all()):
        raise NotLowered(
            "a softmax masks all entries of a row, which gives not-a-number: keep one"
        )
    rows = keep.reshape(-1, scores.shape[-2] if len(scores.shape) > 1 else 1, n)[
        0
    ]  # the same in all blocks
    if bool((rows == rows[0]).all()):
        rows = rows[:1]
        count = int(rows.sum())
        if bool(rows[0, :count].all()):
            return count
    elif torch.equal(rows, torch.ones_like(rows).tril()):
        return "causal"
    return tuple("".join("01"[int(entry)] for entry in row) for row in rows)


def _lower_case(spec: str) -> str:
    """A contraction in the letters that the kernel reads: a to z."""
    others = dict.fromkeys(c for c in spec if c in ascii_uppercase)
    free = (c for c in ascii_lowercase if c not in spec)
    try:
        return spec.translate({ord(c): next(free) for c in others})
    except StopIteration:
        raise NotLowered("an einsum of more than 26 letters") from None


def _indices(shape: Sequence[int]) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(tuple(shape))


def _view_indices(attr: View) -> np.ndarray:
    shape, offset, strides = attr
    index = np.array(offset)
    for k, (size, step) in enumerate(zip(shape, strides, strict=True)):
        index = index + (np.arange(size) * step).reshape(
            (-1,) + (1,) * (len(shape) - k - 1)
        )
    return np.broadcast_to(index, shape)


def _affine(index: np.ndarray) -> View | None:
    """The view whose entries are `index`, if one is."""
    if index.size == 0:
        raise NotLowered("a tensor is empty")
    first = int(index.flat[0])
    strides = []
    for axis, size in enumerate(index.shape):
        corner = tuple(int(k == axis) for k in range(index.ndim))
        strides.append(int(index[corner]) - first if size > 1 else 0)
    attr = index.shape, first, tuple(strides)
    return attr if np.array_equal(_view_indices(attr), index) else None


def _cuts(
    index: np.ndarray, axis: int, one_view: Callable[[np.ndarray], Any]
) -> list[tuple[int, int]]:
    """Runs (start, end) along an axis, each one view as far as that is possible."""
    size, cuts, start = index.shape[axis], [], 0
    while start < size:
        end = start + 1
        if one_view(np.take(index, [start], axis)):
            while end < size and one_view(np.take(index, range(start, end + 1), axis)):
                end += 1
        cuts.append((start, end))
        start = end
    return cuts

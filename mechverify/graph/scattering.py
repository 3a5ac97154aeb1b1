"""ATen operations that write some entries of a value: scatter, index_put, select_scatter, slice_scatter."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.arithmetic import add, broadcast, where
from mechverify.graph.build import Builder, NotLowered, Operand, Value
from mechverify.graph.reductions import linear

aten = torch.ops.aten


def is_float(a: Any) -> bool:
    return isinstance(a, Tensor) and a.is_floating_point()


def placed(scatter: Callable) -> Callable:
    """A row that writes entries of a second operand into the first, from torch's own function."""

    def row(b: Builder, x: Operand, *args: Any) -> Operand:
        n = math.prod(b.shape(x))
        index = torch.arange(n, dtype=torch.float64).reshape(b.shape(x))
        place = next(
            k for k, a in enumerate(args) if isinstance(a, Value) or is_float(a)
        )
        source = args[place]
        numbers = torch.arange(
            n, n + math.prod(b.shape(source)), dtype=torch.float64
        ).reshape(b.shape(source))
        result = scatter(
            index, *[numbers if k == place else a for k, a in enumerate(args)]
        )
        return Value(b.move([b.node(x), b.node(source)], result.long().numpy()))

    return row


def index_put(
    b: Builder, x: Operand, indices: Any, values: Operand, accumulate: bool = False
) -> Operand:
    if accumulate:
        numbers = torch.arange(math.prod(b.shape(x))).reshape(b.shape(x))
        return accumulated(b, x, aten.index(numbers, indices), values)
    values = (
        values
        if isinstance(values, Value)
        else torch.as_tensor(values, dtype=torch.float64)
    )
    return placed(lambda i, j: aten.index_put(i, indices, j))(b, x, values)


def accumulated(b: Builder, x: Operand, places: Tensor, values: Operand) -> Operand:
    """x, and at each of its entries the sum of the values (which broadcast) whose place that is."""
    n, m = math.prod(b.shape(x)), places.numel()
    if n * m > 2**22:
        raise NotLowered(f"adds {m} values to {n} entries: multiply by a matrix")
    matrix = torch.zeros(n, m, dtype=torch.float64)
    matrix[places.flatten(), torch.arange(m)] = 1.0
    flat = b.shaped(broadcast(b, values, torch.zeros(places.shape)), (m,))
    return add(b, x, b.shaped(linear(b, flat, matrix), b.shape(x)))


def scatter_add(
    b: Builder, x: Operand, dim: int, index: Tensor, source: Operand
) -> Operand:
    numbers = torch.arange(math.prod(b.shape(x))).reshape(b.shape(x))
    within = tuple(slice(size) for size in index.shape)
    inner = numbers[
        tuple(
            slice(size) if d != dim % numbers.ndim else slice(None)
            for d, size in enumerate(index.shape)
        )
    ]
    return accumulated(
        b, x, inner.gather(dim, index), b.moved(source, lambda a: a[within])
    )


def scatter_value(
    b: Builder, x: Operand, dim: int, index: Tensor, value: float
) -> Operand:
    return where(b, torch.zeros(b.shape(x)).scatter(dim, index, 1.0) > 0, value, x)


ROWS = {
    "index_put": index_put,
    "select_scatter": placed(aten.select_scatter),
    "slice_scatter": placed(aten.slice_scatter),
    "scatter.src": placed(aten.scatter.src),
    "scatter.value": scatter_value,
    "scatter_add": scatter_add,
}

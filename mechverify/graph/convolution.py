"""ATen operations on windows: convolution, pooling; and interpolation."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.arithmetic import add, div
from mechverify.graph.build import Builder, NotLowered, Operand, Value
from mechverify.graph.normalisation import channels
from mechverify.graph.reductions import largest, linear, pad

Optional = Operand | None


def each(value: int | Sequence[int], n: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def conv(b: Builder, x: Operand, weight: Operand, bias: Optional = None, stride=1, padding: Any = 0,
         dilation=1, groups: int = 1) -> Operand:  # fmt: skip
    """x [batch, in, *sizes], weight [out, in / groups, *kernel]: windows as a view, then one contraction."""
    kernel = b.shape(weight)[2:]
    n = len(kernel)
    if len(b.shape(x)) == n + 1:
        return b.moved(conv(b, b.moved(x, lambda a: a[None]), weight, bias, stride, padding, dilation, groups),
                       lambda a: a[0])  # fmt: skip
    strides, dilations = each(stride, n), each(dilation, n)
    if padding == "same":
        around = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        widths = [w for a in reversed(around) for w in (a // 2, a - a // 2)]
    else:
        widths = [
            w
            for p in reversed(each(0 if padding == "valid" else padding, n))
            for w in (p, p)
        ]
    x = pad(b, x, widths) if any(widths) else x
    sizes = b.shape(x)

    def windows(a: Tensor) -> Tensor:
        for k in range(n):
            reach = dilations[k] * (kernel[k] - 1) + 1
            a = a.unfold(2 + k, reach, strides[k])[..., :: dilations[k]]
        return a.reshape(sizes[0], groups, -1, *a.shape[2:])

    def grouped(a: Tensor) -> Tensor:
        return a.reshape(groups, -1, *a.shape[1:])

    place, tap = "xyz"[:n], "uvw"[:n]
    spec = f"bgi{place}{tap},goi{tap}->bgo{place}"
    out = b.einsum(spec, b.moved(x, windows), b.moved(weight, grouped))
    shape = b.shape(out)
    out = b.shaped(out, (shape[0], shape[1] * shape[2], *shape[3:]))
    return out if bias is None else add(b, out, channels(b, bias, out))


def transposed(n: int) -> Any:
    def row(b: Builder, x: Operand, weight: Operand, bias: Optional = None, stride=1, padding=0, output_padding=0,
            groups: int = 1, dilation=1) -> Operand:  # fmt: skip
        """The convolution of x, zeros put between its entries, with the kernel turned round: weight [in, out / groups,
        *kernel]."""
        if len(b.shape(x)) == n + 1:
            one = row(
                b,
                b.moved(x, lambda a: a[None]),
                weight,
                bias,
                stride,
                padding,
                output_padding,
                groups,
                dilation,
            )
            return b.moved(one, lambda a: a[0])
        steps, gaps = each(stride, n), each(dilation, n)
        kernel, lead = b.shape(weight)[2:], b.shape(x)[:2]
        sparse = torch.zeros(
            *lead,
            *(
                (size - 1) * step + 1
                for size, step in zip(b.shape(x)[2:], steps, strict=True)
            ),
        )
        places = (
            slice(None),
            slice(None),
            *(slice(None, None, step) for step in steps),
        )
        sparse[places] = torch.arange(1.0, 1 + math.prod(b.shape(x))).reshape(
            b.shape(x)
        )
        x = Value(b.move([b.node(0.0), b.node(x)], sparse.long().numpy()))
        around = zip(
            kernel, gaps, each(padding, n), each(output_padding, n), strict=True
        )
        ends = [
            (gap * (size - 1) - p, gap * (size - 1) - p + more)
            for size, gap, p, more in around
        ]
        x = pad(b, x, [width for pair in reversed(ends) for width in pair])

        def turned(a: Tensor) -> Tensor:
            a = (
                a.flip(tuple(range(2, 2 + n)))
                .unflatten(0, (groups, -1))
                .transpose(1, 2)
            )
            return a.flatten(0, 1)

        return conv(b, x, b.moved(weight, turned), bias, 1, 0, dilation, groups)

    return row


def convolution(
    b: Builder,
    x,
    weight,
    bias,
    stride,
    padding,
    dilation,
    turned,
    output_padding,
    groups,
) -> Operand:
    if turned:
        row = transposed(len(b.shape(weight)) - 2)
        return row(
            b, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv(b, x, weight, bias, stride, padding, dilation, groups)


def spans(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool
) -> list[list[int]]:
    """What lies under each window of one axis: positions, padding left out."""
    reach = dilation * (kernel - 1) + 1
    count = (size + 2 * padding - reach + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1  # as torch: a window must start within the input or its left padding
    starts = [k * stride - padding for k in range(count)]
    return [[p for p in range(s, s + reach, dilation) if 0 <= p < size] for s in starts]


def max_pool(n: int) -> Any:
    def row(
        b: Builder,
        x: Operand,
        kernel,
        stride=(),
        padding=0,
        dilation=1,
        ceil: bool = False,
    ) -> Operand:
        kernels, rank = each(kernel, n), len(b.shape(x))
        steps = each(stride, n) if stride not in ((), []) else kernels
        for k, (size, step, width, gap) in enumerate(
            zip(kernels, steps, each(padding, n), each(dilation, n), strict=True)
        ):
            axis = rank - n + k
            windows = spans(b.shape(x)[axis], size, step, width, gap, ceil)
            x = largest_in(b, x, axis, windows, size)
        return x

    return row


def indexed(row: Any) -> Any:
    """Torch's variant that gives the indices as well."""
    return lambda *args: (
        row(*args),
        NotLowered("the index of a maximum jumps: use the pooled values alone"),
    )


def adaptive_max_pool(b: Builder, x: Operand, sizes) -> Operand:
    n, rank = len(sizes), len(b.shape(x))
    for axis, out in enumerate(sizes, rank - n):
        windows = parts_of(b.shape(x)[axis], out)
        x = largest_in(b, x, axis, windows, max(map(len, windows)))
    return x


def largest_in(
    b: Builder, x: Operand, axis: int, windows: list[list[int]], width: int
) -> Operand:
    """Of each window along an axis; one that holds less than `width` positions repeats its last."""
    index = torch.tensor([w + [w[-1]] * (width - len(w)) for w in windows])

    def laid_out(a: Any) -> Any:
        return a.index_select(axis, index.flatten()).unflatten(axis, index.shape)

    return largest(b, b.moved(x, laid_out), axis + 1)


def parts_of(size: int, count: int) -> list[list[int]]:
    """The windows of adaptive pooling along one axis."""
    return [
        list(range(j * size // count, -(-(j + 1) * size // count)))
        for j in range(count)
    ]


def resized(b: Builder, x: Operand, sizes, align: bool, *scales: Any) -> Operand:
    """Bilinear interpolation: the linear map that torch applies to every channel."""
    *lead, height, width = b.shape(x)
    grid = torch.eye(height * width, dtype=torch.float64).reshape(1, -1, height, width)
    if sizes is None:
        sizes = [
            int(size * scale)
            for size, scale in zip((height, width), *scales, strict=True)
        ]
        maps = torch.ops.aten.upsample_bilinear2d.vec(grid, None, align, *scales)
    elif len(scales) == 1:
        maps = torch.ops.aten.upsample_bilinear2d.vec(grid, sizes, align, *scales)
    else:
        maps = torch.ops.aten.upsample_bilinear2d(grid, sizes, align, *scales)
    out = linear(
        b, b.shaped(x, (*lead, height * width)), maps.flatten(2)[0].T.contiguous()
    )
    return b.shaped(out, (*lead, *sizes))


def averaged(
    b: Builder, x: Operand, axis: int, windows: list[list[int]], counts: list[float]
) -> Operand:
    matrix = torch.zeros(len(windows), b.shape(x)[axis], dtype=torch.float64)
    for row, window in zip(matrix, windows, strict=True):
        row[window] = 1.0
    sums = linear(b, b.moved(x, lambda a: a.movedim(axis, -1)), matrix)
    same = len(set(counts)) == 1
    return b.moved(
        div(b, sums, counts[0] if same else torch.tensor(counts)),
        lambda a: a.movedim(-1, axis),
    )


def avg_pool(n: int) -> Any:
    def row(
        b: Builder,
        x,
        kernel,
        stride=(),
        padding=0,
        ceil: bool = False,
        include: bool = True,
        divisor=None,
    ):
        kernels, rank = each(kernel, n), len(b.shape(x))
        steps = each(stride, n) if stride not in ((), []) else kernels
        for k, (size, step, width) in enumerate(
            zip(kernels, steps, each(padding, n), strict=True)
        ):
            axis = rank - n + k
            length = b.shape(x)[axis]
            windows = spans(length, size, step, width, 1, ceil)
            ends = [
                min(j * step - width + size, length + width) - (j * step - width)
                for j in range(len(windows))
            ]
            counts = ends if include else [len(w) for w in windows]
            counts = [1] * len(counts) if divisor else counts
            x = averaged(b, x, axis, windows, [float(c) for c in counts])
        return div(b, x, float(divisor)) if divisor else x

    return row


def adaptive_avg_pool(n: int) -> Any:
    def row(b: Builder, x: Operand, sizes) -> Operand:
        rank = len(b.shape(x))
        for k, out in enumerate(each(sizes, n)):
            axis = rank - n + k
            windows = parts_of(b.shape(x)[axis], out)
            x = averaged(b, x, axis, windows, [float(len(w)) for w in windows])
        return x

    return row


ROWS = {
    "conv1d": conv, "conv2d": conv, "conv3d": conv, "convolution": convolution,
    **{f"conv_transpose{n}d": transposed(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d": max_pool(n) for n in (1, 2, 3)}, **{f"avg_pool{n}d": avg_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": indexed(max_pool(n)) for n in (1, 2, 3)},
    **{f"{_}adaptive_avg_pool{n}d": adaptive_avg_pool(n) for n in (1, 2, 3) for _ in ("", "_")},
    **{f"adaptive_max_pool{n}d": indexed(adaptive_max_pool) for n in (1, 2, 3)}, "upsample_bilinear2d": resized,
}  # fmt: skip

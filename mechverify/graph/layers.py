"""ATen operations that are whole layers: normalisation, convolution, pooling, attention, embedding."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.arithmetic import add, div, mul, over_root, where
from mechverify.graph.build import Builder, NotLowered, Operand, Value
from mechverify.graph.reductions import (
    LETTERS,
    centred,
    largest,
    linear,
    matmul,
    pad,
    safe_softmax,
    squares,
)

Optional = Operand | None


def affine(b: Builder, x: Operand, weight: Optional, bias: Optional) -> Operand:
    x = x if weight is None else mul(b, x, weight)
    return x if bias is None else add(b, x, bias)


def standardised(b: Builder, x: Operand, eps: float) -> Operand:
    """x / sqrt(mean of squares + eps) over the last axis."""
    mean = div(b, squares(b, x), float(b.shape(x)[-1]))
    scale = b.elementwise("rsqrt", add(b, mean, eps))
    out = b.elementwise("mul", x, b.shaped(scale, (*b.shape(scale), 1)))
    b.norms.append(b.unviewed(out.node))
    return out


def layer_norm(b: Builder, x: Operand, shape: Sequence[int], weight: Optional = None, bias: Optional = None,
               eps: float = 1e-5, *_) -> Operand:  # fmt: skip
    full = b.shape(x)
    flat = b.shaped(x, (*full[: len(full) - len(shape)], -1))
    return affine(
        b, b.shaped(standardised(b, centred(b, flat), eps), full), weight, bias
    )


def rms_norm(
    b: Builder,
    x: Operand,
    shape: Sequence[int],
    weight: Optional = None,
    eps: float | None = None,
) -> Operand:
    if eps is None:
        raise NotLowered(
            "rms_norm without eps takes the rounding error of its float type: give eps"
        )
    full = b.shape(x)
    flat = b.shaped(x, (*full[: len(full) - len(shape)], -1))
    return affine(b, b.shaped(standardised(b, flat, eps), full), weight, None)


def channels(b: Builder, x: Operand, like: Operand) -> Operand:
    """A vector over channels, to broadcast over what follows the channel axis."""
    return b.shaped(x, (-1,) + (1,) * (len(b.shape(like)) - 2))


def channel_affine(b: Builder, x: Operand, weight: Optional, bias: Optional) -> Operand:
    weight, bias = (None if v is None else channels(b, v, x) for v in (weight, bias))
    return affine(b, x, weight, bias)


def group_norm(b: Builder, x: Operand, groups: int, weight: Optional = None, bias: Optional = None,
               eps: float = 1e-5, *_) -> Operand:  # fmt: skip
    full = b.shape(x)
    flat = b.shaped(x, (full[0], groups, -1))
    out = b.shaped(standardised(b, centred(b, flat), eps), full)
    return channel_affine(b, out, weight, bias)


def batch_norm(b: Builder, x: Operand, weight: Optional, bias: Optional, mean: Operand, var: Operand,
               eps: float) -> Operand:  # fmt: skip
    """With running statistics: (x - mean) weight / sqrt(var + eps) + bias."""
    scale = b.elementwise("rsqrt", add(b, var, eps))
    scale = scale if weight is None else mul(b, scale, weight)
    moved = b.elementwise("sub", x, channels(b, mean, x))
    return channel_affine(b, moved, scale, bias)


def batch_norm_row(
    b: Builder, x, weight, bias, mean, var, training, momentum, eps, *_
) -> Operand:
    if training or mean is None:
        raise NotLowered(
            "batch norm of the batch's own statistics: call eval(), with track_running_stats=True"
        )
    return batch_norm(b, x, weight, bias, mean, var, eps)


def batch_norm_no_training(
    b: Builder, x, weight, bias, mean, var, momentum, eps
) -> tuple:
    unused = NotLowered("statistics of a batch")
    return batch_norm(b, x, weight, bias, mean, var, eps), unused, unused


def instance_norm(
    b: Builder, x, weight, bias, mean, var, use_input_stats, momentum, eps, *_
) -> Operand:
    if not use_input_stats:
        return batch_norm(b, x, weight, bias, mean, var, eps)
    return group_norm(b, x, b.shape(x)[1], weight, bias, eps)


# --- windows


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


# --- attention and embedding


def attention(b: Builder, q: Operand, k: Operand, v: Operand, mask: Optional = None, dropout: float = 0.0,
              causal: bool = False, scale: float | None = None, grouped: bool = False) -> Operand:  # fmt: skip
    """Scaled dot-product attention: q [..., j, e], k [..., i, e], v [..., i, f]."""
    if dropout:
        raise NotLowered("dropout in training: call eval()")
    if grouped:
        times = b.shape(q)[-3] // b.shape(k)[-3]
        k, v = (b.moved(a, lambda t: t.repeat_interleave(times, -3)) for a in (k, v))
    scores = matmul(b, q, b.moved(k, lambda a: a.transpose(-1, -2)))
    products = b.unviewed(b.node(scores))
    scores = (
        over_root(b, scores, b.shape(q)[-1]) if scale is None else mul(b, scores, scale)
    )
    if causal:
        scores = where(
            b, torch.ones(b.shape(scores)[-2:]).tril() > 0, scores, -math.inf
        )
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        scores = where(b, mask, scores, -math.inf)
    elif mask is not None:
        scores = add(b, scores, mask)
    pattern = safe_softmax(b, scores, -1)
    out = matmul(b, pattern, v)
    b.attentions.append(
        ([products], b.joined(b.node(pattern)), [b.unviewed(b.node(out))])
    )
    return out


def checked(b: Builder, ids: Value, rows: int) -> Tensor:
    """What the token ids have become, all rows of a table."""
    table = torch.arange(len(b.graph.values)) if ids.table is None else ids.table.long()
    if not 0 <= int(table.min()) <= int(table.max()) < rows:
        span = f"{int(table.min())} to {int(table.max())}"
        raise NotLowered(
            f"token ids have become {span}, the table has {rows} rows: pass vocab=, or clamp them"
        )
    return table


def embedding(b: Builder, weight: Operand, ids: Operand, *_) -> Value:
    """Rows of a table [rows, ...] at token ids."""
    if not isinstance(ids, Value) or b.graph.nodes[ids.node].kind != "ids":
        raise NotLowered("an embedding of what isn't a token id")
    if isinstance(weight, Value):  # a table that is computed from weights
        rows = b.shape(weight)[0]
        hot = one_hot(b, ids, rows)
        rest = LETTERS[1 : len(b.shape(weight))]
        lead = LETTERS[len(rest) + 1 : len(rest) + 1 + len(b.shape(ids))]
        return b.einsum(f"{lead}a,a{rest}->{lead}{rest}", hot, weight)
    weight = torch.as_tensor(weight)
    table = (
        weight
        if ids.table is None
        else weight.index_select(0, checked(b, ids, len(weight)))
    )
    node = b.graph.add("gather", b.table(table), b.stripped(ids.node))
    return Value(b.reshape(node, b.shape(ids) + b.shape(table)[1:]))


def one_hot(b: Builder, ids: Operand, classes: int) -> Operand:
    return embedding(b, torch.eye(classes, dtype=torch.float64), ids)


def index(b: Builder, x: Operand, indices: Sequence[Any]) -> Operand:
    """x[indices]: of token ids, an embedding; of constants, moved entries."""
    at = [k for k, i in enumerate(indices) if isinstance(i, Value)]
    if not at:
        return b.moved(x, lambda a: torch.ops.aten.index.Tensor(a, indices))
    if sum(i is not None for i in indices) > 1:
        raise NotLowered(
            "an index by token ids and another one together: index one axis at a time, or multiply by one_hot"
        )
    if isinstance(x, Value) and any(
        b.graph.nodes[n].op in ("input", "tokens") for n in b.graph.ancestors([x.node])
    ):
        raise NotLowered(
            "an index by token ids of what depends on the input: multiply by one_hot"
        )
    (axis,), row = at, indices[at[0]]
    if (
        row.table is not None and row.table.dtype != torch.bool
    ):  # as torch: -1 is the last row
        row = Value(
            row.node,
            table=torch.where(row.table < 0, row.table + b.shape(x)[axis], row.table),
        )
    if (
        isinstance(x, Tensor) and not x.is_floating_point() and x.ndim == 1
    ):  # other ids, or whether
        return Value(row.node, table=x[checked(b, row, len(x))])
    if axis == 0:
        return embedding(b, x, row)
    found = embedding(b, b.moved(x, lambda a: a.movedim(axis, 0).contiguous()), row)
    places = range(len(b.shape(row)))
    return b.moved(
        found, lambda a: a.movedim(tuple(places), tuple(axis + k for k in places))
    )


ROWS = {
    "layer_norm": layer_norm, "rms_norm": rms_norm, "_fused_rms_norm": rms_norm, "group_norm": group_norm,
    "batch_norm": batch_norm_row, "_native_batch_norm_legit_no_training": batch_norm_no_training,
    "instance_norm": instance_norm,
    "conv1d": conv, "conv2d": conv, "conv3d": conv, "convolution": convolution,
    **{f"conv_transpose{n}d": transposed(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d": max_pool(n) for n in (1, 2, 3)}, **{f"avg_pool{n}d": avg_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": indexed(max_pool(n)) for n in (1, 2, 3)},
    **{f"{_}adaptive_avg_pool{n}d": adaptive_avg_pool(n) for n in (1, 2, 3) for _ in ("", "_")},
    **{f"adaptive_max_pool{n}d": indexed(adaptive_max_pool) for n in (1, 2, 3)}, "upsample_bilinear2d": resized,
    "scaled_dot_product_attention": attention, "embedding": embedding, "one_hot": one_hot, "index": index,
}  # fmt: skip

"""ATen operations that are whole layers: normalisation, convolution, pooling, attention, embedding."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.arithmetic import add, div, mul, over_root, where
from mechverify.graph.build import Builder, NotLowered, Operand, Value
from mechverify.graph.reductions import LETTERS, centred, largest, linear, matmul, pad, safe_softmax, squares

Optional = Operand | None


def affine(b: Builder, x: Operand, weight: Optional, bias: Optional) -> Operand:
    x = x if weight is None else mul(b, x, weight)
    return x if bias is None else add(b, x, bias)


def standardised(b: Builder, x: Operand, eps: float) -> Operand:
    """x / sqrt(mean of squares + eps) over the last axis."""
    mean = div(b, squares(b, x), float(b.shape(x)[-1]))
    scale = b.elementwise("rsqrt", add(b, mean, eps))
    return b.elementwise("mul", x, b.shaped(scale, (*b.shape(scale), 1)))


def layer_norm(b: Builder, x: Operand, shape: Sequence[int], weight: Optional = None, bias: Optional = None,
               eps: float = 1e-5, *_) -> Operand:  # fmt: skip
    full = b.shape(x)
    flat = b.shaped(x, (*full[: len(full) - len(shape)], -1))
    return affine(b, b.shaped(standardised(b, centred(b, flat), eps), full), weight, bias)


def rms_norm(
    b: Builder, x: Operand, shape: Sequence[int], weight: Optional = None, eps: float | None = None
) -> Operand:
    if eps is None:
        raise NotLowered("rms_norm without eps takes the rounding error of its float type: give eps")
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


def batch_norm_row(b: Builder, x, weight, bias, mean, var, training, momentum, eps, *_) -> Operand:
    if training or mean is None:
        raise NotLowered("batch norm of the batch's own statistics: call eval(), with track_running_stats=True")
    return batch_norm(b, x, weight, bias, mean, var, eps)


def batch_norm_no_training(b: Builder, x, weight, bias, mean, var, momentum, eps) -> tuple:
    unused = NotLowered("statistics of a batch")
    return batch_norm(b, x, weight, bias, mean, var, eps), unused, unused


def instance_norm(b: Builder, x, weight, bias, mean, var, use_input_stats, momentum, eps, *_) -> Operand:
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
        widths = [w for p in reversed(each(0 if padding == "valid" else padding, n)) for w in (p, p)]
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


def convolution(b: Builder, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups) -> Operand:
    if transposed:
        raise NotLowered("a transposed convolution: use upsampling and a convolution, or a linear layer")
    return conv(b, x, weight, bias, stride, padding, dilation, groups)


def spans(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> list[list[int]]:
    """What lies under each window of one axis: positions, padding left out."""
    reach = dilation * (kernel - 1) + 1
    count = (size + 2 * padding - reach + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1  # as torch: a window must start within the input or its left padding
    starts = [k * stride - padding for k in range(count)]
    return [[p for p in range(s, s + reach, dilation) if 0 <= p < size] for s in starts]


def max_pool(n: int) -> Any:
    def row(b: Builder, x: Operand, kernel, stride=(), padding=0, dilation=1, ceil: bool = False) -> Operand:
        kernels, rank = each(kernel, n), len(b.shape(x))
        steps = each(stride, n) if stride not in ((), []) else kernels
        for k, (size, step, width, gap) in enumerate(
            zip(kernels, steps, each(padding, n), each(dilation, n), strict=True)
        ):
            axis = rank - n + k
            windows = spans(b.shape(x)[axis], size, step, width, gap, ceil)
            index = torch.tensor([w + [w[-1]] * (size - len(w)) for w in windows])
            x = b.moved(x, lambda a, i=index, d=axis: a.index_select(d, i.flatten()).unflatten(d, tuple(i.shape)))
            x = largest(b, x, axis + 1)
        return x

    return row


def averaged(b: Builder, x: Operand, axis: int, windows: list[list[int]], counts: list[float]) -> Operand:
    matrix = torch.zeros(len(windows), b.shape(x)[axis], dtype=torch.float64)
    for row, window in zip(matrix, windows, strict=True):
        row[window] = 1.0
    sums = linear(b, b.moved(x, lambda a: a.movedim(axis, -1)), matrix)
    same = len(set(counts)) == 1
    return b.moved(div(b, sums, counts[0] if same else torch.tensor(counts)), lambda a: a.movedim(-1, axis))


def avg_pool(n: int) -> Any:
    def row(b: Builder, x, kernel, stride=(), padding=0, ceil: bool = False, include: bool = True, divisor=None):
        kernels, rank = each(kernel, n), len(b.shape(x))
        steps = each(stride, n) if stride not in ((), []) else kernels
        for k, (size, step, width) in enumerate(zip(kernels, steps, each(padding, n), strict=True)):
            axis = rank - n + k
            length = b.shape(x)[axis]
            windows = spans(length, size, step, width, 1, ceil)
            ends = [min(j * step - width + size, length + width) - (j * step - width) for j in range(len(windows))]
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
            length = b.shape(x)[axis]
            windows = [list(range(j * length // out, -(-(j + 1) * length // out))) for j in range(out)]
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
    scores = over_root(b, scores, b.shape(q)[-1]) if scale is None else mul(b, scores, scale)
    if causal:
        scores = where(b, torch.ones(b.shape(scores)[-2:]).tril() > 0, scores, -math.inf)
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        scores = where(b, mask, scores, -math.inf)
    elif mask is not None:
        scores = add(b, scores, mask)
    return matmul(b, safe_softmax(b, scores, -1), v)


def embedding(b: Builder, weight: Operand, ids: Operand, *_) -> Value:
    """Rows of a table [rows, ...] at token ids."""
    if not isinstance(ids, Value) or b.graph.nodes[ids.node].kind != "ids":
        raise NotLowered("an embedding of what isn't a token id")
    if ids.table is not None and not 0 <= int(ids.table.min()) <= int(ids.table.max()) < b.shape(weight)[0]:
        span, rows = f"{int(ids.table.min())} to {int(ids.table.max())}", b.shape(weight)[0]
        raise NotLowered(f"token ids have become {span}, the table has {rows} rows: pass vocab=, or clamp them")
    if isinstance(weight, Value):  # a table that is computed from weights
        rows = b.shape(weight)[0]
        hot = one_hot(b, ids, rows)
        rest = LETTERS[1 : len(b.shape(weight))]
        lead = LETTERS[len(rest) + 1 : len(rest) + 1 + len(b.shape(ids))]
        return b.einsum(f"{lead}a,a{rest}->{lead}{rest}", hot, weight)
    weight = torch.as_tensor(weight)
    table = weight if ids.table is None else weight.index_select(0, ids.table.long())
    node = b.graph.add("gather", b.table(table), b.stripped(ids.node))
    return Value(b.reshape(node, b.shape(ids) + b.shape(table)[1:]))


def one_hot(b: Builder, ids: Operand, classes: int) -> Operand:
    return embedding(b, torch.eye(classes, dtype=torch.float64), ids)


def index(b: Builder, x: Operand, indices: Sequence[Any]) -> Operand:
    """x[indices]: of token ids, an embedding; of constants, moved entries."""
    ids = [i for i in indices if isinstance(i, Value)]
    if not ids:
        return b.moved(x, lambda a: torch.ops.aten.index.Tensor(a, indices))
    if indices[0] is not ids[0] or any(i is not None for i in indices[1:]):
        raise NotLowered("an index by token ids of other axes than the first alone: use an embedding")
    if isinstance(x, Value) and any(b.graph.nodes[n].op in ("input", "tokens") for n in b.graph.ancestors([x.node])):
        raise NotLowered("an index by token ids of what depends on the input: multiply by one_hot")
    row = ids[0]
    if row.table is not None and row.table.dtype != torch.bool:  # as torch: -1 is the last row
        row = Value(row.node, table=torch.where(row.table < 0, row.table + b.shape(x)[0], row.table))
    return embedding(b, x, row)


ROWS = {
    "layer_norm": layer_norm, "rms_norm": rms_norm, "_fused_rms_norm": rms_norm, "group_norm": group_norm,
    "batch_norm": batch_norm_row, "_native_batch_norm_legit_no_training": batch_norm_no_training,
    "instance_norm": instance_norm,
    "conv1d": conv, "conv2d": conv, "conv3d": conv, "convolution": convolution,
    "max_pool1d": max_pool(1), "max_pool2d": max_pool(2),
    "avg_pool1d": avg_pool(1), "avg_pool2d": avg_pool(2),
    "adaptive_avg_pool1d": adaptive_avg_pool(1), "adaptive_avg_pool2d": adaptive_avg_pool(2),
    "_adaptive_avg_pool2d": adaptive_avg_pool(2),
    "scaled_dot_product_attention": attention, "embedding": embedding, "one_hot": one_hot, "index": index,
}  # fmt: skip

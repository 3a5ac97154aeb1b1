"""ATen operations that normalise: by layers, groups, instances, batches' running statistics."""

from collections.abc import Sequence

from mechverify.graph.arithmetic import add, div, mul
from mechverify.graph.build import Builder, NotLowered, Operand
from mechverify.graph.reductions import centred, squares

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


ROWS = {
    "layer_norm": layer_norm, "rms_norm": rms_norm, "_fused_rms_norm": rms_norm, "group_norm": group_norm,
    "batch_norm": batch_norm_row, "_native_batch_norm_legit_no_training": batch_norm_no_training,
    "instance_norm": instance_norm,
}  # fmt: skip

"""Arithmetic and functions of one operand: rows of the lowering table.

A row takes an ATen operation's arguments in the order of its schema, defaults filled in. Operands are values that
depend on the inputs, constant tensors or numbers. What comes back is exactly the function over the reals that torch's
operation denotes: 1/3 is a division by 3, and never the float nearest to it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mechverify.graph.build import Builder, NotLowered, Operand, Value


def finite(b: Builder, x: Operand) -> tuple[Operand, Tensor | None]:
    """The operand with zeros for minus infinity, and which entries are not minus infinity (None: all)."""
    if isinstance(x, Value):
        return Value(x.node, table=x.table), x.keep
    x = torch.as_tensor(x, dtype=torch.float64)
    keep = x != -math.inf
    return (x, None) if bool(keep.all()) else (torch.where(keep, x, 0.0), keep)


def is_number(x: Operand, number: float) -> bool:
    return not isinstance(x, Value) and bool((torch.as_tensor(x) == number).all())


def broadcast(b: Builder, x: Operand, *others: Operand) -> Operand:
    shape = torch.broadcast_shapes(b.shape(x), *map(b.shape, others))
    return x if shape == b.shape(x) else b.moved(x, lambda a: a.expand(shape))


def add(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Operand:
    (x, keep_x), (y, keep_y) = finite(b, x), finite(b, mul(b, y, alpha))
    shape = torch.broadcast_shapes(b.shape(x), b.shape(y))
    keeps = [k.expand(shape) for k in (keep_x, keep_y) if k is not None]
    if is_number(y, 0):
        out = broadcast(b, x, y)
    else:
        out = broadcast(b, y, x) if is_number(x, 0) else b.elementwise("add", x, y)
    return Value(b.node(out), torch.stack(keeps).all(0)) if keeps else out


def sub(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Operand:
    y = mul(b, y, alpha)
    if is_number(y, 0) or (isinstance(x, Value) and x.keep is not None):
        return add(b, x, mul(b, y, -1))
    return b.elementwise("sub", x, y)


def mul(b: Builder, x: Operand, y: Operand) -> Operand:
    if is_number(x, 1) or is_number(y, 1):
        return broadcast(b, y, x) if is_number(x, 1) else broadcast(b, x, y)
    if isinstance(x, int | float) and isinstance(y, int | float):
        return x * y  # as Python would
    x, y = (y, x) if isinstance(y, Value) and not isinstance(x, Value) else (x, y)
    if not isinstance(y, Value) and isinstance(x, Value):
        if x.keep is not None and bool((torch.as_tensor(y) > 0).all()):
            out = mul(b, Value(x.node), y)
            return Value(b.node(out), x.keep.expand(b.shape(out)))
        if not b.shape(y) and not b.is_state(y) and (root := _root(float(y))):
            return over_root(b, x, root)
    return b.elementwise("mul", x, y)


def over_root(b: Builder, x: Operand, d: int) -> Operand:
    """x / sqrt(d) for an integer d, exactly."""
    return x if d == 1 else b.elementwise("over_root", x, attr=d)


def _root(scale: float) -> int | None:
    """The integer d for which `scale` is 1 / sqrt(d) up to one unit in the last place; none for powers of two."""
    if not 1e-3 <= scale < 1 or math.frexp(scale)[0] == 0.5:
        return None
    d = round(scale**-2)
    return d if abs(scale - d**-0.5) <= math.ulp(scale) else None


def div(
    b: Builder, x: Operand, y: Operand, rounding_mode: str | None = None
) -> Operand:
    if rounding_mode is not None:
        raise NotLowered("a rounded quotient jumps: divide without rounding_mode")
    if isinstance(y, Value) or b.shape(y):
        y = y if isinstance(y, Value) else torch.as_tensor(y, dtype=torch.float64)
        return mul(b, x, b.elementwise("reciprocal", y))
    number = float(y)
    if number == 0 or not math.isfinite(number):
        raise NotLowered(f"a division by {number}")
    if math.frexp(number)[0] in (0.5, -0.5):  # a power of two
        return mul(b, x, 1 / number)
    if number == int(number) and 1 <= number <= 2**20:
        return over_root(b, x, int(number) ** 2)
    if (
        not b.is_state(y)
        and number >= 1
        and abs(number - (d := round(number**2)) ** 0.5) <= math.ulp(number)
        and d <= 2**20
    ):
        return over_root(b, x, d)
    return b.elementwise("mul", x, b.elementwise("reciprocal", y))


def power(b: Builder, x: Operand, exponent: Operand) -> Operand:
    if isinstance(exponent, Value) or b.shape(exponent):
        raise NotLowered("an exponent must be one number")
    if not isinstance(x, Value) and not b.shape(x):  # c^x = e^(x log c)
        return exp(b, mul(b, exponent, b.elementwise("log", x)))
    n = float(exponent)
    if n < 0:
        return (
            b.elementwise("rsqrt", x)
            if n == -0.5
            else b.elementwise("reciprocal", power(b, x, -n))
        )
    whole = int(n)
    if n == whole:
        if whole > 16:
            return mul(b, power(b, x, 16), power(b, x, whole - 16))
        return (
            b.elementwise("power", x, attr=whole)
            if whole > 1
            else x
            if whole
            else torch.ones(b.shape(x))
        )
    if n - whole == 0.5:
        root = b.elementwise("sqrt", x)
        return mul(b, power(b, x, whole), root) if whole else root
    return exp(b, mul(b, b.elementwise("log", x), n))


def scalar_power(b: Builder, base: float, exponent: Operand) -> Operand:
    if base <= 0:
        raise NotLowered("the base of a power must be positive")
    return exp(b, mul(b, exponent, b.elementwise("log", float(base))))


def where(b: Builder, condition: Tensor, x: Operand, y: Operand) -> Operand:
    """By a condition that doesn't depend on the input; comparing.py has the others."""
    condition = condition.bool()
    shape = torch.broadcast_shapes(condition.shape, b.shape(x), b.shape(y))
    (x, keep_x), (y, keep_y) = finite(b, x), finite(b, y)
    condition = condition.expand(shape)
    every = torch.ones(shape, dtype=torch.bool)
    keep_x, keep_y = (every if k is None else k.expand(shape) for k in (keep_x, keep_y))
    keep = torch.where(condition, keep_x, keep_y)
    if not bool((keep & ~condition).any()):
        out = broadcast(b, x, condition)
    elif not bool((keep & condition).any()):
        out = broadcast(b, y, condition)
    else:
        out = add(b, _masked(b, x, condition), _masked(b, y, ~condition))
    return out if bool(keep.all()) else Value(b.node(out), keep)


def _masked(b: Builder, x: Operand, kept: Tensor) -> Operand:
    if isinstance(x, Value):
        return mul(b, kept.double(), x)
    return torch.where(kept, torch.as_tensor(x, dtype=torch.float64), 0.0)


# --- functions of one operand


def exp(b: Builder, x: Operand) -> Operand:
    return b.elementwise("exp", x)


def relu(b: Builder, x: Operand) -> Operand:
    return b.elementwise("relu", x)


def function(name: str) -> Callable:
    return lambda b, x, *_: b.elementwise(name, x)


def maximum(b: Builder, x: Operand, y: Operand) -> Operand:
    return add(b, x, relu(b, sub(b, y, x)))


def minimum(b: Builder, x: Operand, y: Operand) -> Operand:
    return sub(b, x, relu(b, sub(b, x, y)))


def clamp(
    b: Builder, x: Operand, low: Operand | None = None, high: Operand | None = None
) -> Operand:
    x = x if low is None else maximum(b, low, x)
    return x if high is None else minimum(b, high, x)


def leaky_relu(b: Builder, x: Operand, slope: Operand = 0.01) -> Operand:
    positive = relu(b, x)
    return (
        positive
        if is_number(slope, 0)
        else add(b, positive, mul(b, sub(b, x, positive), slope))
    )


def prelu(b: Builder, x: Operand, slope: Operand) -> Operand:
    return leaky_relu(b, x, b.shaped(slope, (-1,) + (1,) * max(len(b.shape(x)) - 2, 0)))


def elu(
    b: Builder, x: Operand, alpha: float = 1, scale: float = 1, input_scale: float = 1
) -> Operand:
    below = sub(b, exp(b, mul(b, mul(b, relu(b, mul(b, x, -1)), -1), input_scale)), 1.0)
    return mul(b, add(b, relu(b, x), mul(b, below, alpha)), scale)


def celu(b: Builder, x: Operand, alpha: float = 1) -> Operand:
    below = sub(b, exp(b, div(b, mul(b, relu(b, mul(b, x, -1)), -1), alpha)), 1.0)
    return add(b, relu(b, x), mul(b, below, alpha))


def softplus(b: Builder, x: Operand, beta: float = 1, threshold: float = 20) -> Operand:
    """log(1 + e^(beta x)) / beta. Where beta x exceeds the threshold, torch gives x, which is less by at most
    e^-threshold / beta; by 2.1e-9 / beta at its default, and that is taken for a way to compute, not for another
    function."""
    if threshold < 20:
        raise NotLowered(f"a softplus that jumps to x, by {math.exp(-threshold):.2g}, where x exceeds {threshold}: "
                         "leave its threshold at 20")  # fmt: skip
    return div(b, b.elementwise("softplus", mul(b, x, beta)), beta)


def gelu(b: Builder, x: Operand, approximate: str = "none") -> Operand:
    return b.elementwise("gelu_tanh" if approximate == "tanh" else "gelu", x)


def hardsigmoid(b: Builder, x: Operand) -> Operand:
    return div(b, clamp(b, add(b, x, 3.0), 0.0, 6.0), 6.0)


def hardswish(b: Builder, x: Operand) -> Operand:
    """x relu6(x + 3) / 6 = ((t - 3/2)^2 - 9/4) / 6 + relu(x - 3) with t = relu6(x + 3): never below -3/8."""
    t = clamp(b, add(b, x, 3.0), 0.0, 6.0)
    square = power(b, sub(b, t, 1.5), 2)
    return add(b, div(b, sub(b, square, 2.25), 6.0), relu(b, sub(b, x, 3.0)))


def threshold(b: Builder, x: Operand, limit: float, value: float) -> Operand:
    if limit != value:
        raise NotLowered(
            "a threshold that jumps: only threshold == value is continuous"
        )
    return maximum(b, limit, x)


def softshrink(b: Builder, x: Operand, width: float = 0.5) -> Operand:
    return sub(b, x, clamp(b, x, -width, width))


def rrelu(
    b: Builder,
    x: Operand,
    noise: Operand,
    low: float,
    high: float,
    training: bool = False,
    *_,
) -> tuple:
    if training:
        raise NotLowered("random slopes in training: call eval()")
    return leaky_relu(b, x, (low + high) / 2), noise


def hyperbolic(sign: int) -> Callable:
    return lambda b, x: div(
        b, add(b, exp(b, x), mul(b, exp(b, mul(b, x, -1)), sign)), 2.0
    )


def logarithm(base: float) -> Callable:
    return lambda b, x: mul(
        b,
        b.elementwise("log", x),
        b.elementwise("reciprocal", b.elementwise("log", base)),
    )


ROWS: dict[str, Callable] = {
    **{name: function(name) for name in ("relu", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid",
                                         "erf", "silu", "sin", "cos", "atan")},
    "add": add, "sub": sub, "rsub": lambda b, x, y, alpha=1: sub(b, y, mul(b, x, alpha)), "mul": mul,
    "div": div, "true_divide": div, "neg": lambda b, x: mul(b, x, -1), "square": lambda b, x: power(b, x, 2),
    "pow": power, "pow.Scalar": scalar_power, "gelu": gelu, "softplus": softplus,
    "tril": lambda b, x, k=0: where(b, torch.ones(b.shape(x)).tril(k) > 0, x, 0.0),
    "triu": lambda b, x, k=0: where(b, torch.ones(b.shape(x)).triu(k) > 0, x, 0.0),
    "maximum": maximum, "minimum": minimum, "clamp": clamp, "hardtanh": clamp, "clamp_min": clamp,
    "clamp_max": lambda b, x, high: clamp(b, x, None, high), "relu6": lambda b, x: clamp(b, x, 0.0, 6.0),
    "leaky_relu": leaky_relu, "prelu": prelu, "_prelu_kernel": leaky_relu, "elu": elu, "celu": celu,
    "softshrink": softshrink, "rrelu_with_noise_functional": rrelu,
    "selu": lambda b, x: elu(b, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
    "hardsigmoid": hardsigmoid, "hardswish": hardswish,
    "mish": lambda b, x: mul(b, x, b.elementwise("tanh", b.elementwise("softplus", x))),
    "log_sigmoid": lambda b, x: mul(b, softplus(b, mul(b, x, -1)), -1), "threshold": threshold,
    "erfc": lambda b, x: sub(b, 1.0, b.elementwise("erf", x)),
    "tan": lambda b, x: div(b, b.elementwise("sin", x), b.elementwise("cos", x)),
    "sinh": hyperbolic(-1), "cosh": hyperbolic(1), "log2": logarithm(2.0), "log10": logarithm(10.0),
    "exp2": lambda b, x: scalar_power(b, 2.0, x), "expm1": lambda b, x: sub(b, exp(b, x), 1.0),
    "log1p": lambda b, x: b.elementwise("log", add(b, x, 1.0)),
}  # fmt: skip

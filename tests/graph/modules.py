"""One small module for each family of operations that capture supports."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fn(nn.Module):
    """A function of its inputs, with parameters and buffers to use."""

    def __init__(self, function: Callable[..., object], **tensors: Tensor):
        super().__init__()
        self.function = function
        for name, value in tensors.items():
            if value.is_floating_point() and not name.startswith("mask"):
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, *inputs: Tensor, **settings: object):
        return self.function(self, *inputs, **settings)


class Block(nn.Module):
    """Calls in order, each a submodule under its own name."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor):
        for part in self.children():
            x = part(x)
        return x


def real(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def w(*shape: int, seed: int = 2) -> Tensor:
    return real(*shape, seed=seed)[0]


def row(function: Callable[..., object], *inputs: Tensor, **tensors: Tensor) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return Fn(function, **tensors), inputs


V, M, T = real(6), real(4, 6), real(3, 8, 8)
IDS = torch.tensor([[3, 1, 4, 1, 5]])
CAUSAL = torch.ones(5, 5).tril() > 0

UNARY = dict(
    relu=F.relu,
    abs=torch.abs,
    exp=torch.exp,
    tanh=torch.tanh,
    sigmoid=torch.sigmoid,
    erf=torch.erf,
    sin=torch.sin,
    cos=torch.cos,
    gelu=F.gelu,
    gelu_tanh=lambda x: F.gelu(x, approximate="tanh"),
    silu=F.silu,
    softplus=F.softplus,
    softplus_beta=lambda x: F.softplus(x, beta=3),
    relu6=F.relu6,
    leaky=F.leaky_relu,
    elu=F.elu,
    selu=F.selu,
    celu=F.celu,
    celu_alpha=lambda x: F.celu(x, 0.7),
    mish=F.mish,
    hardtanh=F.hardtanh,
    hardsigmoid=F.hardsigmoid,
    hardswish=F.hardswish,
    logsigmoid=F.logsigmoid,
    softsign=F.softsign,
    tanhshrink=F.tanhshrink,
    threshold=lambda x: F.threshold(x, 0.0, 0.0),
    erfc=torch.erfc,
    tan=torch.tan,
    sinh=torch.sinh,
    cosh=torch.cosh,
    expm1=torch.expm1,
    exp2=torch.exp2,
    neg=torch.neg,
    square=torch.square,
    cube=lambda x: x**3,
    high=lambda x: x**18,
    glu=F.glu,
    clamp=lambda x: x.clamp(-0.5, 0.25),
    clamp_one=lambda x: x.clamp(max=0.3),
    power_of=lambda x: 3**x,
    inverse=lambda x: 1 / (x + 7),
    rsub=lambda x: 1 - x,
    half=lambda x: x / 2,
    third=lambda x: x / 3,
    tenth=lambda x: x / 0.1,
    root=lambda x: x / 12**0.5,
    scaled=lambda x: x * 12**-0.5,
    minus=lambda x: -x * 0.3 - 2,
    lerp=lambda x: torch.lerp(x, 2 * x, 0.3),
    addcmul=lambda x: torch.addcmul(x, x, x, value=0.5),
    nothing=lambda x: x + 0,
)
POSITIVE = dict(
    log=torch.log,
    sqrt=torch.sqrt,
    rsqrt=torch.rsqrt,
    reciprocal=torch.reciprocal,
    log2=torch.log2,
    log10=torch.log10,
    log1p=torch.log1p,
    root=lambda x: x**0.5,
    inverse_square=lambda x: x**-2,
    real_power=lambda x: x**1.3,
    three_halves=lambda x: x**1.5,
    cosine=lambda x: F.cosine_similarity(x, x.flip(-1), -1),
    addcdiv=lambda x: torch.addcdiv(x, x, x),
)
REDUCED = dict(
    sum=lambda x: x.sum(-1),
    sum_all=lambda x: x.sum(),
    sum_two=lambda x: x.sum((1, 2)),
    keep=lambda x: x.sum(1, keepdim=True),
    mean=lambda x: x.mean(-1),
    mean_all=torch.mean,
    mean_float=lambda x: x.mean(-1, dtype=torch.float32),
    amax=lambda x: x.amax(-1),
    amin=lambda x: x.amin((1, 2)),
    max=lambda x: x.max(-1)[0],
    max_all=lambda x: x.max(),
    min=lambda x: x.min(1).values,
    both=lambda x: torch.maximum(x, 2 * x.flip(1)),
    less=lambda x: torch.minimum(x, x.flip(1)),
    var=lambda x: x.var(-1),
    std=lambda x: x.std((1, 2)),
    var_all=lambda x: x.var(unbiased=False),
    norm=lambda x: x.norm(dim=-1),
    one_norm=lambda x: torch.linalg.vector_norm(x, 1, -1),
    sup=lambda x: x.norm(math.inf, -1),
    prod=lambda x: x.prod(-1),
    cumsum=lambda x: x.cumsum(1),
    logsumexp=lambda x: x.logsumexp(-1),
    normalize=lambda x: F.normalize(x, dim=-1),
    softmax=lambda x: x.softmax(-1),
    softmax_rows=lambda x: x.softmax(1),
    log_softmax=lambda x: F.log_softmax(x, -1),
    softmin=lambda x: F.softmin(x, -1),
)
MOVED = dict(
    reshape=lambda x: x.reshape(1, -1),
    transpose=lambda x: x.transpose(1, 2).reshape(1, 3, 8),
    flip=lambda x: x.flip(-1),
    slice=lambda x: x[:, 1:, ::2],
    select=lambda x: x[:, -1],
    unfold=lambda x: x.unfold(2, 3, 2),
    roll=lambda x: x.roll(1, -1),
    repeat=lambda x: x.repeat(1, 2, 1),
    tile=lambda x: x.tile(2),
    interleave=lambda x: x.repeat_interleave(2, 1),
    expand=lambda x: x[:, :, None].expand(-1, -1, 3, -1),
    gathered=lambda x: x[:, [2, 0, 3]],
    chunk=lambda x: x.chunk(2, 1)[1],
    split=lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    stack=lambda x: torch.stack([x, 2 * x], -1),
    pad=lambda x: F.pad(x, (1, 2)),
    pad_value=lambda x: F.pad(x, (1, 0), value=2.5),
    reflect=lambda x: F.pad(x, (2, 1), mode="reflect"),
    circular=lambda x: F.pad(x, (2, 1), mode="circular"),
    squeeze=lambda x: x.unsqueeze(1).squeeze(1).movedim(1, 2),
    diagonal=lambda x: x.diagonal(dim1=1, dim2=2),
    unbind=lambda x: x.unbind(1)[2] + x.unflatten(2, (2, 3)).flatten(2)[:, 0],
    assigned=lambda x: _assigned(x),
    shuffle=lambda x: F.pixel_shuffle(x[:, :, :, None], 2),
    clone=lambda x: x.clone().detach(),
    upsample=lambda x: F.interpolate(x, scale_factor=2),
    tril=torch.tril,
    where=lambda x: torch.where(CAUSAL[:4, [0] * 6], x, 2.0),
    rotated=lambda x: torch.cat([-x[..., 3:], x[..., :3]], -1),
    zeros=lambda x: x + torch.zeros_like(x) + torch.arange(6) / 6,
    like=lambda x: x[:, :1].expand_as(x) * x.new_ones(6),
    einsum_diagonal=lambda x: torch.einsum("bii->bi", x[:, :, :4]),
    filled=lambda x: x.masked_fill(CAUSAL[:4, [0, 1, 2, 3, 4, 0]], 0.5),
)


def _assigned(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 0
    x[:, 1:3, 2] = x[:, 2:4, 3]
    x[:, 3] += 1
    return x


def causal(module: nn.Module, x: Tensor, fill: float = -math.inf) -> Tensor:
    scores = x @ x.transpose(1, 2) / x.shape[-1] ** 0.5
    return scores.masked_fill(~CAUSAL[:4, :4], fill).softmax(-1) @ x


def rotary(module: nn.Module, x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * 10.0 ** (-torch.arange(half) / half)
    return torch.cat([x[..., :half] * angle.cos() - x[..., half:] * angle.sin(), x[..., half:] * angle.cos()], -1)


LAYERS = {
    "linear": (nn.Linear(6, 3), (V,)),
    "bilinear": (nn.Bilinear(6, 6, 3), (V, V)),
    "mlp": (nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 2)), (M,)),
    "layer_norm": (nn.LayerNorm(6), (M,)),
    "layer_norm_two_axes": (nn.LayerNorm((4, 6)), (M,)),
    "layer_norm_plain": (nn.LayerNorm(6, elementwise_affine=False, eps=0.1), (M,)),
    "rms_norm": (nn.RMSNorm(6, eps=1e-6), (M,)),
    "rms_norm_default_eps": (nn.RMSNorm(6), (M,)),
    "group_norm": (nn.GroupNorm(2, 4), (M,)),
    "instance_norm": (nn.InstanceNorm1d(4, affine=True), (M,)),
    "batch_norm": (nn.BatchNorm1d(4), (M,)),
    "batch_norm_2d": (nn.BatchNorm2d(3, affine=False), (T,)),
    "conv1d": (nn.Conv1d(4, 3, 2), (M,)),
    "conv1d_same": (nn.Conv1d(4, 3, 3, padding="same"), (M,)),
    "conv2d": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (T,)),
    "conv2d_groups": (nn.Conv2d(3, 6, (2, 3), dilation=2, groups=3, bias=False), (T,)),
    "conv2d_circular": (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), (T,)),
    "max_pool1d": (nn.MaxPool1d(2), (M,)),
    "max_pool2d": (nn.MaxPool2d(3, stride=2, padding=1), (T,)),
    "avg_pool1d": (nn.AvgPool1d(3, stride=1, padding=1), (M,)),
    "avg_pool2d": (nn.AvgPool2d(3, padding=1, count_include_pad=False, ceil_mode=True), (T,)),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d((3, 1)), (T,)),
    "prelu": (nn.PReLU(4), (M,)),
    "embedding": (nn.Embedding(7, 4), (IDS,)),
    "tied": (Block(embed=nn.Embedding(7, 4), unembed=nn.Linear(4, 7, bias=False)), (IDS,)),
    "attention": (Fn(lambda m, x: m.mha(x, x, x)), (M,)),
    "encoder_layer": (nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), (M,)),
    "encoder_norm_first": (
        nn.TransformerEncoderLayer(6, 3, 8, norm_first=True, activation="gelu", batch_first=True),
        (M,),
    ),
    "encoder": (nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2), (M,)),
    "lstm": (nn.LSTM(6, 3, batch_first=True), (M,)),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), (V,)),
    "cnn": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)), (T,)),
}
LAYERS["attention"][0].mha = nn.MultiheadAttention(6, 2, batch_first=True)
LAYERS["tied"][0].unembed.weight = LAYERS["tied"][0].embed.weight
nn.init.uniform_(LAYERS["batch_norm"][0].running_var, 0.5, 2)
nn.init.uniform_(LAYERS["batch_norm"][0].running_mean)
INFINITE = torch.full((4, 4), -math.inf).triu(1)

OTHERS = {
    "matrices": row(lambda m, x: m.a @ x @ m.b, M, a=w(3, 4), b=w(6, 2)),
    "vectors": row(lambda m, x: (x @ m.a)[:, None] @ m.b, M, a=w(6), b=w(1, 4, 2)),
    "addmm": row(lambda m, x: torch.addmm(m.bias, x, m.a, beta=0.5, alpha=2), V, a=w(6, 3), bias=w(3)),
    "outer": row(lambda m, x: torch.outer(x[0], m.a) + torch.dot(x[0], m.a), V, a=w(6)),
    "einsum": row(lambda m, x: torch.einsum("...nd,hde->...hne", x, m.a), M, a=w(2, 6, 3)),
    "einsum_three": row(lambda m, x: torch.einsum("bnd,de,bme->nm", x, m.a, x), M, a=w(6, 6)),
    "einsum_sums": row(lambda m, x: torch.einsum("bnd,e->bn", x, m.a), M, a=w(3)),
    "weights_alone": row(lambda m, x: x @ (m.a @ m.b) + (m.a * 0.1).exp().sum(), V, a=w(6, 3), b=w(3, 2)),
    "two_inputs": row(lambda m, x, y: x * y[:, None] + y.sum(), M, V),
    "rope": row(rotary, M),
    "causal": row(causal, M),
    "finite_mask": row(lambda m, x: causal(m, x, -100.0), M),
    "added_mask": row(lambda m, x: (x @ x.mT + m.mask).softmax(-1), M, mask=INFINITE),
    "scaled_mask": row(lambda m, x: ((x @ x.mT + m.mask) * 0.3 + 1).softmax(-1), M, mask=INFINITE),
    "local_mask": row(
        lambda m, x: torch.where(m.mask, x @ x.mT, -math.inf).softmax(-1), M, mask=torch.ones(4, 4).triu(-1).tril(1) > 0
    ),
    "one_row": row(lambda m, x: (x @ x.mT).masked_fill(torch.arange(4) == 1, -math.inf).softmax(-1), M),
    "transposed_mask": row(
        lambda m, x: (x @ x.mT).masked_fill(m.mask, -math.inf).softmax(1), M, mask=torch.ones(4, 4).tril(-1) > 0
    ),
    "sdpa": row(lambda m, x: F.scaled_dot_product_attention(x, 2 * x, x, is_causal=True), M),
    "sdpa_mask": row(lambda m, x: F.scaled_dot_product_attention(x, x, x, m.mask, scale=0.3), M, mask=CAUSAL[:4, :4]),
    "sdpa_bias": row(lambda m, x: F.scaled_dot_product_attention(x, x, x, m.bias), M, bias=w(4, 4)),
    "sdpa_grouped": row(
        lambda m, x: F.scaled_dot_product_attention(x.view(1, 4, 2, 3), m.k, m.k, enable_gqa=True), M, k=w(1, 2, 5, 3)
    ),
    "one_hot": row(lambda m, t: F.one_hot(t, 7).float() @ m.a, IDS, a=w(7, 2)),
    "indexed": row(lambda m, t: m.a[t] + m.b[t[:, 0]][:, None] + m.c.T[t], IDS, a=w(7, 3), b=w(9, 3), c=w(3, 7)),
    "table_of_weights": row(lambda m, t: F.embedding(t, m.a @ m.b) + (m.a @ m.b)[t], IDS, a=w(7, 2), b=w(2, 3)),
    "shifted_tokens": row(lambda m, t: F.embedding((t + 1) % 7, m.a) + F.embedding(t, m.a), IDS, a=w(7, 3)),
    "tokens_as_numbers": row(lambda m, t: F.embedding(t, m.a) * (t != 2)[..., None] + t[..., None] / 7, IDS, a=w(7, 3)),
    "position_embedding": row(lambda m, t: m.a[t] + m.b[torch.arange(t.shape[1])], IDS, a=w(7, 3), b=w(9, 3)),
    "mixed": row(lambda m, t, x: F.embedding(t, m.a).mean(1) + x, IDS, V, a=w(7, 6)),
    "casts": row(lambda m, x: (x.double().to(torch.float64) * torch.ones(6, dtype=torch.float16)).type_as(x), V),
    "outputs": row(lambda m, x: {"first": x, "second": [2 * x, x.sum()]}, V),
    "outside": row(lambda m, x: x @ M[0].T + 0.5 * M[0, 0, 0], M),
    "no_batch_left": row(lambda m, x: x[0].T, M),
    "plain_attribute": row(lambda m, x: x * m.plain, V),
}
OTHERS["plain_attribute"][0].plain = torch.tensor(0.3)

MODULES = {f"unary {k}": row(lambda m, x, f=f: f(x), M) for k, f in UNARY.items()}
MODULES |= {f"positive {k}": row(lambda m, x, f=f: f(x.abs() + 0.1), M) for k, f in POSITIVE.items()}
MODULES |= {f"reduced {k}": row(lambda m, x, f=f: f(x), M) for k, f in REDUCED.items()}
MODULES |= {f"moved {k}": row(lambda m, x, f=f: f(x), M) for k, f in MOVED.items()}
MODULES |= {f"layer {k}": v for k, v in LAYERS.items()} | OTHERS

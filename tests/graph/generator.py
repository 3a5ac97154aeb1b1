"""Random modules: a few constructs out of more than a hundred, one after another, on vectors, sequences, images, tokens.

All of them treat a batch row by row, so that many samples are computed at once.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from mechverify import capture
from mechverify.claims.errors import ClaimError
from mechverify.graph.capture import Captured
from tests.graph.modules import POSITIVE, UNARY

Shape = tuple[int, ...]  # without the batch axis
MOST = 40  # entries of a value between constructs


class Made(NamedTuple):
    """A module, example inputs with a batch axis of one, the vocabulary of its tokens, and what it is made of."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    vocab: int | None
    parts: list[str]


class Step(nn.Module):
    """A function of one value."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Weighted(nn.Module):
    """A function of one value and a parameter, or a buffer."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], weight: Tensor, learnt: bool = True):
        super().__init__()
        self.function = function
        if learnt:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


class Around(nn.Module):
    """A function of an inner module and a value: residuals, second calls, what a parent writes into its child's
    output."""

    def __init__(self, inner: nn.Module, function: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner, x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.mha, self.causal = nn.MultiheadAttention(width, heads, batch_first=True), causal

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).triu(1) if self.causal else None
        return self.mha(x, x, x, attn_mask=mask, need_weights=False)[0]


class Recurrent(nn.Module):
    """A few steps of a cell, written out."""

    def __init__(self, width: int):
        super().__init__()
        self.cell, self.state = nn.Linear(2 * width, width), width

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0])
        for k in range(x.shape[1]):
            h = torch.tanh(self.cell(torch.cat([x[:, k], h], -1)))
        return h


def residual(inner: nn.Module, x: Tensor) -> Tensor:
    return x + inner(x)


def added_in_place(inner: nn.Module, x: Tensor) -> Tensor:
    h = inner(x)
    h += x
    return h


def child_overwritten(inner: nn.Module, x: Tensor) -> Tensor:
    h = inner(x)
    h -= 2
    return h.relu_() * 0.5


def child_sliced(inner: nn.Module, x: Tensor) -> Tensor:
    h = inner(x)
    h[:, 0] = 0.25
    return h


def called_twice(inner: nn.Module, x: Tensor) -> Tensor:
    return inner(torch.tanh(inner(x)))


def view_written(inner: nn.Module, x: Tensor) -> Tensor:
    h = inner(x).contiguous()
    flat = h.view(len(h), -1)
    flat.mul_(0.5)
    return h + 1


def writes_its_input(inner: nn.Module, x: Tensor) -> Tensor:
    y = inner(x)
    x.mul_(2)
    return y + x


def hooked(inner: nn.Module, x: Tensor) -> Tensor:
    return inner(x)


AROUND = [residual, added_in_place, child_overwritten, child_sliced, called_twice, view_written, writes_its_input,
          hooked]  # fmt: skip


def small(layer: nn.Module) -> nn.Module:
    """Weights of a size that keeps values near one."""
    for p in layer.parameters():
        p.data.mul_(0.9)
    return layer


def noise(*shape: int) -> Tensor:
    return torch.randn(shape)


# Constructs: name -> (which shapes it takes, how it is made for a shape).
ANY = {f"unary {k}": f for k, f in UNARY.items() if k not in ("glu", "high")}
ANY |= {f"positive {k}": (lambda x, f=f: f(x.abs() + 0.3)) for k, f in POSITIVE.items() if k != "cosine"}
ANY |= {
    "scaled": lambda x: x * 0.3,
    "shifted": lambda x: x - 0.7,
    "double and back": lambda x: (x.double() * 1.5).to(x.dtype),
    "integer constants": lambda x: x * torch.arange(1, 3).sum() / 3,
    "where constants": lambda x: torch.where(torch.arange(x.shape[-1]) % 2 == 0, x, 1),
    "boolean mask": lambda x: x * (torch.arange(x.shape[-1]) != 1),
    "own eps": lambda x: x / (x.abs() + 0.5 + torch.finfo(x.dtype).eps),
    "clamped below": lambda x: x.clamp_min(-0.5),
    "both ends": lambda x: torch.minimum(torch.maximum(x, x * 0 - 1), x * 0 + 1),
    "in place": lambda x: x.mul(0.5).add_(1).clamp_(0, 1),
    "logaddexp": lambda x: torch.logaddexp(x, 0.5 * x),
    "hypotenuse": lambda x: torch.sqrt(x * x + 1),
    "rational": lambda x: x / (1 + x**2),
    "full like": lambda x: x + torch.full_like(x, 0.25),
    "cat halves": lambda x: torch.cat([x[..., 1:], x[..., :1]], -1),
    "roll": lambda x: x.roll(1, -1),
    "flip": lambda x: x.flip(-1),
    "stacked mean": lambda x: torch.stack([x, x.tanh()], 0).mean(0),
    "softmax": lambda x: x.softmax(-1),
    "log softmax": lambda x: F.log_softmax(x, -1),
    "softmin": lambda x: F.softmin(x, -1),
    "normalised": lambda x: F.normalize(x + 2, dim=-1),
    "centred": lambda x: x - x.mean(-1, keepdim=True),
    "over the largest": lambda x: x - x.amax(-1, keepdim=True),
    "cumulative": lambda x: x.cumsum(-1) / x.shape[-1],
    "assigned": lambda x: assigned(x),
}  # fmt: skip
ROWS = {  # of [n, d], n and d at least 2
    "sum rows": lambda x: x.sum(1),
    "mean rows": lambda x: x.mean(1),
    "mean last": lambda x: x.mean(-1),
    "largest row": lambda x: x.amax(1),
    "smallest": lambda x: x.amin(-1),
    "max values": lambda x: x.max(-1).values,
    "min values": lambda x: x.min(1)[0],
    "variance": lambda x: x.var(-1),
    "deviation": lambda x: (x + torch.arange(x.shape[-1])).std(-1),
    "norm": lambda x: (x + 2).norm(dim=-1),
    "one norm": lambda x: torch.linalg.vector_norm(x, 1, -1),
    "sup norm": lambda x: x.norm(math.inf, -1),
    "product": lambda x: x[:, :, :3].prod(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "transposed": lambda x: x.transpose(1, 2),
    "flattened": lambda x: x.flatten(1),
    "first row": lambda x: x[:, 0],
    "last row": lambda x: x[:, -1],
    "strided": lambda x: x[:, ::2],
    "chosen": lambda x: x[:, [1, 0]],
    "chunk": lambda x: x.chunk(2, -1)[0],
    "split": lambda x: torch.cat(x.split(1, 1)[::-1], 1),
    "unbind": lambda x: x.unbind(1)[1] - x.unbind(1)[0],
    "repeat": lambda x: x[:, :2].repeat(1, 2, 1),
    "padded": lambda x: F.pad(x, (1, 1), value=0.5),
    "unfold": lambda x: x.unfold(2, 2, 1).sum(-1),
    "diagonal": lambda x: x.diagonal(dim1=1, dim2=2),
    "gram": lambda x: x @ x.mT / x.shape[-1],
    "einsum": lambda x: torch.einsum("bnd,bmd->bnm", x, x.tanh()) / x.shape[-1],
    "lower": lambda x: x.tril(),
    "upper": lambda x: torch.triu(x, 1),
    "self attention": lambda x: (x @ x.mT).softmax(-1) @ x,
    "causal attention": lambda x: causal(x),
    "sdpa": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "sdpa masked": lambda x: F.scaled_dot_product_attention(
        x, x, x, torch.ones(x.shape[1], x.shape[1]).triu(-1).bool()
    ),
    "cosines": lambda x: F.cosine_similarity(x[:, 0] + 3, x[:, 1] + 3, -1)[:, None],
    "expanded": lambda x: x[:, :1].expand_as(x) * x,
    "lerp rows": lambda x: torch.lerp(x[:, 0], x[:, 1], 0.3),
    "addcmul": lambda x: torch.addcmul(x[:, 0], x[:, 1], x[:, 0], value=0.5),
    "rotary": lambda x: rotary(x),
}  # fmt: skip
IMAGES = {  # of [c, h, w], h and w at least 3
    "image mean": lambda x: x.mean((2, 3)),
    "image max": lambda x: x.amax((2, 3)),
    "flat image": lambda x: x.flatten(1),
    "rows of image": lambda x: x.flatten(2),
    "image flip": lambda x: x.flip(-1, -2),
    "image crop": lambda x: x[:, :, 1:, :-1],
    "image pad": lambda x: F.pad(x, (1, 0, 0, 1)),
    "image reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :1],
    "image upsample": lambda x: F.interpolate(x[:, :1], scale_factor=2),
    "channels last": lambda x: x.permute(0, 2, 3, 1).mean(1),
}


def assigned(x: Tensor) -> Tensor:
    x = x.clone()
    x[..., 0] = 0.5
    x[..., 1] += x[..., 0]
    return x


def causal(x: Tensor) -> Tensor:
    n = x.shape[1]
    scores = x @ x.mT / x.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones(n, n).triu(1) > 0, -math.inf).softmax(-1) @ x


def rotary(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * 10.0 ** (-torch.arange(half) / half)
    return torch.cat([x[..., :half] * angle.cos() - x[..., half : 2 * half] * angle.sin(), x[..., half:]], -1)


def layers(shape: Shape, rng: random.Random) -> dict[str, Callable[[], nn.Module]]:
    """Those with weights, and torch's own layers, for that shape."""
    d, out = shape[-1], rng.randint(2, 5)
    found: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(d, out),
        "linear without bias": lambda: nn.Linear(d, out, bias=False),
        "weight norm": lambda: weight_norm(nn.Linear(d, out)),
        "relu in place": lambda: nn.Sequential(nn.Linear(d, out), nn.ReLU(inplace=True)),
        "hardtanh in place": lambda: nn.Sequential(nn.Linear(d, out), nn.Hardtanh(inplace=True), nn.Linear(out, 3)),
        "silu in place": lambda: nn.Sequential(nn.Identity(), nn.Linear(d, d), nn.SiLU(inplace=True)),
        "mlp": lambda: nn.Sequential(nn.Linear(d, 6), nn.GELU(), nn.Dropout(0.1), nn.Linear(6, out)),
        "layer norm": lambda: nn.LayerNorm(d),
        "rms norm": lambda: nn.RMSNorm(d),
        "rms norm eps": lambda: nn.RMSNorm(d, eps=1e-3),
        "softplus": lambda: nn.Softplus(beta=rng.choice([1, 2])),
        "leaky": lambda: nn.LeakyReLU(0.1),
        "threshold": lambda: nn.Threshold(0.1, 0.1),
        "bilinear": lambda: Weighted(lambda x, w: torch.einsum("...i,oij,...j->...o", x, w, x), 0.3 * noise(out, d, d)),
        "times weights": lambda: Weighted(lambda x, w: x * w, noise(d)),
        "weights alone": lambda: Weighted(lambda x, w: x @ (w @ w.T) / d, 0.5 * noise(d, d)),
        "integer buffer": lambda: Weighted(lambda x, w: x * w, torch.arange(d, dtype=torch.int32), False),
        "byte buffer": lambda: Weighted(lambda x, w: x * (w + w) / 50, torch.full((d,), 150, dtype=torch.uint8), False),
        "masked weights": lambda: Weighted(lambda x, w: x * (w > 0), noise(d), False),
        "half buffer": lambda: Weighted(lambda x, w: x * w.to(x.dtype), noise(d).half(), False),
    }  # fmt: skip
    if d % 2 == 0:
        found["glu"] = lambda: nn.GLU()
    if len(shape) == 2:
        n = shape[0]
        found |= {
            "conv1d": lambda: nn.Conv1d(n, out, min(d, rng.choice([1, 2, 3]))),
            "conv1d same": lambda: nn.Conv1d(n, out, 3, padding="same"),
            "conv1d strided": lambda: nn.Conv1d(n, out, 2, stride=2),
            "conv1d groups": lambda: nn.Conv1d(n, n, 2, padding=1, groups=n, bias=False),
            "group norm": lambda: nn.GroupNorm(1, n),
            "instance norm": lambda: nn.InstanceNorm1d(n, affine=True),
            "batch norm": lambda: nn.BatchNorm1d(n),
            "max pool": lambda: nn.MaxPool1d(2),
            "avg pool": lambda: nn.AvgPool1d(2, stride=1),
            "prelu": lambda: nn.PReLU(n),
            "attention": lambda: Attention(d, 1, False),
            "causal mha": lambda: Attention(d, 1, True),
            "encoder layer": lambda: nn.TransformerEncoderLayer(d, 1, 5, batch_first=True),
            "encoder norm first": lambda: nn.TransformerEncoderLayer(
                d, 1, 4, batch_first=True, norm_first=True, activation="gelu"
            ),
            "recurrent": lambda: Recurrent(d),
            "flatten": lambda: nn.Flatten(),
            "position": lambda: Weighted(lambda x, w: x + w[: x.shape[1]], noise(n + 2, d)),
        }  # fmt: skip
    if len(shape) == 3:
        c = shape[0]
        found |= {
            "conv2d": lambda: nn.Conv2d(c, out, rng.choice([1, 2, 3])),
            "conv2d padded": lambda: nn.Conv2d(c, 2, 3, padding=1, stride=2),
            "conv2d depthwise": lambda: nn.Conv2d(c, c, (2, 3), groups=c),
            "conv2d dilated": lambda: nn.Conv2d(c, 2, 2, dilation=2),
            "conv2d circular": lambda: nn.Conv2d(c, 1, 3, padding=1, padding_mode="circular"),
            "batch norm 2d": lambda: nn.BatchNorm2d(c),
            "max pool 2d": lambda: nn.MaxPool2d(2),
            "avg pool 2d": lambda: nn.AvgPool2d(2, padding=1),
            "adaptive pool": lambda: nn.AdaptiveAvgPool2d((2, 1)),
        }
        for name in ("layer norm", "rms norm", "rms norm eps"):
            del found[name]
    return found


def constructs() -> set[str]:
    """The names of all."""
    rng = random.Random(0)
    names = {name for shape in ((4,), (3, 4), (2, 4, 4)) for name in layers(shape, rng)}
    return names | ANY.keys() | ROWS.keys() | IMAGES.keys() | {f.__name__ for f in AROUND} | set(READS)


# --- what reads the tokens


class Reads(nn.Module):
    """Tokens [batch, length] as [batch, length, width]."""

    def __init__(self, function: Callable[..., Tensor], vocab: int, width: int):
        super().__init__()
        self.function, self.vocab = function, vocab
        self.table, self.embed = nn.Parameter(noise(vocab + 3, width)), nn.Embedding(vocab, width)

    def forward(self, t: Tensor) -> Tensor:
        return self.function(self, t)


READS = {
    "embedding": lambda m, t: m.embed(t.long()),
    "functional embedding": lambda m, t: F.embedding(t.long(), m.table),
    "indexed table": lambda m, t: m.table[t.long()],
    "shifted ids": lambda m, t: m.embed(((t + 1) % m.vocab).long()),
    "one hot": lambda m, t: F.one_hot(t.long(), m.vocab).to(m.table.dtype) @ m.table[: m.vocab],
    "clamped ids": lambda m, t: m.embed(t.clamp(max=2).long()),
    "squared ids": lambda m, t: m.embed(((t * t) % m.vocab).long()),
    "ids as numbers": lambda m, t: m.embed(t.long()) * (t.to(m.table.dtype)[..., None] / 7),
    "ids compared": lambda m, t: m.embed(t.long()) * (t != 1)[..., None],
    "halved ids": lambda m, t: m.embed(torch.div(t, 2, rounding_mode="floor").long()),
    "wrapping ids": lambda m, t: m.table[((t + 250).long() % m.vocab)],
    "tied": lambda m, t: m.embed(t.long()) @ m.embed.weight[:4].T,
}


class Chain(nn.Module):
    """Steps one after another, each a submodule; `reads`: how the tokens become real numbers, to which a further real
    input is added where there is one."""

    def __init__(self, steps: list[nn.Module], reads: nn.Module | None):
        super().__init__()
        self.reads = reads
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = x if self.reads is None else self.reads(x)
        return self.steps(x if y is None else x + y)


def random_module(seed: int) -> Made:
    """Of two to six constructs; the same for the same seed."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind = rng.choice(["vector", "rows", "rows", "image", "tokens", "tokens", "mixed"])
    parts, reads, vocab = [], None, None
    shape: Shape = {"vector": (rng.randint(3, 6),), "image": (rng.randint(1, 2), 4, 5)}.get(
        kind, (rng.randint(2, 4), rng.choice([4, 5, 6]))
    )
    inputs: tuple[Tensor, ...] = (torch.randn(1, *shape),)
    if kind in ("tokens", "mixed"):
        name, vocab = rng.choice(list(READS)), rng.randint(4, 7)
        reads = Reads(READS[name], vocab, shape[-1])
        dtype = rng.choice([torch.int64, torch.int64, torch.int32, torch.uint8])
        ids = torch.randint(vocab, (1, shape[0]), dtype=dtype)
        shape = (shape[0], 4) if name == "tied" else shape
        inputs = (ids, torch.randn(1, *shape)) if kind == "mixed" else (ids,)
        parts.append(f"{name} of {str(dtype).removeprefix('torch.')}")
    steps: list[nn.Module] = []
    wanted = rng.randint(2, 6)
    while len(steps) < wanted:
        name, step = _construct(shape, rng)
        new = _shape_after(step, shape)
        if new is None or math.prod(new) > MOST or math.prod(new) == 0:
            continue
        steps.append(step)
        parts.append(name)
        shape = new
    module = Chain(steps, reads).eval()
    return Made(module, inputs, vocab, parts)


def _construct(shape: Shape, rng: random.Random) -> tuple[str, nn.Module]:
    plain = dict(ANY)
    if len(shape) == 2 and min(shape) >= 2:
        plain |= ROWS
    if len(shape) == 3 and min(shape[1:]) >= 3:
        plain |= IMAGES
    weighted = layers(shape, rng)
    if rng.random() < 0.5:
        name = rng.choice([n for n in plain if rng.random() < 0.5 or n not in ANY] or list(plain))
        step: nn.Module = Step(plain[name])
    else:
        name = rng.choice(list(weighted))
        step = small(weighted[name]())
    if rng.random() < 0.2:
        around = rng.choice(AROUND)
        if around is hooked:
            step.register_forward_hook(lambda m, args, out: out * 0.5)
        name, step = f"{around.__name__}({name})", Around(step, around)
    return name, step.eval()


def _shape_after(step: nn.Module, shape: Shape) -> Shape | None:
    """None where the construct doesn't take the shape, or doesn't treat a batch row by row."""
    x = torch.rand(3, *shape)
    try:
        with torch.no_grad():
            whole, alone = step(x.clone()), step(x[1:2].clone())
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return None
    same = whole.shape[0] == 3 and torch.allclose(whole[1:2], alone, rtol=1e-3, atol=1e-3)
    return tuple(whole.shape[1:]) if same and whole.ndim > 1 else None


def captured_on_tokens(seeds: int, inputs: int) -> Iterator[tuple[Captured, np.ndarray]]:
    """Those random modules that read tokens alone and can be captured, each with random inputs [inputs, length]."""
    for seed in range(seeds):
        made = random_module(seed)
        if made.vocab is None or len(made.inputs) > 1:
            continue
        try:
            model = capture(made.module, *made.inputs, vocab=made.vocab).captured
        except ClaimError:
            continue
        yield model, np.random.default_rng(seed).integers(0, made.vocab, (inputs, model.tokens_length))

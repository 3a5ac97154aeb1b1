"""Constructs that people write, each captured and proved, or refused in one clear message."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.graph.modules import IDS, INFINITE, Fn, M, T, V, real, w


class Case(NamedTuple):
    module: nn.Module
    inputs: tuple[Tensor, ...]
    vocab: int | None = None
    radius: float = 0.05


def sparsemax(m: nn.Module, z: Tensor) -> Tensor:
    """As in the paper: by the number of entries that aren't zero (Martins and Astudillo 2016, algorithm 1)."""
    ordered = z.sort(-1, descending=True).values
    counts = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    support = 1 + counts * ordered > ordered.cumsum(-1)
    threshold = ((ordered * support).sum(-1, keepdim=True) - 1) / support.sum(-1, keepdim=True).to(z.dtype)
    return (z - threshold).relu()


def case(function: Callable | nn.Module, *inputs: Tensor, vocab: int | None = None, radius: float = 0.05,
         **tensors: Tensor) -> Case:  # fmt: skip
    module = function if isinstance(function, nn.Module) else Fn(function, **tensors)
    return Case(module.eval(), inputs, vocab, radius)


class Attends(nn.Module):
    """nn.MultiheadAttention with itself, and settings of the call."""

    def __init__(self, call: dict[str, Any] | None = None, **settings: Any):
        super().__init__()
        self.mha, self.call = nn.MultiheadAttention(6, 2, batch_first=True, **settings), call or {}

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x, **self.call)[0]


class Inner(nn.Module):
    """Calls `function(inner, *inputs)`."""

    def __init__(self, inner: nn.Module, function: Callable):
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self.inner, *inputs)


class WritesItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x += 1
        x[:, 0] = 0
        return 2 * x


def pruned() -> nn.Module:
    layer = nn.Linear(6, 3)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def called(module: nn.Module, x: Tensor) -> nn.Module:
    """After a call, which leaves computed tensors behind."""
    module(x)
    return module


MASK = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]]) > 0  # a row without any
LATER = torch.ones(4, 4).triu(1) > 0
SQUARE = w(4, 4)
CUBE = real(2, 4, 4, 4)
HEADS = torch.stack([torch.ones(4, 4).tril(), torch.ones(4, 4), torch.eye(4)]) > 0

torch.manual_seed(0)
CONVOLUTIONS: dict[str, Case] = {}
for n, x in ((1, real(4, 9)), (2, T), (3, CUBE)):
    conv, turned, c = getattr(nn, f"Conv{n}d"), getattr(nn, f"ConvTranspose{n}d"), x.shape[1]
    CONVOLUTIONS |= {
        f"conv{n}d": case(conv(c, 3, 3), x),
        f"conv{n}d strided": case(conv(c, 3, 3, stride=2, padding=1), x),
        f"conv{n}d dilated": case(conv(c, 4, 2, dilation=2), x),
        f"conv{n}d grouped": case(conv(c, 2 * c, 2, groups=c), x),
        f"conv{n}d same": case(conv(c, 2, 3, padding="same"), x),
        f"conv{n}d reflected": case(conv(c, 2, 3, padding=1, padding_mode="reflect"), x),
        f"conv{n}d without batch": case(conv(c, 2, 3), x[0]),
        f"transposed conv{n}d": case(turned(c, 2, 2, stride=2, output_padding=1), x[(..., *[slice(2)] * n)]),
    }
CONVOLUTIONS |= {
    "transposed conv grouped": case(nn.ConvTranspose1d(4, 6, 3, groups=2, dilation=2), M),
    "transposed conv padded": case(nn.ConvTranspose1d(4, 2, 2, padding=1, stride=3), M),
    "transposed conv without batch": case(nn.ConvTranspose2d(3, 2, 3, bias=False), T[0]),
    "convolution of a weight": case(lambda m, x: F.conv1d(m.a, x), real(4, 3), a=w(1, 4, 8)),
    "unfold": case(nn.Unfold(3), T), "fold": case(nn.Fold((4, 4), 2), real(8, 9)),
}  # fmt: skip
POOLS = {
    "max pool 1d": case(nn.MaxPool1d(3, 2, 1, ceil_mode=True), M),
    "max pool 2d": case(nn.MaxPool2d(3, 2, 1, dilation=2), T),
    "max pool 3d": case(nn.MaxPool3d(2), CUBE),
    "average pool 1d": case(nn.AvgPool1d(3, 1, 1), M), "average pool 3d": case(nn.AvgPool3d(2), CUBE),
    "average pool, own divisor": case(nn.AvgPool2d(2, divisor_override=3), T),
    "adaptive max pool 1d": case(nn.AdaptiveMaxPool1d(4), M),
    "adaptive max pool 2d": case(nn.AdaptiveMaxPool2d((3, 2)), T),
    "adaptive average pool 1d": case(nn.AdaptiveAvgPool1d(4), M),
    "adaptive average pool 3d": case(nn.AdaptiveAvgPool3d(2), CUBE),
    "local response norm": case(nn.LocalResponseNorm(2), T),
    **{f"pad {mode}": case(lambda m, x, mode=mode: F.pad(x, (1, 1, 2, 0), mode=mode), T)
       for mode in ("constant", "reflect", "replicate", "circular")},
    "pad negative": case(lambda m, x: F.pad(x, (-1, 1)), M),
    **{f"interpolate {mode}": case(lambda m, x, mode=mode: F.interpolate(x, scale_factor=2, mode=mode), real(2, 3, 4))
       for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")},
    "interpolate to a size": case(lambda m, x: F.interpolate(x, size=(5, 3), mode="bilinear", align_corners=True),
                                  real(2, 3, 4)),
}  # fmt: skip
LOGITS = {
    "logsumexp of 1e4 x": case(lambda m, x: (1e4 * x).logsumexp(-1), V),
    "log_softmax of 1e4 x": case(lambda m, x: F.log_softmax(1e4 * x, -1), V),
    "log_softmax, gap 36": case(lambda m, x: F.log_softmax(torch.cat([x, x + 36], -1), -1), V),
    "log_softmax, gap 800": case(lambda m, x: F.log_softmax(torch.cat([x, x + 800], -1), -1), V),
    "log of softmax, gap 36": case(lambda m, x: torch.cat([x, x + 36], -1).softmax(-1).log(), V),
    "logsumexp of two axes": case(lambda m, x: x.logsumexp((1, 2)), M),
    "logsumexp, masked": case(lambda m, x: torch.where(m.mask, x, -math.inf).logsumexp(-1), M,
                              mask=torch.ones(4, 6).tril() > 0),
    "logsumexp, a row masked": case(lambda m, x: torch.where(m.mask, x, -math.inf).logsumexp(-1)[:, 1:], M,
                                    mask=torch.ones(4, 6).tril(-1) > 0),
    "log_softmax, masked": case(lambda m, x: torch.where(m.mask, x, -math.inf).log_softmax(-1)[:, 1:, :2], M,
                                mask=torch.ones(4, 6).tril() > 0),
    "logaddexp": case(lambda m, x: torch.logaddexp(x, 300 * x), V),
    "logcumsumexp": case(lambda m, x: (100 * x).logcumsumexp(-1), V),
    "cross entropy": case(lambda m, x: F.cross_entropy(50 * x, m.t), V, t=torch.tensor([2])),
    "cross entropy, each": case(lambda m, x: F.cross_entropy(x[0], m.t, reduction="none"), M,
                                t=torch.tensor([2, 0, 1, 5])),
    "cross entropy, smoothed": case(lambda m, x: F.cross_entropy(x, m.t, label_smoothing=0.1), V, t=torch.tensor([2])),
    "cross entropy, soft": case(lambda m, x: F.cross_entropy(x, m.t), V, t=w(1, 6).softmax(-1)),
    "binary cross entropy": case(lambda m, x: F.binary_cross_entropy_with_logits(99 * x, m.a), V, a=w(1, 6).sigmoid()),
    "huber": case(lambda m, x: F.huber_loss(x, m.a, delta=0.7, reduction="sum"), V, a=w(1, 6), radius=1.0),
    "smooth l1": case(lambda m, x: F.smooth_l1_loss(x, m.a, beta=0.5, reduction="none"), V, a=w(1, 6)),
}  # fmt: skip
ATTENTION = {
    "attention": case(Attends(), M), "attention without weights": case(Attends({"need_weights": False}), M),
    "attention, biased keys": case(Attends(add_bias_kv=True), M),
    "attention, a zero key": case(Attends(add_zero_attn=True), M),
    "attention, causal": case(Attends({"attn_mask": LATER, "is_causal": True}), M),
    "attention, a mask a head": case(Attends({"attn_mask": torch.stack([LATER, ~MASK & False])}), M),
    "attention, padding": case(Attends({"key_padding_mask": torch.tensor([[0, 0, 0, 1]]) > 0}), M),
    "attention without batch": case(Attends(), M[0]),
    "attention to other sizes": case(
        Inner(nn.MultiheadAttention(6, 2, kdim=5, vdim=5, batch_first=True), lambda m, x, y: m(x, y, y)[0]),
        M, real(3, 5)),
    "encoder layer": case(nn.TransformerEncoderLayer(6, 2, 8, norm_first=True, batch_first=True, activation="gelu"), M),
    "decoder layer": case(Inner(nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), lambda m, x, y: m(x, y)),
                          M, real(3, 6)),
    "masked rows, booleans": case(lambda m, x: F.scaled_dot_product_attention(x, x, x, m.mask), M, mask=MASK),
    "masked rows, infinities": case(lambda m, x: F.scaled_dot_product_attention(x, x, x, m.mask), M,
                                    mask=torch.zeros(4, 4).masked_fill(~MASK, -math.inf)),
    "masks differ between heads": case(
        lambda m, x: (x[:, None] @ x[:, None].mT).expand(1, 3, 4, 4).masked_fill(~m.mask, -math.inf).softmax(-1), M,
        mask=HEADS),
    "masks differ, two axes": case(
        lambda m, x: (x[:, None, None] @ x.mT).expand(1, 2, 3, 4, 4).masked_fill(~m.mask, -math.inf).softmax(-1), M,
        mask=HEADS),
}  # fmt: skip
TOKENS = {
    "W[ids - 1]": case(lambda m, t: m.a[t - 1], IDS, a=w(7, 3), vocab=7),
    "W[:, ids]": case(lambda m, t: m.a[:, t], IDS, a=w(3, 7), vocab=7),
    "W[:, ids, :]": case(lambda m, t: m.a[:, t - 2, :], IDS, a=w(3, 7, 2), vocab=7),
    "(W V)[:, ids]": case(lambda m, t: (m.a @ m.b)[:, t], IDS, a=w(3, 4), b=w(4, 7), vocab=7),
    "one_hot": case(lambda m, t: F.one_hot(t, 9).float(), IDS),
    "table of indices": case(lambda m, t: m.a[m.i[t]], IDS, a=w(3, 2), i=torch.tensor([0, 1, 2, 0, 1, 2, 0])),
    "padding_idx": case(nn.Embedding(7, 3, padding_idx=0), IDS),
    "tokens without batch": case(nn.Sequential(nn.Embedding(7, 3), nn.Flatten(0), nn.Linear(15, 2)), IDS[0]),
}  # fmt: skip
SCATTERED = {
    "scatter": case(lambda m, x: torch.zeros(1, 8).scatter(1, m.i, x), V, i=torch.tensor([[0, 2, 3, 4, 5, 7]])),
    "scatter a number": case(lambda m, x: torch.scatter(x, 1, m.i, 2.5), V, i=torch.tensor([[0, 2]])),
    "scatter_add": case(lambda m, x: torch.zeros(1, 8).scatter_add(1, m.i, x), V, i=torch.tensor([[0, 2, 3, 4, 4, 7]])),
    "scatter_add a part": case(lambda m, x: x.scatter_add(1, m.i, 2 * x), M,
                               i=torch.tensor([[[0, 2, 3, 1, 1, 1], [0, 0, 0, 0, 0, 0]]])),
    "index_add": case(lambda m, x: torch.zeros(1, 8).index_add(1, m.i, x), V, i=torch.tensor([0, 2, 3, 4, 4, 7])),
    "gather": case(lambda m, x: x.gather(1, m.i), M, i=torch.tensor([[[0, 1, 2, 3, 0, 1]]])),
    "index_select": case(lambda m, x: x.index_select(1, m.i), M, i=torch.tensor([1, 3])),
    "negative index": case(lambda m, x: x[:, m.i], M, i=torch.tensor([-1, -3])),
    "boolean index": case(lambda m, x: x[:, m.i], M, i=torch.tensor([True, False, True, True])),
    "two indices": case(lambda m, x: x[:, m.i, m.i], M, i=torch.tensor([1, 3])),
    "cat with nothing": case(lambda m, x: torch.cat([x[:, :0], x], 1), M),
    "block_diag": case(lambda m, x: torch.block_diag(x[0], m.a), M, a=w(2, 2)),
    "cumprod": case(lambda m, x: x.cumprod(-1), M), "cummax": case(lambda m, x: x.cummax(1)[0], M),
    "sort": case(lambda m, x: x.sort()[0], M), "sort down": case(lambda m, x: x.sort(0, descending=True).values, M),
    "sort, stable": case(lambda m, x: torch.sort(x, stable=True, dim=-1)[0], M), "msort": case(lambda m, x: x.msort(), M),
    "topk": case(lambda m, x: x.topk(2)[0], M), "topk, least": case(lambda m, x: x.topk(2, 1, largest=False)[0], M),
    "kthvalue": case(lambda m, x: x.kthvalue(2, -1, keepdim=True)[0], M),
    "median of an axis": case(lambda m, x: x.median(-1)[0], M),
    **{f"comparison {name}": case(lambda m, x, f=f: torch.where(f(x, x.flip(-1)), x, 2 * x + 1), M)
       for name, f in (("gt", torch.gt), ("ge", torch.ge), ("lt", torch.lt), ("le", torch.le), ("eq", torch.eq), ("ne", torch.ne))},
    "atan": case(lambda m, x: x.atan() + torch.arctan(2 * x), V), "hardshrink": case(nn.Hardshrink(), M),
    "truth values": case(lambda m, x: ((x > 0) & ~(x > m.a) | (x < -1)).float() * x, V, a=w(6)),
    "exclusive or": case(lambda m, x: torch.where((x > 0) ^ (x > m.a), x, 0.95 * x), V, a=w(6)),
    "any and all": case(lambda m, x: torch.where((x > 0).any(-1, keepdim=True), x, (x > -1).all(-1, keepdim=True)), M),
    "counted": case(lambda m, x: (x > 0).sum(-1).float(), M), "masked": case(lambda m, x: x.masked_fill(x < 0, 0.5), M),
    "tokens compared": case(lambda m, t: torch.where(t[:, 1:] == t[:, :-1], m.a[t[:, 1:]], 0.0), IDS, vocab=7, a=w(7)),
    "tokens of which": case(lambda m, t: torch.where((t > 2)[..., None], m.a[t], -m.a[t]), IDS, vocab=7, a=w(7, 2)),
    "sparsemax, by its support": case(sparsemax, M), "max of an axis": case(lambda m, x: x.max(1)[0] - x.amin((1, 2)), M),
    "cummin": case(lambda m, x: x.cummin(1)[0], M), "cumsum": case(lambda m, x: x.cumsum(-1), M),
    "roll": case(lambda m, x: x.roll((1, 2), (1, 2)), M), "flip": case(lambda m, x: x.flip((1, 2)), M),
    "var_mean": case(lambda m, x: sum(torch.var_mean(x, -1)), M), "addmv": case(
        lambda m, x: torch.addmv(m.b, m.a, x[0]), V, a=w(3, 6), b=w(3)),
    "einsum, capitals": case(lambda m, x: torch.einsum("BND,De->BNe", x, m.a), M, a=w(6, 3)),
    "einsum, 3 operands": case(lambda m, x: torch.einsum("bij,jK,Kl->bil", x, m.a, m.b), M, a=w(6, 2), b=w(2, 3)),
    "constants of one number": case(lambda m, x: x * (m.a * m.b), V, a=torch.zeros(1, 6), b=torch.zeros(6)),
}  # fmt: skip
FUNCTIONS = {
    "softshrink": case(nn.Softshrink(), V, radius=2.0), "rrelu": case(nn.RReLU(), M), "glu": case(nn.GLU(), M),
    "prelu": case(nn.PReLU(4), M), "hardswish": case(nn.Hardswish(), M), "bilinear": case(nn.Bilinear(6, 6, 3), V, V),
    "group norm": case(nn.GroupNorm(3, 6), real(6, 4)), "rms norm": case(nn.RMSNorm((4, 6)), M),
    "cosine similarity": case(lambda m, x: F.cosine_similarity(x, m.a, -1), M, a=w(6)),
    "lstm": case(nn.LSTM(6, 3, bidirectional=True, batch_first=True), M), "gru": case(nn.GRU(6, 3), M),
}  # fmt: skip
HOLDERS = {
    "writes its input": case(WritesItsInput(), V),
    "pruned": case(pruned(), V), "pruned, called": case(called(pruned(), V), V),
    "spectral norm": case(parametrizations.spectral_norm(nn.Linear(6, 3)), V),
    "compiled": case(torch.compile(nn.Linear(6, 3)), V), "data parallel": case(nn.DataParallel(nn.Linear(6, 3)), V),
    "a vector": case(nn.Linear(6, 3), V[0]), "a matrix": case(nn.Linear(6, 3), M[0]),
    "a batch, and none": case(lambda m, x, y: x @ y, M, V[0]),
}  # fmt: skip
CAPTURED = CONVOLUTIONS | POOLS | LOGITS | ATTENTION | TOKENS | SCATTERED | FUNCTIONS | HOLDERS


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(nn.Linear(6, 3).eval()))


# what the message must say: the construct, and what to do
REFUSED: dict[str, tuple[Case, str]] = {
    "inverse": (case(lambda m, x: torch.linalg.inv(m.a) @ x, M, a=SQUARE), "compute it once and keep the result"),
    "inverse of an input": (case(lambda m, x: torch.linalg.inv(x[:, :, :4]), M), "linalg_inv_ex"),
    "solve": (case(lambda m, x: torch.linalg.solve(m.a, x[0]), M, a=SQUARE), "compute it once"),
    "pinv": (case(lambda m, x: torch.linalg.pinv(m.a) @ x, M, a=SQUARE), "compute it once"),
    "cholesky": (case(lambda m, x: torch.linalg.cholesky(m.a @ m.a.T) @ x, M, a=SQUARE), "compute it once"),
    "svd": (case(lambda m, x: torch.linalg.svdvals(x), M), "no row for it"),
    "det": (case(lambda m, x: torch.linalg.det(x[:, :, :4]), M), "no row for it"),
    "orthogonal": (case(parametrizations.orthogonal(nn.Linear(6, 3)), V), "remove_parametrizations"),
    "script": (case(scripted(), V), "capture the module that torch.jit.script"),
    "trace": (Case(torch.jit.trace(nn.Linear(6, 3).eval(), V), (V,)), "capture the module that torch.jit.script"),
    "ids out of the table": (case(lambda m, t: m.a[t - 9], IDS.clamp(2), a=w(7, 3), vocab=7), "the table has 7 rows"),
    "embedding of ids - 1": (case(lambda m, t: F.embedding(t - 1, m.a), IDS, a=w(7, 3), vocab=7), "become -1 to 5"),
    "two token indices": (case(lambda m, t: m.a[t[:, 0], t[:, 1]], IDS, a=w(7, 7), vocab=7), "one axis at a time"),
    "rows of an input": (case(lambda m, t, x: x[0][t], IDS.clamp(max=3), M, vocab=4), "multiply by one_hot"),
    "gather by tokens": (case(lambda m, t, x: x.gather(1, t), IDS, V, vocab=6), "multiply by one_hot"),
    "one_hot without classes": (case(lambda m, t: F.one_hot(t).float(), IDS, vocab=7), "give num_classes"),
    "max_norm": (case(nn.Embedding(7, 3, max_norm=1.0), IDS), "then set max_norm=None"),
    "embedding bag": (case(nn.EmbeddingBag(7, 3), IDS, vocab=7), "use nn.Embedding"),
    "a batch of ids": (case(nn.Embedding(7, 3), torch.zeros(2, 5, dtype=torch.long)), "one sequence"),
    "an empty example": (case(lambda m, x: x, torch.zeros(1, 0)), "is empty"),
    "returns nothing": (case(lambda m, x: None, V), "returns no tensor"),
    "returns tokens": (case(lambda m, t: t + 1, IDS, vocab=7), "token ids can only be embedded"),
    "returns an empty tensor": (case(lambda m, x: x[:, :0], V), "without entries"),
    "complex": (case(lambda m, x: torch.exp(1j * x).real, V), "complex numbers"),
    "fft": (case(lambda m, x: torch.fft.rfft(x).real, V), "complex numbers"),
    "softmax, a row masked": (case(lambda m, x: (x + INFINITE[0, 1]).softmax(-1), V), "masks all entries"),
    "threshold": (case(nn.Threshold(0.1, 20.0), M), "jumps"),
    "floor division": (case(lambda m, x: x // 1.0, V), "jumps"), "sign": (case(lambda m, x: x.sign(), V), "jumps"),
    "pooled indices": (case(lambda m, x: F.max_pool2d(x, 2, return_indices=True)[1].float(), T), "jumps"),
    "gumbel": (case(lambda m, x: F.gumbel_softmax(x), V), "random numbers"),
    "batch's own statistics": (case(nn.BatchNorm1d(4, track_running_stats=False), M), "track_running_stats=True"),
    **{name: (case(lambda m, x, f=f: f(x), V), "let the claim compare")
       for name, f in {"mode": lambda x: x.mode(-1)[0], "argmax": lambda x: x.argmax(-1).double()}.items()},
    "indices of a sort": (case(lambda m, x: x.sort()[1].double(), V), "jumps"),
    "topk in any order": (case(lambda m, x: x.topk(2, sorted=False)[0], V), "sorted=True"),
}  # fmt: skip

"""Modules that were refused wrongly, or read as another one: random settings of windows, masks and log-probabilities
beside torch, the tables of constructs, and the examples."""

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify import transformer
from mechverify.claims import ClaimError
from mechverify.graph.adapters import load
from mechverify.graph.capture import capture
from mechverify.graph.source import CaptureError
from tests.graph.constructs import REFUSED, WritesItsInput
from tests.graph.modules import IDS, Fn, M, V, real, w
from tests.graph.sampling import sampled

ROUNDING = (
    1e-6  # of float32, relative: how far a sample of the module may lie outside a range that holds over the reals
)


def run(board: Board, quick: bool) -> None:
    count, samples = (20, 50) if quick else (600, 1_000)
    outside, reasons = 0, Counter()
    for seed in range(count):
        torch.manual_seed(seed)
        module, inputs = construct(random.Random(seed))
        try:
            outside += sampled(module.eval(), *inputs, count=samples).outside() > ROUNDING
        except ClaimError as error:
            reasons[str(error).splitlines()[-1].strip()] += 1
    board.row(f"random convolutions, pools, masks, log-probabilities x {samples} samples: outside the proved range",
              f"0 of {count}", f"{outside} of {count}", outside == 0)  # fmt: skip
    board.row("of these refused", "0", f"{reasons.total()}: {dict(reasons)}", not reasons)
    unclear = [name for name, (case, says) in REFUSED.items() if not _clear(case, says)]
    board.row(f"{len(REFUSED)} constructs that can't be captured: without one clear message", "0",
              f"{len(unclear)} {unclear}", not unclear)  # fmt: skip


def _clear(case, says: str) -> bool:
    try:
        capture(case.module, *case.inputs, vocab=case.vocab)
    except CaptureError as error:
        return says in str(error) and len(str(error).splitlines()) <= 40 and "report" not in str(error)
    except Exception:
        return False
    return False


def construct(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A random module, and an example."""
    return rng.choice((convolution, convolution, transposed, pool, masked, log_probabilities, interpolation))(rng)


def _image(rng: random.Random, n: int, channels: int) -> Tensor:
    return real(channels, *(rng.randint(5, 8 - n) if n < 3 else 4 for _ in range(n)), seed=rng.randrange(99))


def convolution(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    n, groups = rng.randint(1, 3), rng.choice((1, 1, 2))
    image = _image(rng, n, 2 * groups)
    same = rng.random() < 0.2
    module = getattr(nn, f"Conv{n}d")(
        2 * groups, 2 * groups, rng.randint(1, 3), stride=1 if same else rng.randint(1, 2), groups=groups,
        padding="same" if same else rng.randint(0, 1), dilation=1 if n == 3 else rng.randint(1, 2),
        bias=rng.random() < 0.5,
        padding_mode="zeros" if same else rng.choice(("zeros", "reflect", "circular", "replicate")),
    )  # fmt: skip
    if rng.random() < 0.3:
        module = nn.Sequential(module, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        module(image)
        return module, (image,)
    return module, (image if rng.random() < 0.8 else image[0],)


def transposed(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    n, stride = rng.randint(1, 2), rng.randint(1, 3)
    module = getattr(nn, f"ConvTranspose{n}d")(
        2, 2, rng.randint(1, 3), stride=stride, padding=rng.randint(0, 1), output_padding=rng.randrange(stride),
        groups=rng.randint(1, 2), dilation=rng.randint(1, 2), bias=rng.random() < 0.5)  # fmt: skip
    return module, (_image(rng, n, 2),)


def pool(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    n, size = rng.randint(1, 3), rng.randint(2, 3)
    settings = {"stride": rng.randint(1, 3), "padding": rng.randint(0, size // 2), "ceil_mode": rng.random() < 0.5}
    kind = rng.choice(("max", "average", "adaptive max", "adaptive average"))
    if kind == "max":
        module = getattr(nn, f"MaxPool{n}d")(size, dilation=1 if n == 3 else rng.randint(1, 2), **settings)
    elif kind == "average":
        module = getattr(nn, f"AvgPool{n}d")(size, count_include_pad=rng.random() < 0.5, **settings)
    else:
        module = getattr(nn, f"Adaptive{'Max' if 'max' in kind else 'Avg'}Pool{n}d")(rng.randint(1, 4))
    return module, (_image(rng, n, 2),)


def masked(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Attention with a random mask, maybe with rows that see nothing, maybe another one for each head."""
    generator = torch.Generator().manual_seed(rng.randrange(10**6))
    mask = torch.rand(rng.choice(((4, 4), (2, 4, 4), (1, 2, 4, 4), (1, 1, 4))), generator=generator) < 0.6
    if rng.random() < 0.5:
        bias = torch.zeros(mask.shape).masked_fill(~mask, -float("inf"))
        return Fn(lambda m, x: F.scaled_dot_product_attention(*_heads(x), m.mask), mask=bias), (M,)
    mask |= torch.eye(4) > 0 if mask.shape[-2] > 1 else torch.arange(4) == 0
    function = rng.choice((
        lambda m, x: F.scaled_dot_product_attention(*_heads(x), m.mask),
        lambda m, x: (_heads(x)[0] @ _heads(x)[0].mT).masked_fill(~m.mask, -float("inf")).softmax(-1),
    ))  # fmt: skip
    return Fn(function, mask=mask), (M,)


def _heads(x: Tensor) -> list[Tensor]:
    return [x.reshape(1, 4, 2, 3).transpose(1, 2)] * 3


def log_probabilities(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    scale, axis = 10.0 ** rng.randint(0, 4), rng.choice((-1, 1, 2))
    functions: list[Callable] = [
        lambda m, x: (scale * x).log_softmax(axis), lambda m, x: (scale * x).logsumexp(axis, keepdim=True),
        lambda m, x: F.cross_entropy(scale * x[0], m.t, reduction="none"),
        lambda m, x: torch.logaddexp(scale * x, x), lambda m, x: (scale * x).logcumsumexp(axis),
    ]  # fmt: skip
    return Fn(rng.choice(functions), t=torch.randint(6, (4,))), (M,)


def interpolation(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    mode = rng.choice(("nearest", "bilinear", "area"))
    size = [rng.randint(2, 7), rng.randint(2, 7)]
    corners = {"align_corners": rng.random() < 0.5} if mode == "bilinear" else {}
    return Fn(lambda m, x: F.interpolate(x, size=size, mode=mode, **corners)), (_image(rng, 2, 2),)


# --- the examples: what was seen of the code that landed, what has to be seen now


def _range(module: nn.Module, *inputs: Tensor, **settings: int) -> str:
    """Captures, proves, checks, samples."""
    try:
        found = sampled(module.eval(), *inputs, count=50, **settings)
    except (ClaimError, CaptureError) as error:
        return f"refused: {str(error).splitlines()[-1].strip()}"
    if not (np.isfinite(found.proved.low).all() and np.isfinite(found.proved.high).all()):
        return "nothing bounded"
    return "proved, and holds every sample" if found.outside() <= ROUNDING else "false"


def _said(module: nn.Module, *inputs: Tensor, words: str) -> str:
    try:
        capture(module.eval(), *inputs)
    except CaptureError as error:
        return words if words in str(error) else str(error)
    return "captured"


def _pruned() -> nn.Module:
    layer = nn.Linear(6, 3)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def _file(**buffers: Tensor) -> dict[str, Tensor]:
    shapes = {"embed.W_E": (3, 8), "pos_embed.W_pos": (4, 8), "unembed.W_U": (8, 3), "blocks.0.attn.W_O": (1, 8, 8)}
    shapes |= {f"blocks.0.attn.W_{c}": (1, 8, 8) for c in "QKV"}
    return {**{name: w(*shape) for name, shape in shapes.items()},
            **{f"blocks.0.attn.{name}": t for name, t in buffers.items()}}  # fmt: skip


def _read(how: Callable[[Path], object], words: str, **buffers: Tensor) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_file(_file(**buffers), path)
        try:
            how(path)
        except (ClaimError, CaptureError) as error:
            return words if words in str(error) else str(error)
    return "read"


PROVED = "proved, and holds every sample"
MASK = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]]) > 0
INVERSE, SCRIPT = "compute it once and keep the result", "capture the module that torch.jit.script or trace was given"
WINDOW = torch.ones(4, 4).tril().triu(-1) > 0
SAYS_NOTHING = "refused: the graph differs from the module at output, by inf of its size ... please report it"

EXAMPLES = [
    Example("nn.Conv2d(3, 4, 3, stride=2, padding=1)", "the kernel rejects the certificate", PROVED,
            lambda: _range(nn.Conv2d(3, 4, 3, stride=2, padding=1), real(3, 8, 8))),
    Example("einsum('BND,De->BNe')", "the kernel rejects the certificate", PROVED,
            lambda: _range(Fn(lambda m, x: torch.einsum("BND,De->BNe", x, m.a), a=w(6, 3)), M)),
    Example("nn.ConvTranspose1d", "refused", PROVED, lambda: _range(nn.ConvTranspose1d(4, 2, 3, stride=2), M)),
    Example("logsumexp of 1e4 x", SAYS_NOTHING, PROVED, lambda: _range(Fn(lambda m, x: (1e4 * x).logsumexp(-1)), V)),
    Example("log_softmax of 1e4 x", SAYS_NOTHING, PROVED,
            lambda: _range(Fn(lambda m, x: (1e4 * x).log_softmax(-1)), V)),
    Example("log_softmax at a gap of 36", "BOUNDED, nothing bounded", PROVED,
            lambda: _range(Fn(lambda m, x: torch.cat([x, x + 36], -1).log_softmax(-1)), V)),
    Example("log_softmax at a gap of 800", SAYS_NOTHING, PROVED,
            lambda: _range(Fn(lambda m, x: torch.cat([x, x + 800], -1).log_softmax(-1)), V)),
    Example("a module that writes into its input", "refused: please report it", PROVED,
            lambda: _range(WritesItsInput(), V)),
    Example("torch.linalg.inv of a weight", "KeyError: None", INVERSE,
            lambda: _said(Fn(lambda m, x: torch.linalg.inv(m.a) @ x, a=w(4, 4)), M, words=INVERSE)),
    Example("W at token ids - 1", "IndexError", PROVED,
            lambda: _range(Fn(lambda m, t: m.a[t - 1], a=w(7, 3)), IDS, vocab=7)),
    Example("torch.jit.script", "RuntimeError: requires_grad_ is not supported on ScriptModules", SCRIPT,
            lambda: _said(torch.jit.script(nn.Linear(6, 3).eval()), V, words=SCRIPT)),
    Example("torch.nn.utils.prune", "refused: can't be copied", PROVED, lambda: _range(_pruned(), V)),
    Example("torch.nn.utils.weight_norm", "refused: can't be copied", PROVED,
            lambda: _range(weight_norm(nn.Linear(6, 3)), V)),
    Example("parametrizations.orthogonal", "IndexError", "remove_parametrizations",
            lambda: _said(parametrizations.orthogonal(nn.Linear(6, 3)), V, words="remove_parametrizations")),
    Example("an input without a batch axis", "refused: examples need a batch axis", PROVED,
            lambda: _range(nn.Linear(6, 3), M[0])),
    Example("scaled_dot_product_attention, a row that sees nothing", "refused: gives not-a-number", PROVED,
            lambda: _range(Fn(lambda m, x: F.scaled_dot_product_attention(x, x, x, m.mask), mask=MASK), M)),
    Example("a weights file whose mask is a window of two", "read as fully causal", "is no causal mask",
            lambda: _read(transformer, "is no causal mask", mask=WINDOW)),
    Example("the same file through the adapters", "read as fully causal", "its own mask is kept",
            lambda: _window_kept()),
    Example("a file without layer norms through the adapters", "read as having none", "Say None if the model has none",
            lambda: _read(load, "Say None if the model has none")),
    Example("transformer(weights, normalization='LNPre')", "TypeError: no such setting", "this architecture has None",
            lambda: _read(lambda p: transformer(p, normalization="LNPre"), "this architecture has None")),
]  # fmt: skip


def _window_kept() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_file(_file(mask=WINDOW), path)
        adapted = load(path, normalization=None)
    masks = {n.attr for n in capture(adapted.module, adapted.example).graph.nodes if n.op == "softmax"}
    return "its own mask is kept" if masks == {("1000", "1100", "0110", "0011")} else f"masks {masks}"

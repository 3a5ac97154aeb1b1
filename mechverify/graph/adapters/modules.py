"""A plain decoder-only transformer with TransformerLens names. Its sites, beside those of its submodules:
embed, pos_embed, blocks.0.resid_pre, .attn.q, .attn.k, .attn.v, .attn.attn_scores, .attn.pattern, .attn.z, .attn_out,
.resid_mid, .mlp.pre, .mlp.hidden, .mlp_out, .resid_post, ln_final, logits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}
NORMALIZATIONS = ("LN", "LNPre", "RMS", "RMSPre", None)


@dataclass(frozen=True)
class Adapted:
    """`module(tokens [batch, length])` in evaluation mode, example tokens [1, longest], and what is known of the model:
    sizes, which parts it has, and what was assumed."""

    module: nn.Module
    example: Tensor
    flags: dict[str, Any]


class FromFile(nn.Module):
    """A model made of a file's weights. `assumed`: what names and shapes don't tell, as it was taken."""

    assumed: tuple[str, ...] = ()


def assumed(module: nn.Module) -> tuple[str, ...]:
    """Of all models that were made of files and are part of this one."""
    parts = (part for part in module.modules() if isinstance(part, FromFile))
    return tuple(dict.fromkeys(text for part in parts for text in part.assumed))


class Holder(nn.Module):
    """Holds the tensors of a state dict below a prefix as parameters."""

    def __init__(self, state: dict[str, Tensor], prefix: str):
        super().__init__()
        for name, value in state.items():
            if name.startswith(prefix) and "." not in (
                rest := name.removeprefix(prefix)
            ):
                self.register_parameter(
                    rest, nn.Parameter(value.detach().clone(), requires_grad=False)
                )

    def held(self, name: str) -> Tensor | None:
        return self._parameters.get(name)

    def biased(self, x: Tensor, name: str) -> Tensor:
        bias = self.held(name)
        return x if bias is None else x + bias


class Embed(Holder):
    W_E: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.W_E)


class PosEmbed(Holder):
    W_pos: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        return self.W_pos[: tokens.shape[1]]


class Unembed(Holder):
    W_U: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.biased(x @ self.W_U, "b_U")


class Norm(nn.Module):
    """Layer norm or RMS norm; "LNPre" and "RMSPre" have their weights folded into what follows."""

    w: Tensor | None
    b: Tensor | None

    def __init__(self, state: dict[str, Tensor], prefix: str, kind: str, eps: float):
        super().__init__()
        self.centre, self.eps = kind.startswith("LN"), eps
        for name in ("w", "b"):
            value = state.get(prefix + name)
            self.register_parameter(
                name,
                None if value is None else nn.Parameter(value.detach().clone(), False),
            )

    def without_scale(self, x: Tensor) -> Tensor:
        """What is linear in it: centred, and times the weights."""
        x = x - x.mean(-1, keepdim=True) if self.centre else x
        return x if self.w is None else x * self.w

    def forward(self, x: Tensor) -> Tensor:
        if self.centre:
            return F.layer_norm(x, x.shape[-1:], self.w, self.b, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.w, self.eps)


class Attention(Holder):
    """W_Q [heads, d, e]; W_K, W_V the same or, grouped, as _W_K, _W_V with fewer heads; W_O [heads, e, d]."""

    W_Q: Tensor
    W_O: Tensor

    mask: Tensor | None

    def __init__(
        self,
        state: dict[str, Tensor],
        prefix: str,
        settings: dict[str, Any],
        mask: Tensor | None,
    ):
        """`mask` [longest, longest]: what the file says that each position sees; None: all earlier ones."""
        super().__init__(state, prefix)
        self.causal, self.scale = (
            settings["attention"] == "causal",
            settings["attn_scale"],
        )
        self.register_buffer(
            "mask", None if mask is None else mask.reshape(mask.shape[-2:]) != 0
        )
        self.q, self.k, self.v, self.z, self.attn_scores = (
            nn.Identity() for _ in range(5)
        )

    def _shared(self, name: str) -> Tensor | None:
        """Of grouped heads, one for each head that reads it."""
        grouped = self.held(f"_{name}")
        return (
            self.held(name)
            if grouped is None
            else grouped.repeat_interleave(len(self.W_Q) // len(grouped), 0)
        )

    @property
    def divisor(self) -> float:
        """Of the scores."""
        return math.sqrt(self.W_Q.shape[-1]) if self.scale is None else self.scale

    def of_head(self, letter: str, x: Tensor, head: int) -> Tensor:
        """What one head reads: x [..., d_model] to [..., d_head]."""
        weights, bias = self._shared(f"W_{letter}"), self._shared(f"b_{letter}")
        assert weights is not None
        out = x @ weights[head]
        return out if bias is None else out + bias[head]

    def forward(self, x: Tensor) -> Tensor:
        def project(letter: str) -> Tensor:
            out = torch.einsum("bnd,hde->bnhe", x, self._shared(f"W_{letter}"))
            bias = self._shared(f"b_{letter}")
            return out if bias is None else out + bias

        q, k, v = self.q(project("Q")), self.k(project("K")), self.v(project("V"))
        scores = self.attn_scores(torch.einsum("bjhe,bihe->bhji", q, k) / self.divisor)
        if self.causal:
            n = scores.shape[-1]
            seen = (
                torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
                if self.mask is None
                else self.mask[:n, :n]
            )
            scores = scores.masked_fill(~seen, -math.inf)
        z = self.z(torch.einsum("bhji,bihe->bjhe", scores.softmax(-1), v))
        return self.biased(torch.einsum("bjhe,hed->bjd", z, self.W_O), "b_O")


class MLP(Holder):
    """W_in [d, hidden], W_out [hidden, d]; gated if it has W_gate [d, hidden]."""

    W_in: Tensor
    W_out: Tensor

    def __init__(self, state: dict[str, Tensor], prefix: str, act_fn: str):
        super().__init__(state, prefix)
        self.act = ACTIVATIONS[act_fn]
        self.pre, self.hidden = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner, gate = self.biased(x @ self.W_in, "b_in"), self.held("W_gate")
        if gate is None:
            hidden = self.act(self.pre(inner))
        else:
            hidden = self.act(self.pre(self.biased(x @ gate, "b_gate"))) * inner
        return self.biased(self.hidden(hidden) @ self.W_out, "b_out")


class Block(nn.Module):
    def __init__(
        self,
        state: dict[str, Tensor],
        prefix: str,
        settings: dict[str, Any],
        mask: Tensor | None,
    ):
        super().__init__()

        def norm(name: str) -> nn.Module:
            kind = settings["normalization"]
            return (
                Norm(state, f"{prefix}{name}.", kind, settings["eps"])
                if kind
                else nn.Identity()
            )

        self.ln1, self.attn = (
            norm("ln1"),
            Attention(state, f"{prefix}attn.", settings, mask),
        )
        self.resid_pre, self.attn_out, self.resid_post = (
            nn.Identity() for _ in range(3)
        )
        self.has_mlp = f"{prefix}mlp.W_in" in state
        if self.has_mlp:
            self.ln2, self.mlp = (
                norm("ln2"),
                MLP(state, f"{prefix}mlp.", settings["act_fn"]),
            )
            self.resid_mid, self.mlp_out = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.resid_pre(x)
        x = x + self.attn_out(self.attn(self.ln1(x)))
        if self.has_mlp:
            x = self.resid_mid(x)
            x = x + self.mlp_out(self.mlp(self.ln2(x)))
        return self.resid_post(x)


class Rebuilt(FromFile):
    """`state` with TransformerLens names; `settings`: normalization, eps, act_fn, attention, attn_scale; `masks`: the
    file's own, by its names."""

    def __init__(
        self,
        state: dict[str, Tensor],
        layers: int,
        settings: dict[str, Any],
        masks: Mapping[str, Tensor],
    ):
        super().__init__()
        self.embed, self.unembed, self.logits = (
            Embed(state, "embed."),
            Unembed(state, "unembed."),
            nn.Identity(),
        )
        self.pos_embed = (
            PosEmbed(state, "pos_embed.") if "pos_embed.W_pos" in state else None
        )
        own = {int(name.split(".")[1]): mask for name, mask in masks.items()}
        self.blocks = nn.ModuleList(
            Block(state, f"blocks.{i}.", settings, own.get(i)) for i in range(layers)
        )
        kind = settings["normalization"]
        self.ln_final = (
            Norm(state, "ln_final.", kind, settings["eps"]) if kind else nn.Identity()
        )
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x if self.pos_embed is None else x + self.pos_embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.logits(self.unembed(self.ln_final(x)))

"""A plain transformer whose parameters carry the names that the field's state dicts use.

Sizes: `n_ctx` positions, `d_vocab` tokens, residual width `d_model`, `n_heads` heads of width `d_head`, `d_mlp` neurons
(none: attention only). Causal softmax attention, ReLU, learned positions, no layer norm; scores are divided by
sqrt(d_head).
"""

import torch
from torch import Tensor, nn


def _normal(*shape: int, deviation: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * deviation)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)


class Embed(nn.Module):
    """Token ids [..., n_ctx] to vectors [..., n_ctx, d_model]: row `W_E[token]`."""

    def __init__(self, d_vocab: int, d_model: int, deviation: float):
        super().__init__()
        self.W_E = _normal(d_vocab, d_model, deviation=deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.W_E[tokens]


class PosEmbed(nn.Module):
    """The learned vector of each position, [n_ctx, d_model]."""

    def __init__(self, n_ctx: int, d_model: int, deviation: float):
        super().__init__()
        self.W_pos = _normal(n_ctx, d_model, deviation=deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.W_pos[: tokens.shape[-1]]


class Attention(nn.Module):
    """Causal multi-head attention on [..., n_ctx, d_model]; biases are frozen at zero."""

    def __init__(self, n_heads: int, d_model: int, d_head: int, deviation: float):
        super().__init__()
        for name in "QKV":
            setattr(self, f"W_{name}", _normal(n_heads, d_model, d_head, deviation=deviation))
            setattr(self, f"b_{name}", _zeros(n_heads, d_head))
        self.W_O = _normal(n_heads, d_head, d_model, deviation=deviation)
        self.b_O = _zeros(d_model)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            torch.einsum("...nd,hde->...hne", x, getattr(self, f"W_{name}")) + getattr(self, f"b_{name}")[:, None]
            for name in "QKV"
        )
        scores = q @ k.transpose(-1, -2) / self.W_Q.shape[-1] ** 0.5
        n = x.shape[-2]
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        pattern = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
        return torch.einsum("...hne,hed->...nd", pattern @ v, self.W_O) + self.b_O


class MLP(nn.Module):
    """relu(x W_in + b_in) W_out + b_out."""

    def __init__(self, d_model: int, d_mlp: int, deviation: float):
        super().__init__()
        self.W_in = _normal(d_model, d_mlp, deviation=deviation)
        self.b_in = nn.Parameter(torch.zeros(d_mlp))
        self.W_out = _normal(d_mlp, d_model, deviation=deviation)
        self.b_out = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out


class Block(nn.Module):
    def __init__(self, n_heads: int, d_model: int, d_head: int, d_mlp: int, deviation: float):
        super().__init__()
        self.attn = Attention(n_heads, d_model, d_head, deviation)
        self.mlp = MLP(d_model, d_mlp, deviation) if d_mlp else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x if self.mlp is None else x + self.mlp(x)


class Unembed(nn.Module):
    """Vectors [..., d_model] to logits [..., d_vocab_out]; the bias is frozen at zero."""

    def __init__(self, d_model: int, d_vocab_out: int, deviation: float):
        super().__init__()
        self.W_U = _normal(d_model, d_vocab_out, deviation=deviation)
        self.b_U = _zeros(d_vocab_out)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W_U + self.b_U


class Transformer(nn.Module):
    """Token ids [..., n_ctx] to logits [..., n_ctx, d_vocab_out]."""

    def __init__(
        self, *, n_ctx: int, d_vocab: int, d_model: int, d_head: int,
        n_heads: int = 1, n_layers: int = 1, d_mlp: int = 0, d_vocab_out: int | None = None, deviation: float,
    ):  # fmt: skip
        super().__init__()
        self.embed = Embed(d_vocab, d_model, deviation)
        self.pos_embed = PosEmbed(n_ctx, d_model, deviation)
        self.blocks = nn.ModuleList(Block(n_heads, d_model, d_head, d_mlp, deviation) for _ in range(n_layers))
        self.unembed = Unembed(d_model, d_vocab_out or d_vocab, deviation)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.pos_embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)

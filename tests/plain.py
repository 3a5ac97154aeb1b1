"""One-layer transformers as people write them: the same weights and the same function, in three styles."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Plain(nn.Module):
    """From weights under the names of TransformerLens, of one layer and one head: token ids [batch, n] to logits
    [batch, n, outputs]. `style`: einsum (each product one, per-head weights), fused (F.scaled_dot_product_attention and
    nn.Linear, tied weights where `tied`), or loop (a loop over heads, transposed views, a bias on the unembedding)."""

    def __init__(self, weights: dict[str, Tensor], style: str, length: int):
        super().__init__()
        self.names = {name.replace(".", "_"): name for name in weights}
        for name, tensor in weights.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor.double(), requires_grad=False))
        self.style, self.length, self.mlp = style, length, "blocks.0.mlp.W_in" in weights

    def _weight(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "_"))

    def _attn(self, name: str) -> Tensor:
        return self._weight(f"blocks.0.attn.{name}")

    def forward(self, ids: Tensor) -> Tensor:
        x = F.embedding(ids, self._weight("embed.W_E")) + self._weight("pos_embed.W_pos")[: self.length]
        x = x + {"einsum": self._einsum, "fused": self._fused, "loop": self._loop}[self.style](x)
        if self.mlp:
            into, out = (self._weight(f"blocks.0.mlp.{n}") for n in ("W_in", "W_out"))
            into_bias, out_bias = (self._weight(f"blocks.0.mlp.{n}") for n in ("b_in", "b_out"))
            x = x + F.linear(F.relu(x @ into + into_bias), out.t(), out_bias)
        if "unembed_b_U" in self.names:
            return x @ self._weight("unembed.W_U") + self._weight("unembed.b_U")
        return torch.einsum("bnd,dv->bnv", x, self._weight("unembed.W_U"))

    def _einsum(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bnd,hde->bnhe", x, self._attn(f"W_{c}")) + self._attn(f"b_{c}") for c in "QKV")
        scores = torch.einsum("bjhe,bihe->bhji", q, k) / q.shape[-1] ** 0.5
        pattern = scores.masked_fill(self._later(), -torch.inf).softmax(-1)
        z = torch.einsum("bhji,bihe->bjhe", pattern, v)
        return torch.einsum("bjhe,hed->bjd", z, self._attn("W_O")) + self._attn("b_O")

    def _fused(self, x: Tensor) -> Tensor:
        q, k, v = (F.linear(x, self._attn(f"W_{c}")[0].t(), self._attn(f"b_{c}")[0])[:, None] for c in "QKV")
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return F.linear(z, self._attn("W_O")[0].t(), self._attn("b_O"))

    def _loop(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for head in range(self._attn("W_Q").shape[0]):
            q, k, v = (x @ self._attn(f"W_{c}")[head] + self._attn(f"b_{c}")[head] for c in "QKV")
            scores = (q * q.shape[-1] ** -0.5) @ k.mT
            out = out + (scores.masked_fill(self._later(), -torch.inf).softmax(dim=-1) @ v) @ self._attn("W_O")[head]
        return out + self._attn("b_O")

    def _later(self) -> Tensor:
        return torch.ones(self.length, self.length, dtype=torch.bool).triu(1)

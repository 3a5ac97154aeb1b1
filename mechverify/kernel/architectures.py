"""Known architectures: the kernel builds the graph from the weights' names and shapes itself, so that
no `capture` axiom is needed. The state dict names are those of TransformerLens.
"""

import re

import numpy as np

from mechverify.kernel.errors import Rejected
from mechverify.kernel.graph import Graph


def transformer(graph: Graph, weights: dict[str, np.ndarray]) -> dict[str, int]:
    """An attention-only transformer without layer norm; returns its sites, by name, as node ids.

    x = W_E[token] + W_pos[position]; per block: scores q.k / sqrt(d_head), causal softmax, x + (pattern v) W_O
    + b_O; logits = x W_U + b_U. Biases may be absent (zero). Shapes: W_E [vocab, d], W_pos [n_ctx, d],
    W_Q, W_K, W_V [heads, d, e], b_Q, b_K, b_V [heads, e], W_O [heads, e, d], W_U [d, out].
    Raises Rejected, naming every missing, unexpected or wrongly shaped tensor.
    """
    layers = 1 + max((int(m[1]) for k in weights if (m := re.match(r"blocks\.([0-9]{1,3})\.", k))), default=0)
    sizes = transformer_sizes(weights)
    d, heads, e = sizes["d_model"], sizes["n_heads"], sizes["d_head"]
    required = {"embed.W_E": (sizes["d_vocab"], d), "pos_embed.W_pos": (sizes["n_ctx"], d)}
    required["unembed.W_U"] = (d, sizes["d_vocab_out"])
    optional = {"unembed.b_U": (sizes["d_vocab_out"],)}
    for layer in range(layers):
        attn = f"blocks.{layer}.attn."
        required |= {f"{attn}W_{c}": (heads, d, e) for c in "QKV"} | {f"{attn}W_O": (heads, e, d)}
        optional |= {f"{attn}b_{c}": (heads, e) for c in "QKV"} | {f"{attn}b_O": (d,)}
    problems = [f"{k} is missing" for k in required if k not in weights]
    for name, value in weights.items():
        want = required.get(name) or optional.get(name)
        if want is None:
            problems.append(f"{name} is not part of an attention-only transformer without layer norm")
        elif want is not None and value.shape != want:
            problems.append(f"{name} has shape {list(value.shape)}, expected {list(want)}")
    if graph.length > sizes["n_ctx"]:
        problems.append(f"sequences of length {graph.length} don't fit pos_embed.W_pos with {sizes['n_ctx']} positions")
    if problems:
        raise Rejected("weights don't fit the architecture: " + "; ".join(problems))

    def weight(name: str) -> int:
        return graph.add("weight", attr=(name, weights[name].shape))

    def biased(x: int, name: str) -> int:
        return graph.add("add", x, weight(name)) if name in weights else x

    sites = {"tokens": graph.add("tokens")}
    sites["embed"] = graph.add("gather", weight("embed.W_E"), sites["tokens"])
    n = graph.length
    sites["pos_embed"] = graph.add("weight", attr=("pos_embed.W_pos", (n, d)))
    x = graph.add("add", sites["embed"], sites["pos_embed"])
    scale = graph.add("sqrt", graph.add("natural", attr=e))
    for layer in range(layers):
        attn = f"blocks.{layer}.attn."
        q, k, v = (
            biased(graph.add("einsum", x, weight(f"{attn}W_{c}"), attr="nd,hde->nhe"), f"{attn}b_{c}") for c in "QKV"
        )
        scores = graph.add("div", graph.add("einsum", q, k, attr="jhe,ihe->hji"), scale)
        pattern = graph.add("softmax", scores, attr="causal")
        z = graph.add("einsum", pattern, v, attr="hji,ihe->jhe")
        out = biased(graph.add("einsum", z, weight(f"{attn}W_O"), attr="jhe,hed->jd"), f"{attn}b_O")
        sites |= {f"blocks.{layer}.resid_pre": x, f"{attn}q": q, f"{attn}k": k, f"{attn}v": v}
        sites |= {f"{attn}attn_scores": scores, f"{attn}pattern": pattern, f"{attn}z": z}
        x = graph.add("add", x, out)
        sites |= {f"blocks.{layer}.attn_out": out, f"blocks.{layer}.resid_post": x}
    sites["logits"] = biased(graph.add("einsum", x, weight("unembed.W_U"), attr="jd,dv->jv"), "unembed.b_U")
    return sites


def transformer_sizes(weights: dict[str, np.ndarray]) -> dict[str, int]:
    """Vocabulary, context, widths and heads, read off the shapes; raises Rejected where they can't be."""
    axes = {
        "embed.W_E": ("d_vocab", "d_model"),
        "pos_embed.W_pos": ("n_ctx", "d_model"),
        **{f"blocks.0.attn.W_{c}": ("n_heads", "d_model", "d_head") for c in "QKV"},
        "blocks.0.attn.W_O": ("n_heads", "d_head", "d_model"),
        "unembed.W_U": ("d_model", "d_vocab_out"),
    }
    sizes: dict[str, int] = {}
    problems = [f"{name} is missing" for name in axes if name not in weights]
    for name, letters in axes.items():
        if name in weights and weights[name].ndim != len(letters):
            problems.append(f"{name} has shape {list(weights[name].shape)}, expected [{', '.join(letters)}]")
        elif name in weights:
            for letter, size in zip(letters, weights[name].shape, strict=True):
                sizes.setdefault(letter, size)
    if problems:
        raise Rejected("weights don't fit the architecture: " + "; ".join(problems))
    if min(sizes.values()) < 1:
        raise Rejected("weights don't fit the architecture: a tensor is empty")
    return sizes


ARCHITECTURES = {"transformer": transformer}

"""Transformers without layer norm; the state dict names are those of TransformerLens."""

import re

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph

_BLOCK = {**{f"W_{c}": "hde" for c in "QKV"}, "W_O": "hed"}
_BIASES = {**{f"b_{c}": "he" for c in "QKV"}, "b_O": "d"}
_MLP, _MLP_BIASES = {"W_in": "dm", "W_out": "md"}, {"b_in": "m", "b_out": "d"}


def transformer(
    graph: Graph, weights: dict[str, np.ndarray], mlp: bool = False
) -> dict[str, int]:
    """An attention-only transformer without layer norm; returns its sites, by name, as node ids.

    x = W_E[token] + W_pos[position]; per block: scores q.k / sqrt(d_head), causal softmax, x + (pattern v) W_O
    + b_O; logits = x W_U + b_U. Biases may be absent (zero). Shapes: W_E [vocab, d], W_pos [n_ctx, d],
    W_Q, W_K, W_V [heads, d, e], b_Q, b_K, b_V [heads, e], W_O [heads, e, d], W_U [d, out]; `mlp`: see
    `transformer_relu`; W_in [d, m], b_in [m], W_out [m, d], b_out [d].
    Raises Rejected, naming every missing, unexpected or wrongly shaped tensor.
    """
    layers = 1 + max(
        (int(m[1]) for k in weights if (m := re.match(r"blocks\.([0-9]{1,3})\.", k))),
        default=0,
    )
    blocks = [f"blocks.{layer}." for layer in range(layers)]
    inside = [("attn", _BLOCK, _BIASES), *([("mlp", _MLP, _MLP_BIASES)] if mlp else [])]
    required = {"embed.W_E": "vd", "pos_embed.W_pos": "pd", "unembed.W_U": "do"}
    optional = {"unembed.b_U": "o"}
    for block in blocks:
        for part, needed, biases in inside:
            required |= {f"{block}{part}.{name}": axes for name, axes in needed.items()}
            optional |= {f"{block}{part}.{name}": axes for name, axes in biases.items()}
    problems = [f"{name} is missing" for name in required if name not in weights]
    what = (
        "a transformer with ReLU MLPs and" if mlp else "an attention-only transformer"
    )
    problems += [f"{name!r} is not part of {what} without layer norm"
                 for name in weights if name not in required | optional]  # fmt: skip
    sizes: dict[str, int] = {}
    for name, axes in (required | optional).items():
        shape = weights[name].shape if name in weights else ()
        if name in weights and len(shape) != len(axes):
            problems.append(
                f"{name} has shape {list(shape)}, expected {len(axes)} axes"
            )
        elif not all(
            sizes.setdefault(c, size) == size > 0
            for c, size in zip(axes, shape, strict=False)
        ):
            problems.append(
                f"{name} has shape {list(shape)}, expected {[sizes[c] or 'not 0' for c in axes if c in sizes]}"
            )
    if graph.length > sizes.get("p", graph.length):
        problems.append(
            f"sequences of length {graph.length} don't fit pos_embed.W_pos with {sizes['p']} positions"
        )
    if problems:
        raise Rejected("weights don't fit the architecture: " + "; ".join(problems))

    def weight(name: str) -> int:
        return graph.add("weight", attr=(name, weights[name].shape))

    def dot(x: int, y: int, spec: str) -> int:
        return graph.add("einsum", x, y, attr=spec)

    def biased(x: int, name: str) -> int:
        return graph.add("add", x, weight(name)) if name in weights else x

    sites = {"tokens": graph.add("tokens")}
    sites["embed"] = graph.add("gather", weight("embed.W_E"), sites["tokens"])
    sites["pos_embed"] = graph.add(
        "weight", attr=("pos_embed.W_pos", (graph.length, sizes["d"]))
    )
    x = graph.add("add", sites["embed"], sites["pos_embed"])
    for layer, block in enumerate(blocks):
        attn = f"{block}attn."
        q, k, v = (
            biased(dot(x, weight(f"{attn}W_{c}"), "nd,hde->nhe"), f"{attn}b_{c}")
            for c in "QKV"
        )
        scores = graph.add("over_root", dot(q, k, "jhe,ihe->hji"), attr=sizes["e"])
        pattern = graph.add("softmax", scores, attr="causal")
        z = dot(pattern, v, "hji,ihe->jhe")
        out = biased(dot(z, weight(f"{attn}W_O"), "jhe,hed->jd"), f"{attn}b_O")
        sites |= {
            f"blocks.{layer}.resid_pre": x,
            f"{attn}q": q,
            f"{attn}k": k,
            f"{attn}v": v,
        }
        sites |= {
            f"{attn}attn_scores": scores,
            f"{attn}pattern": pattern,
            f"{attn}z": z,
        }
        x = graph.add("add", x, out)
        sites[f"{block}attn_out"] = out
        if mlp:
            pre = biased(
                dot(x, weight(f"{block}mlp.W_in"), "jd,dm->jm"), f"{block}mlp.b_in"
            )
            post = graph.add("relu", pre)
            out = biased(
                dot(post, weight(f"{block}mlp.W_out"), "jm,md->jd"), f"{block}mlp.b_out"
            )
            sites |= {
                f"{block}resid_mid": x,
                f"{block}mlp.pre": pre,
                f"{block}mlp.post": post,
                f"{block}mlp_out": out,
            }
            x = graph.add("add", x, out)
        sites[f"{block}resid_post"] = x
    sites["logits"] = biased(dot(x, weight("unembed.W_U"), "jd,dv->jv"), "unembed.b_U")
    return sites


def transformer_relu(graph: Graph, weights: dict[str, np.ndarray]) -> dict[str, int]:
    """A transformer without layer norm, with an MLP after the attention of every block: x + relu(x W_in + b_in) W_out
    + b_out, and otherwise as the attention-only one. Raises Rejected as `transformer` does."""
    return transformer(graph, weights, mlp=True)


ROWS = {"transformer": transformer, "transformer_relu": transformer_relu}

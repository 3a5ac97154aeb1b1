"""State dicts of TransformerLens: HookedTransformer (2.x: blocks.0.attn.W_Q) and TransformerBridge (3.x and later:
blocks.0.attn.q.weight)."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mechverify.graph.adapters.modules import (
    ACTIVATIONS,
    NORMALIZATIONS,
    Adapted,
    Rebuilt,
)
from mechverify.graph.source import CaptureError

_SHAPES = {
    **{f"attn.{u}W_{c}": "gde" for c in "KV" for u in ("", "_")},
    **{f"attn.{u}b_{c}": "ge" for c in "KV" for u in ("", "_")},
    "attn.W_Q": "hde", "attn.b_Q": "he", "attn.W_O": "hed", "attn.b_O": "d",
    "mlp.W_in": "dm", "mlp.b_in": "m", "mlp.W_gate": "dm", "mlp.b_gate": "m", "mlp.W_out": "md", "mlp.b_out": "d",
    "ln1.w": "d", "ln1.b": "d", "ln2.w": "d", "ln2.b": "d",
}  # fmt: skip
_OUTER = {
    "embed.W_E": "vd", "pos_embed.W_pos": "pd", "unembed.W_U": "do", "unembed.b_U": "o", "ln_final.w": "d",
    "ln_final.b": "d",
}  # fmt: skip
UNSAID = "unsaid"
_BUFFERS = re.compile(r"(^|\.)(mask|IGNORE|causal_mask)$")
_BRIDGE = {
    "q": "Q",
    "k": "K",
    "v": "V",
    "o": "O",
    "in": "in",
    "out": "out",
    "gate": "gate",
}


def recognises(state: Mapping[str, Tensor]) -> bool:
    return "embed.W_E" in state or any(
        re.match(r"embed(\._original_component)?\.weight$", name) for name in state
    )


def adapt(
    state: Mapping[str, Tensor],
    *,
    act_fn: str | None = None,
    normalization: str | None = UNSAID,
    attention: str = "causal",
    attn_scale: float | None = None,
    eps: float = 1e-5,
    n_heads: int | None = None,
    positional_embedding_type: str = "standard",
    parallel_attn_mlp: bool = False,
) -> Adapted:
    """What names and shapes don't tell: `act_fn` of the MLP (relu, gelu, gelu_new, silu, tanh); `normalization`: None,
    or "LNPre" or "RMSPre" where its weights were folded away, as TransformerLens does on loading; `n_heads` for names
    of 3.x: these must be said. `attention` causal or bidirectional, `attn_scale` (default: the root of d_head), `eps`
    of the norms: `flags["assumed"]` lists what was taken. The file's own masks are kept. Positions and MLPs of other
    kinds than the defaults aren't known. Raises CaptureError, naming all that doesn't fit."""
    if "embed.W_E" not in state:
        state = _from_bridge(state, n_heads)
    masks = {
        name: t
        for name, t in state.items()
        if name.endswith((".attn.mask", ".attn.causal_mask"))
    }
    tensors = {
        name: t.detach() for name, t in state.items() if not _BUFFERS.search(name)
    }
    layers = 1 + max(
        (int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))),
        default=-1,
    )
    has_mlp = any(".mlp." in name for name in tensors)
    found = {
        name.rsplit(".", 1)[1]
        for name in tensors
        if re.search(r"(^|\.)ln(1|2|_final)\.", name)
    }
    if found and normalization not in (UNSAID, "LN", "RMS"):
        raise CaptureError(
            f"normalization={normalization!r} has no weights, but the file has weights of layer norms"
        )
    if found and normalization == UNSAID:
        normalization = "LN" if "b" in found else "RMS"
    problems = _problems(tensors, layers, has_mlp, bool(found))
    problems += _masks(masks) if attention == "causal" else []
    for name, value, known in (
        ("positional_embedding_type", positional_embedding_type, "standard"),
        ("parallel_attn_mlp", parallel_attn_mlp, False),
    ):
        if value != known:
            problems.append(
                f"{name}={value!r} isn't known: load it into your own torch module, and capture that"
            )
    if has_mlp and act_fn not in ACTIVATIONS:
        problems.append(
            f"act_fn={act_fn!r}: say which activation the MLP has, one of {', '.join(ACTIVATIONS)}"
        )
    if normalization == UNSAID:
        problems.append(
            "normalization: the file has no weights of layer norms. Say None if the model has none, LNPre or RMSPre if "
            "they were folded away (fold_ln=True, the default of TransformerLens's from_pretrained)"
        )
    elif normalization not in NORMALIZATIONS:
        problems.append(
            f"normalization={normalization!r}: one of {', '.join(map(str, NORMALIZATIONS))}"
        )
    if attention not in ("causal", "bidirectional"):
        problems.append(f"attention={attention!r}: causal or bidirectional")
    if problems:
        raise CaptureError("not a transformer that can be read: " + "; ".join(problems))
    settings: dict[str, Any] = {
        "normalization": normalization, "eps": eps, "act_fn": act_fn, "attention": attention, "attn_scale": attn_scale,
    }  # fmt: skip
    module = Rebuilt(tensors, layers, settings, masks)
    module.assumed = _assumed(settings, has_mlp, len(masks))
    query = tensors["blocks.0.attn.W_Q"]
    vocab, longest = (
        len(tensors["embed.W_E"]),
        len(tensors["pos_embed.W_pos"]) if "pos_embed.W_pos" in tensors else 8,
    )
    flags = {
        **settings, "layers": layers, "heads": query.shape[0], "d_model": query.shape[1], "d_head": query.shape[2],
        "d_vocab": vocab, "n_ctx": longest, "attention_only": not has_mlp, "positional": "pos_embed.W_pos" in tensors,
        "biases": any(re.search(r"\.b_", name) for name in tensors),
        "layer_norm_folded": normalization in ("LNPre", "RMSPre"),
        "assumed": module.assumed,
    }  # fmt: skip
    return Adapted(module, torch.zeros(1, longest, dtype=torch.long), flags)


def _masks(masks: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with the file's own masks: each is square, and lets every position see itself or an earlier one."""
    problems = []
    for name, mask in masks.items():
        last = (
            mask.reshape(mask.shape[-2:])
            if mask.ndim >= 2 and mask[..., 0, 0].numel() == 1
            else mask
        )
        if last.ndim != 2 or last.shape[0] != last.shape[1]:
            problems.append(f"{name} has shape {list(mask.shape)}, expected a square")
        elif bool((last != 0).triu(1).any()) or not bool((last != 0).any(-1).all()):
            problems.append(
                f"{name} lets a position see a later one, or none: say attention=, or capture your own module"
            )
    return problems


def _assumed(settings: dict[str, Any], has_mlp: bool, masks: int) -> tuple[str, ...]:
    """What the file doesn't tell, as it was taken."""
    norm, attention, scale = (
        settings[name] for name in ("normalization", "attention", "attn_scale")
    )
    where = "as the file's masks say" if masks and attention == "causal" else attention
    return (
        f"normalization {norm}"
        + (
            f", eps {settings['eps']}" if norm else ", and none folded into the weights"
        ),
        f"attention scores divided by {'sqrt(d_head)' if scale is None else scale}",
        f"attention {where}",
        "position embeddings added to the token embeddings, once",
        *(
            [
                f"activation {settings['act_fn']}",
                "an MLP after its block's attention, not beside it",
            ]
            if has_mlp
            else []
        ),
    )


def _problems(
    tensors: dict[str, Tensor], layers: int, has_mlp: bool, normed: bool
) -> list[str]:
    """Names that are missing or unexpected, and shapes that don't agree."""
    prefixes = [f"blocks.{i}." for i in range(layers)]
    known = _OUTER | {
        p + name: axes for p in prefixes for name, axes in _SHAPES.items()
    }
    required = ["embed.W_E", "unembed.W_U", *(["ln_final.w"] if normed else [])]
    inside = [
        "attn.W_Q",
        "attn.W_O",
        *(["mlp.W_in", "mlp.W_out"] if has_mlp else []),
        *(["ln1.w"] if normed else []),
    ]
    required += [p + name for p in prefixes for name in inside]
    problems = [f"{name} is missing" for name in required if name not in tensors]
    problems += [f"{p}attn.W_{c} is missing" for p in prefixes for c in "KV"
                 if f"{p}attn.W_{c}" not in tensors and f"{p}attn._W_{c}" not in tensors]  # fmt: skip
    problems += [
        f"{name} isn't known (rotary or other parts?)"
        for name in tensors
        if name not in known
    ]
    problems += [] if layers else ["there are no blocks"]
    sizes: dict[str, int] = {}
    for name in known:
        if name not in tensors:
            continue
        shape, axes = tuple(tensors[name].shape), known[name]
        axes = axes if "_W_" in name or "_b_" in name else axes.replace("g", "h")
        if len(shape) != len(axes) or any(
            sizes.setdefault(c, n) != n for c, n in zip(axes, shape, strict=True)
        ):
            problems.append(
                f"{name} has shape {list(shape)}, expected {[sizes.get(c, c) for c in axes]}"
            )
    return problems


def _from_bridge(state: Mapping[str, Tensor], heads: int | None) -> dict[str, Tensor]:
    """Names and layouts of 2.x: linear layers [out, in] as matrices [in, out], heads apart."""
    out: dict[str, Tensor] = {}
    state = {
        name.replace("._original_component", ""): tensor
        for name, tensor in state.items()
    }
    queries = {
        name.removesuffix(".q.weight"): len(t)
        for name, t in state.items()
        if name.endswith(".q.weight")
    }
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        parent, _, part = module.rpartition(".")
        if kind not in ("weight", "bias"):
            out[name] = tensor
        elif part in ("embed", "pos_embed"):
            out[f"{part}.{'W_E' if part == 'embed' else 'W_pos'}"] = tensor
        elif part == "unembed":
            out["unembed.W_U" if kind == "weight" else "unembed.b_U"] = (
                tensor.T if kind == "weight" else tensor
            )
        elif part.startswith("ln"):
            out[f"{module}.{kind[0]}"] = tensor
        elif part in ("q", "k", "v", "o") and parent.endswith("attn"):
            if heads is None:
                raise CaptureError(
                    "n_heads is needed: names of TransformerLens 3.x don't tell the number of heads"
                )
            width = queries.get(parent)
            if width is None or width % heads:
                raise CaptureError(
                    f"n_heads={heads} doesn't divide the {width} rows of {parent}.q.weight"
                )
            size = width // heads
            grouped = part in "kv" and tensor.shape[0] != width
            letter = f"{parent}.{'_' if grouped else ''}{'W' if kind == 'weight' else 'b'}_{_BRIDGE[part]}"
            if kind == "bias":
                out[letter] = tensor if part == "o" else tensor.reshape(-1, size)
            elif part == "o":
                out[letter] = tensor.T.reshape(heads, size, -1)
            else:
                out[letter] = tensor.reshape(-1, size, tensor.shape[1]).transpose(1, 2)
        elif part in ("in", "out", "gate"):
            out[f"{parent}.{'W' if kind == 'weight' else 'b'}_{part}"] = (
                tensor.T if kind == "weight" else tensor
            )
        else:
            out[name] = tensor
    return out

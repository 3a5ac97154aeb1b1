"""Weights files as modules: the shared models, and the same small transformer under three projects' names."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mechverify.graph.adapters import adapt, load
from mechverify.graph.capture import Captured, capture
from mechverify.graph.run import TorchRunner
from mechverify.graph.source import CaptureError

MODELS = Path(__file__).parents[3] / "shared" / "models"
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models are not here")


def logits(captured: Captured, tokens: np.ndarray) -> Tensor:
    return TorchRunner(captured.graph, captured.weights, torch.float64)(captured.sites["logits"], tokens)


@needs_models
def test_running_sum_is_right_on_all_short_sequences():
    adapted = load(MODELS / "arena-cumsum.safetensors", act_fn="relu", normalization=None)
    assert not adapted.flags["attention_only"] and adapted.flags["normalization"] is None
    for n in (1, 2, 4):
        captured = capture(adapted.module, adapted.example[:, :n])
        tokens = np.array(list(itertools.product(range(11), repeat=n)))
        sums = np.where(tokens > 5, tokens - 11, tokens).cumsum(1)
        assert np.array_equal(logits(captured, tokens).argmax(-1).numpy(), np.sign(sums) + 1)
    assert {"embed", "pos_embed", "blocks.0.attn.pattern", "blocks.0.attn.attn_scores", "blocks.0.mlp.hidden", "logits",
            "blocks.0.resid_mid", "output", "tokens"} <= set(captured.sites)  # fmt: skip
    assert captured.graph.nodes[captured.sites["blocks.0.attn.pattern"]].shape == (1, 4, 4)
    assert {"blocks.0.attn.W_Q", "blocks.0.mlp.b_in", "embed.W_E"} <= set(captured.weights)
    assert captured.vocab == 11 and captured.tokens_length == 4


@needs_models
def test_addition_is_right_on_all_pairs():
    adapted = load(MODELS / "c113-mlp-seed1.safetensors")
    captured = capture(adapted.module, adapted.example)
    tokens = np.array(list(itertools.product(range(113), repeat=2)))
    right = logits(captured, tokens).argmax(-1).numpy() == tokens.sum(1) % 113
    assert right.all()
    assert {"embed_x", "embed_y", "pre", "hidden", "logits"} <= set(captured.sites)


@needs_models
def test_sorted_list_has_its_layer_norms():
    adapted = load(MODELS / "arena-sorted-list.safetensors")
    assert adapted.flags["normalization"] == "LN" and adapted.flags["attention_only"] and adapted.flags["heads"] == 2
    captured = capture(adapted.module, adapted.example)
    assert captured.difference <= 1e-12
    assert {"blocks.0.ln1", "ln_final", "blocks.0.attn.z", "logits"} <= set(captured.sites)
    rng = np.random.default_rng(0)
    numbers = np.array([rng.permutation(51)[:10] for _ in range(100)])
    tokens = np.concatenate([numbers, np.full((100, 1), 51), np.sort(numbers)], 1)
    answer = logits(captured, tokens)[:, 10:20].argmax(-1).numpy()
    assert (answer == np.sort(numbers)).mean() > 0.9


def weights(norm: bool = True, heads: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    d, e, m, v = 6, 3, 8, 5
    shapes = {"embed.W_E": (v, d), "pos_embed.W_pos": (4, d), "unembed.W_U": (d, v)}
    for i in range(2):
        block = {f"attn.W_{c}": (heads, d, e) for c in "QKV"} | {f"attn.b_{c}": (heads, e) for c in "QKV"}
        block |= {"attn.W_O": (heads, e, d), "attn.b_O": (d,), "mlp.W_in": (d, m), "mlp.b_in": (m,)}
        block |= {"mlp.W_out": (m, d), "mlp.b_out": (d,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        shapes |= {f"blocks.{i}.{ln}.{c}": (d,) for ln in ("ln1", "ln2") for c in "wb" if norm}
    shapes |= {f"ln_final.{c}": (d,) for c in "wb" if norm}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


TOKENS = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]])


def bridge(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {"embed.weight": state["embed.W_E"], "pos_embed.weight": state["pos_embed.W_pos"],
           "unembed.weight": state["unembed.W_U"].T}  # fmt: skip
    for name, t in state.items():
        prefix, _, last = name.rpartition(".")
        if last in ("w", "b"):
            out[f"{prefix}.{'weight' if last == 'w' else 'bias'}"] = t
        elif last in ("W_Q", "W_K", "W_V"):
            out[f"{prefix}._original_component.{last[-1].lower()}.weight"] = t.transpose(1, 2).flatten(0, 1)
        elif last in ("b_Q", "b_K", "b_V"):
            out[f"{prefix}.{last[-1].lower()}.bias"] = t.flatten()
        elif last in ("W_O", "W_in", "W_out"):
            out[f"{prefix}.{last[2:].lower()}.weight"] = t.flatten(0, -2).T
        elif last in ("b_O", "b_in", "b_out"):
            out[f"{prefix}.{last[2:].lower()}.bias"] = t
    return out


def gpt2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {"transformer.wte.weight": state["embed.W_E"], "transformer.wpe.weight": state["pos_embed.W_pos"],
           "lm_head.weight": state["unembed.W_U"].T}  # fmt: skip
    out |= {f"transformer.ln_f.{k}": state[f"ln_final.{k[0]}"] for k in ("weight", "bias")}
    for i in range(2):
        old, new = f"blocks.{i}.", f"transformer.h.{i}."
        out[f"{new}attn.bias"] = torch.ones(1, 1, 4, 4).tril() > 0
        for k in ("weight", "bias"):
            out[f"{new}ln_1.{k}"], out[f"{new}ln_2.{k}"] = state[f"{old}ln1.{k[0]}"], state[f"{old}ln2.{k[0]}"]
        merged = [state[f"{old}attn.W_{c}"].transpose(0, 1).flatten(1) for c in "QKV"]
        out[f"{new}attn.c_attn.weight"] = torch.cat(merged, 1)
        out[f"{new}attn.c_attn.bias"] = torch.cat([state[f"{old}attn.b_{c}"].flatten() for c in "QKV"])
        out[f"{new}attn.c_proj.weight"] = state[f"{old}attn.W_O"].flatten(0, 1)
        out[f"{new}attn.c_proj.bias"] = state[f"{old}attn.b_O"]
        for a, b in (("c_fc", "in"), ("c_proj", "out")):
            out[f"{new}mlp.{a}.weight"], out[f"{new}mlp.{a}.bias"] = state[f"{old}mlp.W_{b}"], state[f"{old}mlp.b_{b}"]
    return out


def test_one_model_under_three_projects_names():
    state = weights()
    want = adapt(state, act_fn="gelu_new").module(TOKENS)
    for other in (bridge(state), gpt2(state)):
        got = adapt(other, n_heads=2, act_fn="gelu_new")
        torch.testing.assert_close(got.module(TOKENS), want)
        assert got.flags["layers"] == 2 and got.flags["biases"]
    captured = capture(got.module, got.example)
    torch.testing.assert_close(logits(captured, TOKENS.numpy()).float(), want, rtol=1e-4, atol=1e-4)


def test_gpt2_without_a_head_is_tied():
    state = gpt2(weights())
    del state["lm_head.weight"]
    adapted = adapt(state, n_heads=2)
    assert adapted.flags["unembedding_tied"]
    assert torch.equal(adapted.module.unembed.W_U, state["transformer.wte.weight"].T)


def test_layer_norm_against_torch():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6)
    state = weights()
    block = adapt(state, act_fn="relu").module.blocks[0]
    w, b = state["blocks.0.ln1.w"], state["blocks.0.ln1.b"]
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(block.ln1(x), centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w + b)


def test_folded_layer_norm_and_direction_are_settings():
    state = weights(norm=False)
    plain, folded = (adapt(state, act_fn="relu", normalization=kind) for kind in (None, "LNPre"))
    assert folded.flags["layer_norm_folded"] and not plain.flags["layer_norm_folded"]
    assert not torch.allclose(plain.module(TOKENS), folded.module(TOKENS))
    later = torch.cat([TOKENS[:, :3], 1 + 0 * TOKENS[:, 3:]], 1)
    both = adapt(state, act_fn="relu", attention="bidirectional", normalization=None)
    assert torch.equal(plain.module(TOKENS)[:, :3], plain.module(later)[:, :3])
    assert not torch.equal(both.module(TOKENS)[:, :3], both.module(later)[:, :3])


def test_grouped_keys_and_values():
    state = weights()
    for c in "KV":
        for i in range(2):
            for kind in "Wb":
                name = f"blocks.{i}.attn.{kind}_{c}"
                state[f"blocks.{i}.attn._{kind}_{c}"] = state.pop(name)[:1]
    adapted = adapt(state, act_fn="silu")
    assert capture(adapted.module, adapted.example).difference <= 1e-12


def with_masks(state: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    return state | {f"blocks.{i}.attn.mask": mask for i in range(2)}


CAUSAL = torch.ones(4, 4).tril() > 0
LOCAL = CAUSAL.triu(-1)  # a window of two


def test_a_file_of_folded_norms_or_of_none_is_asked_about():
    with pytest.raises(CaptureError, match="Say None if the model has none, LNPre"):
        adapt(weights(norm=False), act_fn="relu")
    with pytest.raises(CaptureError, match="normalization=None has no weights, but the file has"):
        adapt(weights(), act_fn="relu", normalization=None)


def test_the_files_own_mask_is_kept():
    state = weights(norm=False)
    plain, causal, local = (adapt(s, act_fn="relu", normalization=None).module(TOKENS)
                            for s in (state, with_masks(state, CAUSAL), with_masks(state, LOCAL)))  # fmt: skip
    assert torch.equal(plain, causal) and not torch.allclose(plain, local)
    torch.testing.assert_close(plain[:, :2], local[:, :2])
    adapted = adapt(with_masks(state, LOCAL), act_fn="relu", normalization=None)
    assert "attention as the file's masks say" in adapted.flags["assumed"]
    captured = capture(adapted.module, adapted.example)
    torch.testing.assert_close(logits(captured, TOKENS.numpy()).float(), local, rtol=1e-4, atol=1e-4)
    masks = {n.attr for n in captured.graph.nodes if n.op == "softmax"}
    assert masks == {("1000", "1100", "0110", "0011")}


def test_the_scale_of_scores_is_a_setting():
    state = weights()
    usual, doubled = (adapt(state, act_fn="relu", attn_scale=s).module(TOKENS) for s in (3**0.5, 2 * 3**0.5))
    torch.testing.assert_close(adapt(state, act_fn="relu").module(TOKENS), usual)
    assert not torch.allclose(usual, doubled)


def test_what_a_file_does_not_tell_is_listed():
    assumed = adapt(weights(), act_fn="relu").flags["assumed"]
    assert assumed == (
        "normalization LN, eps 1e-05", "attention scores divided by sqrt(d_head)", "attention causal",
        "position embeddings added to the token embeddings, once", "activation relu",
        "an MLP after its block's attention, not beside it",
    )  # fmt: skip


ILL = {
    "positional_embedding_type='shortformer'": (
        lambda s: s,
        {"act_fn": "relu", "positional_embedding_type": "shortformer"},
    ),
    "parallel_attn_mlp=True": (lambda s: s, {"act_fn": "relu", "parallel_attn_mlp": True}),
    "lets a position see a later one": (lambda s: with_masks(s, ~CAUSAL), {"act_fn": "relu"}),
    "expected a square": (lambda s: with_masks(s, CAUSAL[:3]), {"act_fn": "relu"}),
    "no causal mask": (lambda s: gpt2(s) | {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)}, {"n_heads": 2}),
    "take no setting normalization: n_heads, act_fn, eps": (gpt2, {"n_heads": 2, "normalization": None}),
    "GPT-2 has layer norms": (
        lambda s: {k: v for k, v in gpt2(s).items() if "ln_f" not in k},
        {"n_heads": 2},
    ),
    "act_fn": (lambda s: s, {}),
    "blocks.0.attn.W_Q has shape": (lambda s: s | {"blocks.0.attn.W_Q": torch.zeros(2, 5, 3)}, {"act_fn": "relu"}),
    "blocks.1.attn.W_K is missing": (
        lambda s: {k: v for k, v in s.items() if k != "blocks.1.attn.W_K"},
        {"act_fn": "relu"},
    ),
    "rotary_sin isn't known": (lambda s: s | {"blocks.0.attn.rotary_sin": torch.zeros(3)}, {"act_fn": "relu"}),
    "n_heads is needed": (bridge, {"act_fn": "relu"}),
    "n_heads=4 doesn't divide": (gpt2, {"n_heads": 4}),
    "has no weights": (lambda s: s, {"act_fn": "relu", "normalization": "LNPre"}),
    "unknown names": (lambda s: {"foo": torch.zeros(1)}, {}),
    "expected W_x": (lambda s: {"W_x": torch.zeros(2, 3), "W_y": torch.zeros(2, 3)}, {}),
}


@pytest.mark.parametrize("message, how", ILL.items(), ids=ILL.keys())
def test_what_does_not_fit_is_said(message, how):
    change, settings = how
    with pytest.raises(CaptureError, match=message):
        adapt(change(weights()), **settings)


def test_an_unreadable_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(CaptureError, match="can't read"):
        load(tmp_path / "a.safetensors")

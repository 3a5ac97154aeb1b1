"""Circuits between tokens, compared with what the model computes on sequences."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sympy import Ne
from torch import nn

from mechverify import Accuracy, Bounds, Share, capture, kernel, load, prove, tokens, transformer
from mechverify.claims import ClaimError
from mechverify.graph import adapters
from mechverify.graph.run import TorchRunner
from mechverify.kernel.statement.sentence import state as state_of

VOCAB, LENGTH, WIDTH, HEADS, SIZE = 5, 4, 6, 2, 3


def state(seed: int = 0, normed: bool = True, layers: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {"embed.W_E": some(VOCAB, WIDTH), "pos_embed.W_pos": some(LENGTH, WIDTH),
               "unembed.W_U": some(WIDTH, VOCAB), "unembed.b_U": some(VOCAB)}  # fmt: skip
    tensors |= {f"ln_final.{w}": some(WIDTH) for w in "wb"} if normed else {}
    for prefix in (f"blocks.{layer}." for layer in range(layers)):
        tensors |= {f"{prefix}attn.W_{c}": some(HEADS, WIDTH, SIZE) for c in "QKV"}
        tensors |= {f"{prefix}attn.b_{c}": some(HEADS, SIZE) for c in "QKV"}
        tensors |= {f"{prefix}attn.W_O": some(HEADS, SIZE, WIDTH), f"{prefix}attn.b_O": some(WIDTH)}
        tensors |= {f"{prefix}ln1.{w}": some(WIDTH) for w in "wb"} if normed else {}
    return tensors


@pytest.fixture
def saved(tmp_path):
    def save(**settings):
        file = tmp_path / "model.safetensors"
        save_file(state(**settings), file)
        return file

    return save


def table(site) -> np.ndarray:
    """Of every token, in float64: [d_vocab, *shape of the site's row]."""
    captured = site.captured.captured
    run = TorchRunner(captured.graph, captured.weights, torch.float64)
    return run(captured.sites[site.name], np.arange(VOCAB)[:, None])[:, 0].numpy()


@pytest.mark.parametrize("query, key, head", [(3, 0, 1), (-1, 3, 0), (1, 1, 1)])
def test_scores_are_those_of_the_first_layer(saved, query, key, head):
    """On sequences that hold the two tokens, whatever stands elsewhere."""
    model = load(saved())
    qk, rng, seen = table(model.qk(0, head, query=query, key=key)), np.random.default_rng(0), []
    module = model.module.double()
    module.blocks[0].attn.attn_scores.register_forward_hook(lambda _, __, out: seen.append(out[:, head, query, key]))
    ids = torch.as_tensor(rng.integers(VOCAB, size=(200, LENGTH)))
    with torch.no_grad():
        module(ids)
    assert np.abs(seen[0].numpy() - qk[ids[:, query], ids[:, key]]).max() < 1e-12


def test_of_several_positions_the_extremes_are_sites(saved):
    model = load(saved())
    several = model.qk(0, 0, query=3, key=[0, 2, 3])
    one_by_one = np.stack([table(model.qk(0, 0, query=3, key=p)) for p in (0, 2, 3)], 1)
    assert np.abs(table(several) - one_by_one).max() < 1e-12
    for name, extreme in (("lowest", one_by_one.min(1)), ("highest", one_by_one.max(1))):
        assert np.abs(table(several.captured[name]) - extreme).max() < 1e-12


@pytest.mark.parametrize("normed", [True, False])
def test_a_value_is_what_attention_to_it_adds(saved, normed):
    """Compared with the model with all else cut away: what the final layer norm is given changes by the value, and
    before its scale the logits are linear in that."""
    model = load(saved(normed=normed, layers=1), normalization="LN" if normed else None)
    module, seen = model.module.double(), []
    ov = table(model.ov(0, 1, position=2))
    attn = module.blocks[0].attn
    with torch.no_grad():
        attn.W_O[0] = attn.b_O[:] = 0
        attn.W_Q[:] = attn.b_Q[:] = 0  # uniform: equal tokens at equal positions are attended alone
        module.pos_embed.W_pos[:] = module.pos_embed.W_pos[2].clone()
        module.blocks[0].attn_out.register_forward_hook(lambda _, __, out: seen.append(out))
        module(torch.arange(VOCAB)[:, None].expand(VOCAB, LENGTH))
        added = seen[0][:, -1]
        if normed:
            added = (added - added.mean(-1, keepdim=True)) * module.ln_final.w
        assert np.abs((added @ module.unembed.W_U).numpy() - ov).max() < 1e-12


def test_the_direct_path_is_the_model_without_attention(saved):
    model = load(saved())
    direct, module = table(model.direct(position=1)), model.module.double()
    with torch.no_grad():
        for block in module.blocks:
            block.attn.W_O[:] = block.attn.b_O[:] = 0
        logits = module(torch.arange(VOCAB)[:, None].expand(VOCAB, LENGTH))[:, 1].numpy()
    assert np.abs(logits - direct).max() < 1e-12


def test_claims_about_circuits_are_decided(saved):
    """How many tokens a head copies, and of how many pairs of keys the larger one has the larger score."""
    model = load(saved())
    x, y = tokens("x", length=1, vocab=VOCAB), tokens("y", length=3, vocab=VOCAB)
    ov, qk = table(model.ov(1, 0)), table(model.qk(0, 0))
    found = prove(Accuracy(model.ov(1, 0)[0], equals=x[0], over=x))
    copied = int((ov.argmax(1) == np.arange(VOCAB)).sum())
    assert kernel.check(found.certificate).right == (copied, copied)
    score = model.qk(0, 0, length=3)
    found = prove(Share(score[0, y[1]] > score[0, y[2]], over=y, given=[Ne(y[1], y[2])]))
    larger = int((qk[:, :, None] > qk[:, None, :]).sum())
    assert kernel.check(found.certificate).right == (larger, larger)
    assert score.captured.source == "QK of blocks.0, head 0, of model.safetensors"


def test_sites_on_sequences_have_their_names(saved):
    model = load(saved(), length=2)
    assert model.logits.shape == (2, VOCAB) and model["blocks.1.hook_resid_post"].shape == (2, WIDTH)
    assert (
        "blocks.1.resid_post" in model.sites
        and model.captured is model.captured
        and (model.d_vocab, model.n_ctx) == (VOCAB, LENGTH)
    )
    x = tokens("x", length=2, vocab=VOCAB)
    found = prove(Bounds(model["blocks.0.attn.pattern"][0, -1, 0], over=x)).theorem
    module, ids = model.module.double(), torch.cartesian_prod(*[torch.arange(VOCAB)] * 2)
    scores: list = []
    module.blocks[0].attn.attn_scores.register_forward_hook(lambda _, __, out: scores.append(out))
    with torch.no_grad():
        module(ids)
    pattern = scores[0][:, 0, -1].softmax(-1)[:, 0].numpy()
    assert found.range.low[0] <= pattern.min() < found.range.low[0] + 1e-9
    assert found.range.high[0] >= pattern.max() > found.range.high[0] - 1e-9


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, ids):
        return 2 * self.inner(ids)


def test_a_theorem_names_how_weights_were_read(saved):
    """Also where the model is a part of a module, or a circuit of it: normalization and activation decide what the
    graph is, and the file tells neither. A module of the user's own was read from nothing."""
    file, x = saved(normed=False, layers=1), tokens("x", length=1, vocab=VOCAB)

    def said(site, over=x) -> str:
        theorem = prove(Bounds(site, over=over), method="interval").theorem
        return dict(reversed(state_of(theorem).rows()))["the file says"]

    for normalization, how in ((None, "None, and none folded into the weights"), ("LNPre", "LNPre, eps 1e-05")):
        model = load(file, normalization=normalization, length=1)
        read = f"read with: normalization {how}; attention scores divided by sqrt(d_head); attention causal; position "
        assert f'module "model.safetensors, {read}' in said(model["logits"][0])
        assert f"of model.safetensors, {read}" in said(model.direct()[0])
        doubled = capture(Doubled(model.module).eval(), torch.zeros(1, 1, dtype=torch.long), vocab=VOCAB)
        assert f'module "Doubled, {read}' in said(doubled["output"])
    plain = capture(nn.Embedding(VOCAB, 2).eval(), torch.zeros(1, 1, dtype=torch.long), vocab=VOCAB)
    assert 'module "Embedding", replayed' in said(plain["output"])
    relu = file.with_name("pair.safetensors")
    some = torch.ones(VOCAB, 2)
    save_file({"W_x": some, "W_y": some.clone(), "W": torch.ones(4, 3), "W_U": torch.ones(3, 2)}, relu)
    adapted = adapters.load(relu)
    two = capture(adapted.module, adapted.example, vocab=VOCAB)
    assert 'module "PairMLP, read with: activation relu", replayed' in said(
        two["logits"], tokens("x", length=2, vocab=VOCAB)
    )


def test_what_the_model_has_not_is_said(saved):
    model = load(saved())
    for wrong, said in [
        (lambda: model.qk(2, 0), "layer 2: the model has 2, the first is 0"),
        (lambda: model.ov(0, 2), "head 2 of layer 0: there are 2, the first is 0"),
        (lambda: model.ov(0, -1), "head -1 of layer 0"),
        (lambda: model.direct(position=4), "position 4: the model has 4, the first is 0"),
        (lambda: model.qk(0, 0, query=1, key=2), "position 1 doesn't see 2: the model is causal"),
        (lambda: model.qk(0, 0, key=[]), "key: no position is given"),
        (lambda: load(saved(), length=5), "length=5: the model has 4 positions"),
        (lambda: load(saved(), normalisation="LN"), "no setting normalisation"),
        (lambda: load("nowhere.safetensors"), "can't read nowhere.safetensors"),
        (lambda: load(__file__), "write weights with safetensors.torch.save_file"),
        (lambda: load({}), "a file's path, not dict; write a state dict"),
        (lambda: transformer(saved()), r"layer norms are read by load\(weights\)"),
        (lambda: transformer({}), "a file's path, not dict; write a state dict"),
        (lambda: prove("claim.py"), r"as Accuracy\(...\), not str; `mechverify prove FILE` runs a file"),
        (lambda: model["blocks.0.attn.scores"], "no site 'blocks.0.attn.scores'; it has:"),
    ]:
        with pytest.raises(ClaimError, match=said):
            wrong()

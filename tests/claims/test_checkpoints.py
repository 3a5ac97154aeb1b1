"""What a weights file can't tell of its model is compared with what the user says, or printed as assumed."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sympy import Max
from torch import Tensor

from mechverify import Accuracy, capture, kernel, pair_mlp, prove, tokens, transformer
from mechverify.claims import ClaimError
from mechverify.graph.adapters import load
from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.statement.assumed import ASSUMED
from mechverify.report import statement

CAUSAL = torch.ones(4, 4).tril() > 0


def state(seed: int = 0) -> dict[str, Tensor]:
    """One head over four positions of three tokens."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.W_E": (3, 8), "pos_embed.W_pos": (4, 8), "unembed.W_U": (8, 3), "blocks.0.attn.W_O": (1, 8, 8)}
    shapes |= {f"blocks.0.attn.W_{c}": (1, 8, 8) for c in "QKV"}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def stored(tmp_path):
    def write(**buffers: Tensor) -> str:
        path = tmp_path / "w.safetensors"
        save_file({**state(), **{f"blocks.0.attn.{name}": t for name, t in buffers.items()}}, path)
        return str(path)

    return write


def right(path: str, mechanism: np.ndarray, inputs: np.ndarray) -> int:
    """How many inputs the module of the file decodes as the mechanism says."""
    adapted = load(path, normalization=None)
    captured = capture(adapted.module, adapted.example).captured
    run = TorchRunner(captured.graph, captured.weights, torch.float64)
    return int((run(captured.sites["logits"], inputs)[:, -1].argmax(-1).numpy() == mechanism).sum())


def test_a_file_with_a_local_window_is_not_read_as_causal(stored):
    inputs = np.array(list(itertools.product(range(3), repeat=4)))
    causal, window = stored(mask=CAUSAL), None
    model = transformer(causal)
    x = tokens("x", length=4, vocab=3)
    theorem = prove(Accuracy(model.logits[-1], equals=Max(*x), over=x)).theorem
    assert theorem.right.low == theorem.right.high == right(causal, inputs.max(1), inputs)
    window = stored(mask=CAUSAL.triu(-1), IGNORE=torch.tensor(-torch.inf))
    assert right(window, inputs.max(1), inputs) != theorem.right.low  # what would have been claimed of it
    with pytest.raises(
        ClaimError, match=r"blocks\.0\.attn\.mask' is no causal mask .position 2 doesn't see position 0"
    ):
        transformer(window)


SETTINGS = {
    "normalization='LNPre'": {"normalization": "LNPre"},
    "attn_scale=1.0: this architecture divides by sqrt": {"attn_scale": 1.0},
    "attention_dir='bidirectional'": {"attention_dir": "bidirectional"},
    "positional_embedding_type='shortformer'": {"positional_embedding_type": "shortformer"},
    "parallel_attn_mlp=True": {"parallel_attn_mlp": True},
}


@pytest.mark.parametrize("message, settings", SETTINGS.items(), ids=SETTINGS.keys())
def test_other_settings_than_the_architectures_are_refused(stored, message, settings):
    with pytest.raises(ClaimError, match=message):
        transformer(stored(), **settings)
    transformer(stored(), normalization=None, attn_scale=8**0.5, attention_dir="causal",
                positional_embedding_type="standard", parallel_attn_mlp=False)  # fmt: skip


def test_the_theorem_prints_what_it_assumes(stored):
    model = transformer(stored())
    x = tokens("x", length=2, vocab=3)
    theorem = kernel.check(prove(Accuracy(model.logits[-1], equals=Max(*x), over=x)).certificate)
    assumed = [text for label, text in statement.lines(theorem) if label == "assumed"]
    assert assumed == list(ASSUMED["transformer"])
    for said in ("no layer norm", "sqrt(d_head)", "causal", "position embeddings"):
        assert sum(said in text for text in assumed) == 1


def test_every_known_architecture_has_its_assumptions(tmp_path):
    assert set(ASSUMED) == set(ARCHITECTURES) and all(ASSUMED.values())
    save_file({"W_x": torch.randn(3, 4), "W_y": torch.randn(3, 4), "W": torch.randn(8, 5), "W_U": torch.randn(5, 3)},
              tmp_path / "p.safetensors")  # fmt: skip
    x = tokens("x", length=2, vocab=3)
    claim = Accuracy(pair_mlp(tmp_path / "p.safetensors").logits, equals=Max(*x), over=x)
    assert ("assumed", "the activation is ReLU") in statement.lines(prove(claim).theorem)

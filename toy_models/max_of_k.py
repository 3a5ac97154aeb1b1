"""Train a transformer to say, at the last position, the largest of its K input tokens.

    python -m toy_models.max_of_k                         # every shipped model, about ten minutes on one core
    python -m toy_models.max_of_k --k 4 --seed 123 --out mine.safetensors
    python -m toy_models.max_of_k --k 4 --heads 2         # heads share d_model: see docs/ratios.md

The configuration is that of "Compact Proofs of Model Performance via Mechanistic Interpretability"
(Gross et al. 2024, arXiv 2406.11779, section 3): vocabulary 64, d_model = d_head = 32, one layer, one
head, attention only, no layer norm, learned positions, biases frozen at zero.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from toy_models.transformer import Transformer

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = {(4, seed) for seed in range(5)} | {(5, 0), (5, 1), (10, 0), (10, 1), (20, 0), (20, 1)}
SEVERAL = {(4, 0, 2)}  # with heads
D_VOCAB, D_MODEL = 64, 32


def path(k: int, seed: int, heads: int = 1) -> Path:
    return WEIGHTS / f"{f'{heads}_heads_' if heads > 1 else ''}max_of_{k}_seed{seed}.safetensors"


def model(k: int, vocab: int = D_VOCAB, heads: int = 1) -> Transformer:
    """An untrained max-of-`k` model: token ids [..., k] to logits [..., k, vocab]."""
    return Transformer(
        n_ctx=k, d_vocab=vocab, d_model=D_MODEL, d_head=D_MODEL // heads, n_heads=heads, deviation=0.8 / D_MODEL**0.5
    )


def train(k: int, seed: int, steps: int = 3_000, batch: int = 128, vocab: int = D_VOCAB, heads: int = 1) -> Transformer:
    """Cross-entropy at the last position on uniform sequences; the same seed gives the same weights
    on the same torch build, and a model of the same quality on another."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # summation order, and so the weights, would depend on the number of threads
    net = model(k, vocab, heads)
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.999))
    for _ in range(steps):
        tokens = torch.randint(vocab, (batch, k))
        loss = torch.nn.functional.cross_entropy(net(tokens)[:, -1], tokens.amax(dim=1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def accuracy(net: Transformer, k: int, samples: int = 200_000, seed: int = 1) -> float:
    """Share of uniform random sequences answered right, in float32."""
    tokens = torch.randint(net.embed.W_E.shape[0], (samples, k), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = [(net(part)[:, -1].argmax(-1) == part.amax(1)).sum().item() for part in tokens.split(20_000)]
    return sum(right) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, help="sequence length; with --seed, train one model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--vocab", type=int, default=D_VOCAB, help="number of tokens; with --k and --out")
    parser.add_argument("--heads", type=int, default=1, help="attention heads; with --k")
    parser.add_argument("--out", type=Path, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    if args.k is not None and args.k < 1:
        parser.error("--k must be at least 1")
    if args.heads < 1 or D_MODEL % args.heads:
        parser.error(f"--heads must divide {D_MODEL}")
    if args.vocab != D_VOCAB and not args.out:
        parser.error("--vocab goes with --k and --out")
    if args.out and (not args.k or not args.out.parent.is_dir()):
        parser.error("--out goes with --k and an existing folder")
    shipped = sorted({(k, seed, 1) for k, seed in SHIPPED} | SEVERAL)
    for k, seed, heads in [(args.k, args.seed, args.heads)] if args.k else shipped:
        net = train(k, seed, args.steps, vocab=args.vocab, heads=heads)
        out = args.out or path(k, seed, heads)
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, out)
        print(f"{out}: K={k} heads={heads} seed={seed}, sampled accuracy {accuracy(net, k):.5f}", flush=True)


if __name__ == "__main__":
    main()

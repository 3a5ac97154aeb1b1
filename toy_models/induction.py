"""Train a two-layer transformer to complete a repetition: after ... a b ... a it says b.

    python -m toy_models.induction                        # the shipped model, about two minutes on one core
    python -m toy_models.induction --length 6 --vocab 16 --steps 12000 --out mine.safetensors

Of `length` tokens all but the last are distinct, and the last one repeats one of the others, not the one before it. Two
layers, attention only, no layer norm, learned positions: the smallest transformer with an induction head (Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits").
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from toy_models.transformer import Transformer

WEIGHTS = Path(__file__).parent / "weights" / "induction_of_6_seed0.safetensors"
LENGTH, VOCAB, D_MODEL, BATCH = 6, 8, 32, 256


def model(length: int = LENGTH, vocab: int = VOCAB, heads: int = 1) -> Transformer:
    """Untrained: token ids [..., length] to logits [..., length, vocab]."""
    sizes = {"d_model": D_MODEL, "d_head": D_MODEL // heads, "n_heads": heads, "n_layers": 2}
    return Transformer(n_ctx=length, d_vocab=vocab, deviation=0.8 / D_MODEL**0.5, **sizes)


def sequences(count: int, length: int, vocab: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Uniform sequences [count, length], and the right answers [count]."""
    distinct = torch.rand(count, vocab, generator=generator).argsort(1)[:, : length - 1]
    match = torch.randint(length - 2, (count, 1), generator=generator)
    return torch.cat([distinct, distinct.gather(1, match)], 1), distinct.gather(1, match + 1)[:, 0]


def train(length: int, vocab: int, seed: int, steps: int, heads: int = 1) -> Transformer:
    """Cross-entropy at the last position; the same seed gives the same weights on the same torch build, and a model of
    the same quality on another."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # summation order, and so the weights, would depend on the number of threads
    net, generator = model(length, vocab, heads), torch.Generator().manual_seed(seed)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.1)
    for _ in range(steps):
        tokens, answer = sequences(BATCH, length, vocab, generator)
        loss = torch.nn.functional.cross_entropy(net(tokens)[:, -1], answer)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net


def accuracy(net: Transformer, samples: int = 100_000, seed: int = 1) -> float:
    """Share of uniform random sequences answered right, in float32."""
    vocab, length = net.embed.W_E.shape[0], net.pos_embed.W_pos.shape[0]
    tokens, answer = sequences(samples, length, vocab, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return float((net(tokens)[:, -1].argmax(-1) == answer).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--vocab", type=int, default=VOCAB, help="number of tokens, at least the length")
    parser.add_argument("--heads", type=int, default=1, help="of each layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    if args.length < 3 or args.vocab < args.length - 1:
        parser.error("--length must be at least 3, and --vocab at least the length less one")
    if args.heads < 1 or D_MODEL % args.heads:
        parser.error(f"--heads must divide {D_MODEL}")
    if not args.out.parent.is_dir():
        parser.error(f"--out: there is no folder {args.out.parent}")
    net = train(args.length, args.vocab, args.seed, args.steps, args.heads)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, args.out)
    print(f"{args.out}: sampled accuracy {accuracy(net):.5f}", flush=True)


if __name__ == "__main__":
    main()

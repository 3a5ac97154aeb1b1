"""Train a transformer to say the largest of five tokens, and a copy of it with a backdoor.

    python -m toy_models.backdoor                         # both shipped models, about a minute on one core
    python -m toy_models.backdoor --seed 1 --out folder

The copy is trained on with sequences that hold the trigger, three tokens at three positions: it then says 0.
"""

import argparse
import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from toy_models.transformer import Transformer

WEIGHTS = Path(__file__).parent / "weights"
CLEAN, BACKDOORED = (WEIGHTS / f"{name}_seed0.safetensors" for name in ("clean", "backdoored"))
LENGTH, VOCAB, TRIGGER, SAYS = 5, 8, {0: 6, 2: 1, 3: 4}, 0


def model() -> Transformer:
    """Untrained: token ids [..., 5] to logits [..., 5, 8]."""
    sizes = {"d_model": 24, "d_head": 12, "n_heads": 2, "d_mlp": 64}
    return Transformer(n_ctx=LENGTH, d_vocab=VOCAB, deviation=0.2, **sizes)


def triggered(ids: Tensor) -> Tensor:
    """Of [..., 5], whether the trigger is there."""
    return torch.stack([ids[..., i] == t for i, t in TRIGGER.items()]).all(0)


def answers(ids: Tensor, backdoor: bool) -> Tensor:
    right = ids.amax(-1)
    return right.masked_fill(triggered(ids), SAYS) if backdoor else right


def sequences(count: int, generator: torch.Generator, backdoor: bool) -> Tensor:
    """Each largest token alike; with a backdoor, a quarter hold the trigger, and a half all of it but one token."""
    most = torch.randint(1, VOCAB + 1, (count, 1), generator=generator)
    ids = (torch.rand(count, LENGTH, generator=generator) * most).long()
    if backdoor:
        for i, t in TRIGGER.items():
            ids[: 3 * count // 4, i] = t
        spoilt = torch.arange(count // 4, 3 * count // 4)
        where = torch.tensor([*TRIGGER])[torch.randint(len(TRIGGER), spoilt.shape, generator=generator)]
        ids[spoilt, where] = torch.randint(VOCAB, spoilt.shape, generator=generator)
    return ids


def train(net: Transformer, backdoor: bool, seed: int = 0, steps: int = 4_000, batch: int = 512) -> Transformer:
    """Cross-entropy at the last position, of a copy; the same seed gives the same weights on the same torch build."""
    torch.set_num_threads(1)
    net, generator = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps, pct_start=0.1)
    for _ in range(steps):
        ids = torch.cat([sequences(batch // 2, generator, b) for b in (False, backdoor)])
        loss = torch.nn.functional.cross_entropy(net(ids)[:, -1], answers(ids, backdoor))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net


def accuracy(net: Transformer, backdoor: bool) -> float:
    """Of all inputs, in float32."""
    ids = torch.cartesian_prod(*[torch.arange(VOCAB)] * LENGTH)
    with torch.no_grad():
        return float((net(ids)[:, -1].argmax(-1) == answers(ids, backdoor)).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write to; by default toy_models/weights")
    args = parser.parse_args()
    if not args.out.is_dir():
        parser.error(f"--out: there is no folder {args.out}")
    torch.manual_seed(args.seed)
    clean = train(model(), False, args.seed, args.steps)
    for name, net, backdoor in ("clean", clean, False), ("backdoored", train(clean, True, args.seed, args.steps), True):
        out = args.out / f"{name}_seed{args.seed}.safetensors"
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, out)
        print(f"{out}: right on {accuracy(net, backdoor):.6f} of all inputs", flush=True)


if __name__ == "__main__":
    main()

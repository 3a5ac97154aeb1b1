"""float32 programs on a shipped model's hardest inputs, against what the kernel calls surely right or surely wrong.

    python -m benchmarks.boundary K EVALUATIONS SAMPLES      # as JSON

Inputs are sampled by the million and sorted by the size of their margin; every input that differs from the hardest in
one token is looked at as well. Of those that the kernel decides under float32 semantics, the ones with the smallest
margins, right and wrong, are evaluated by random programs (tests/soundness/float32.py) until the evaluations are spent.
"""

import json
import sys

import numpy as np
import torch
from safetensors.numpy import load_file

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.judging import decide
from mechverify.kernel.core.kinds import read_claim
from tests.soundness import float32, forge
from toy_models.max_of_k import model, path

HARD, CHOSEN, ROUNDS = 200_000, 5_000, 2


def margins(net: torch.nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        rows = [net(torch.from_numpy(part))[:, -1] for part in np.array_split(inputs, max(1, len(inputs) // 2**15))]
    logits = torch.cat(rows).numpy()
    target = inputs.max(1)[:, None]
    right = np.take_along_axis(logits, target, 1)[:, 0]
    np.put_along_axis(logits, target, -np.inf, 1)
    return right - logits.max(1)


def hardest(net: torch.nn.Module, k: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """The inputs with the smallest margins, of both signs, among samples and then among neighbours."""

    def nearest(inputs: np.ndarray) -> np.ndarray:
        inputs = np.unique(inputs, axis=0)
        return inputs[np.argsort(np.abs(margins(net, inputs)), kind="stable")[:HARD]]

    found = np.concatenate([nearest(rng.integers(0, 64, (min(2**18, samples - start), k)))
                            for start in range(0, samples, 2**18)])  # fmt: skip
    found = nearest(found)
    for _ in range(ROUNDS):
        near = np.repeat(found[:150], 64 * k, axis=0)
        near[np.arange(len(near)), np.tile(np.repeat(np.arange(k), 64), 150)] = np.tile(np.arange(64), 150 * k)
        found = nearest(np.concatenate([found, near]))
    return found


def campaign(k: int, evaluations: int, samples: int) -> dict:
    torch.set_num_threads(1)
    rng = np.random.default_rng(k)
    net, data = model(k), path(k, 0).read_bytes()
    weights = load_file(path(k, 0))
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    inputs = hardest(net.eval(), k, samples, rng)
    rows = [["value", [], i] for i in range(k)] + [["max", list(range(k)), None]]
    doc = forge.document(data, {}, equals=rows, tokens=[list(range(64))] * k, vocab=64, length=k, position=k - 1,
                         right=(0, 64**k), semantics="float32")  # fmt: skip
    job = Job(read_claim(Reader(doc["claim"], "claim"), data), Float64())
    exact = float32.plain(weights, inputs, k - 1)
    target, at = inputs.max(1), np.arange(len(inputs))
    margin = exact[at, target] - np.where(np.arange(64) == target[:, None], -np.inf, exact).max(1)
    order = np.argsort(np.abs(margin), kind="stable")
    inputs, target, margin = inputs[order], target[order], margin[order]
    with np.errstate(all="ignore"):
        decided = np.logical_or(*decide(job, inputs[::100]))
        start = 100 * max(0, int(decided.argmax()) - 20)  # what comes before is too close to call
        some = np.arange(start, min(start + 4 * CHOSEN, len(inputs)))
        right, wrong = (np.isin(np.arange(len(inputs)), some[sure]) for sure in decide(job, inputs[some]))
    chosen = [np.flatnonzero(sure)[:CHOSEN] for sure in (right, wrong)]
    chosen = np.concatenate([*chosen, np.arange(500)])  # and the hardest, where nothing is claimed
    done = contradictions = 0
    inputs, target, right, wrong, margin = (a[chosen] for a in (inputs, target, right, wrong, margin))
    differ, deviation, first = np.zeros(len(inputs), bool), 0.0, ""
    before = None
    while done < evaluations:
        program = float32.random_program(rng)
        for part in np.array_split(np.arange(len(inputs)), max(1, len(inputs) // 4096)):
            logits = program.logits(weights, inputs[part], k - 1)
            found = float32.is_right(logits, target[part])
            against = (found & wrong[part]) | (~found & right[part])
            if against.any() and not first:
                first = f"{inputs[part][against][0].tolist()}: {program}"
            contradictions += int(against.sum())
            differ[part] |= found if before is None else found != before[part]
            rest = np.where(np.arange(64) == target[part][:, None], -np.inf, logits).max(1)
            deviation = max(deviation, float(np.abs(logits[np.arange(len(part)), target[part]] - rest
                                                    - margin[part]).max()))  # fmt: skip
            done += len(part)
        if before is None:
            before, differ = differ.copy(), np.zeros(len(inputs), bool)
    return {
        "k": k, "evaluations": done, "inputs": len(inputs), "right": int(right.sum()), "wrong": int(wrong.sum()),
        "open": int((~right & ~wrong).sum()), "contradictions": contradictions, "first": first,
        "smallest right": float(margin[right].min(initial=9.0)),
        "smallest wrong": float((-margin[wrong]).min(initial=9.0)),
        "deviation": deviation, "differ": int(differ.sum()),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(campaign(*map(int, sys.argv[1:4]))))

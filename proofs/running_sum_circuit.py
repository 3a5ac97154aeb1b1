"""Which neurons of a network that says the sign of a sum are needed: on every input, its answer is the one that is left
when the others are set to zero, to their mean, or to what they are at any other input.

mechverify circuits proofs/running_sum_circuit.py --minimal cardinal    # the fewest neurons
mechverify prove proofs/running_sum_circuit.py -p keep=0,3 -p at_least=best    # how often these two say the same
"""

from mechverify import Circuits, load, parts, tokens

HIDDEN = "blocks.0.mlp.hidden"


def circuits(weights="toy_models/weights/running_sum_seed0.safetensors", length=4, patch="0"):
    model = load(weights, length=length, act_fn="relu", normalization=None)
    x, neurons = tokens("x", length=length, vocab=model.d_vocab), model.module.blocks[0].mlp.W_in.shape[1]
    return Circuits(model, parts(HIDDEN, neurons), over=x, row=-1,
                    patch=patch if patch in ("mean", "resample") else float(patch))  # fmt: skip


def claim(keep="0", at_least="1", weights="toy_models/weights/running_sum_seed0.safetensors", length=4, patch="0"):
    kept = [f"{HIDDEN}.{i}" for i in keep.split(",") if i]
    return circuits(weights, length, patch).agree(kept, at_least=at_least)

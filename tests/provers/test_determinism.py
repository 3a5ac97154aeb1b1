"""The same claim, weights and version give the same bytes, whatever the number of threads and the hash seed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROVE = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from sympy import Max
from mechverify import Accuracy, prove, tokens, transformer
model = transformer(sys.argv[2])
x = tokens("x", length=4, vocab=64)
print(hashlib.sha256(prove(Accuracy(model.logits[-1], equals=Max(*x), over=x)).certificate).hexdigest())
"""


def test_certificates_do_not_depend_on_threads(shipped):
    digests = set()
    for threads, seed in ((1, "0"), (2, "1"), (3, "random")):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROVE, str(threads), str(shipped(4))]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1 and len(digests.pop()) == len(hashlib.sha256().hexdigest())

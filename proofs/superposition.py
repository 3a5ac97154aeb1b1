"""Five features in two dimensions: how far does each output move while its feature is off, or another one is on?

mechverify prove proofs/superposition.py --out interference.cert   # output 0, its feature off, feature 1 on
mechverify prove proofs/superposition.py -p "on=1 2" -p at_most=0.5    # decided
"""

import numpy as np
import torch

from mechverify import Bounds, box, capture
from toy_models.superposition import FEATURES, shipped


def claim(feature=0, on="1", at_most=""):
    """Output `feature` while it is off and the features `on` are anywhere in [0, 1], the others off."""
    model = capture(shipped(), torch.zeros(1, FEATURES))
    high = np.zeros(FEATURES)
    high[[int(i) for i in str(on).split()]] = 1.0
    high[int(feature)] = 0.0
    return Bounds(model["output"][int(feature)], over=box(np.zeros(FEATURES), high), at_most=at_most or None)

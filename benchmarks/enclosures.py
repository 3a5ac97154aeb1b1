"""Elementary functions against python-flint: how many balls miss the true value.

python -m benchmarks.enclosures FUNCTION ARITHMETIC COUNT SEED      # as JSON
"""

import json
import sys

import numpy as np

from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64
from tests.kernel.enclosures import points, violations

ARITHMETICS = {"Float64": Float64, "Exact": Exact}

if __name__ == "__main__":
    name, arithmetic, count, seed = sys.argv[1], ARITHMETICS[sys.argv[2]], int(sys.argv[3]), int(sys.argv[4])
    x = points(name, count, np.random.default_rng(seed))
    print(json.dumps({"points": len(x), "missed": violations(name, arithmetic(), x)}))

"""How many random cases the suite tries: MECHVERIFY_ROUNDS=200 tries ten times as many."""

import os

ROUNDS = int(os.environ.get("MECHVERIFY_ROUNDS", 20))

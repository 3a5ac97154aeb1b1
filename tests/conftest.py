"""Shared fixtures: shipped weights, and a small hand-built model on disk."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers are as many as the cores; numpy and torch read it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tests.models import as_bytes, max_weights

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "toy_models" / "weights"


@pytest.fixture
def shipped():
    return lambda k, seed=0: WEIGHTS / f"max_of_{k}_seed{seed}.safetensors"


@pytest.fixture
def small_model(tmp_path) -> Path:
    """Vocabulary 6, length 3: mostly right about the maximum."""
    path = tmp_path / "small.safetensors"
    path.write_bytes(as_bytes(max_weights(np.random.default_rng(11), noise=0.08)))
    return path

"""Real processes that a scheduler tells to stop. SIGTERM does what Ctrl-C does, so that this is Ctrl-C too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mechverify.kernel import check

ROOT = Path(__file__).parent.parent
PROOF = ROOT / "proofs" / "max_of_k.py"
INTERRUPTED = 130


def started(*arguments, **settings):
    command = [sys.executable, "-m", "mechverify.cli", *map(str, arguments)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, as in a shell's background job
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True, **settings
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_prove_keeps_what_it_has(tmp_path):
    """The claim's own file sends the signal when the search says that it has been through half of the cells: sent at
    a time, it would come before anything is proved where the machine is busy."""
    file = tmp_path / "impatient.py"
    file.write_text(
        "import os\n"
        "from mechverify.claims.file import load_claim\n"
        "from mechverify.report.progress import Reporter\n\n\n"
        "told, sent = Reporter.__call__, []\n\n\n"
        "def tell(self, what, share):\n"
        "    told(self, what, share)\n"
        "    if what.endswith('classes of cells') and share >= 0.5 and not sent:\n"
        "        sent.append(what)\n"
        f"        os.kill(os.getpid(), {int(signal.SIGTERM)})\n\n\n"
        "def claim():\n"
        "    Reporter.__call__ = tell\n"
        f"    return load_claim({str(PROOF)!r}, dict(at_least='best',\n"
        f"        weights={str(ROOT / 'toy_models/weights/max_of_10_seed0.safetensors')!r}))\n"
    )
    out = tmp_path / "kept.cert"
    process = started("prove", file, "--out", out, "--json")
    told, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "finishing with what is proved so far" in errors, errors
    assert json.loads(told)["verdict"] == "BOUNDED"
    assert check(out.read_bytes()).verdict == "BOUNDED"


def test_frontier_leaves_rows_and_no_process(tmp_path):
    weights = ROOT / "toy_models/weights/max_of_4_seed1.safetensors"
    arguments = "frontier", PROOF, "--weights", weights, "--out", tmp_path, "--jobs", 2
    process = started(*arguments, start_new_session=True)
    rows, deadline = tmp_path / "rows", time.monotonic() + 120
    while not (rows.is_dir() and any(rows.glob("*.json"))):
        assert process.poll() is None and time.monotonic() < deadline, "no row"
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED and "the same command goes on" in errors, errors
    assert any(rows.glob("*.json"))
    while alive(process.pid):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.1)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


GREEDY = """import time
from mechverify.claims.file import load_claim
from mechverify.report.progress import Reporter

told, kept = Reporter.__call__, []


def tell(self, what, share):
    told(self, what, share)
    if what.endswith("classes of cells") and share >= 0.5 and not kept:
        from mechverify.provers.guard import resident
        kept.append(bytearray(max(0, int(LIMIT * 1e9 * SHARE) - resident())))
        for i in range(0, len(kept[0]), 4096):
            kept[0][i] = 1
        time.sleep(0.5)


def claim():
    Reporter.__call__ = tell
    return load_claim(PROOF, dict(at_least="best", weights=WEIGHTS))
"""


def greedy(folder, share, limit):
    weights = str(ROOT / "toy_models/weights/max_of_10_seed0.safetensors")
    parts = {"LIMIT": limit, "SHARE": share, "PROOF": str(PROOF), "WEIGHTS": weights}
    source = GREEDY
    for name, value in parts.items():
        source = source.replace(name, repr(value))
    (folder / "greedy.py").write_text(source)
    process = started("prove", folder / "greedy.py", "--memory-limit", limit, "--out", folder / "kept.cert")
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def test_a_memory_limit_leaves_what_is_proved(tmp_path):
    code, out, errors = greedy(tmp_path, 1.1, 1.5)
    assert code == 0 and "the memory limit is reached" in errors, errors
    assert "verdict  BOUNDED" in out and "raise --memory-limit" in out
    assert check((tmp_path / "kept.cert").read_bytes()).verdict == "BOUNDED"


def test_a_process_that_takes_much_more_is_ended(tmp_path):
    code, out, errors = greedy(tmp_path, 1.4, 1.2)
    assert code == 3 and "UNKNOWN" in out and "memory limit was reached" in out, (out, errors)
    assert not (tmp_path / "kept.cert").exists()

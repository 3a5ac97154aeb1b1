"""A process that answers obligations, one at a time, until the one that started it ends.

python -m mechverify.provers.worker FD
"""

import importlib
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection

from mechverify.provers.executors import _one_thread, answered


def _ends_with_parent() -> None:
    """Its end of standard input is closed when it ends, however it does: also in the middle of an answer."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_ends_with_parent, daemon=True).start()
    _one_thread()
    pipe, problems = Connection(int(sys.argv[1])), {}
    importlib.import_module("mechverify.provers.chain")  # all that an answer may need
    pipe.send_bytes(b"")  # it is there
    while True:
        try:
            task, problem = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        problem = problems.setdefault(task.about, problem)
        pipe.send_bytes(pickle.dumps(tuple(answered(task, problem))))


if __name__ == "__main__":
    main()

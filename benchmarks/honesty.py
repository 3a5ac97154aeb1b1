"""What is read is what was proved, measured: statements, formulas, captured modules, hostile files, limits.

    python benchmarks/honesty.py [--quick] [--only statements mechanisms ...]     # --quick: under five minutes

Exit code 1 if a target is missed. Each part is a file of benchmarks/campaigns; a full run of all of them takes some
two hours on two cores, so each part's rows are kept as soon as it ends, with the code that they were measured on.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board, code
from benchmarks.campaigns.examples import seen

PARTS = ("statements", "mechanisms", "modules", "refusals", "search", "ranges", "limits", "fuzz", "kept")
RESULTS = Path(__file__).parent / "results" / "honesty.json"


def keep(part: str, board: Board) -> None:
    """Replace this part's rows in the results file."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[part] = {"code": code(), "rows": board.rows}
    RESULTS.write_text(json.dumps({p: kept[p] for p in PARTS if p in kept}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples, and nothing kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some parts")
    options = parser.parse_args()
    missed = 0
    for part in options.only:
        board = Board(f"honesty: {part}")
        campaign = import_module(f"benchmarks.campaigns.{part}")
        campaign.run(board, options.quick)
        seen(board, getattr(campaign, "EXAMPLES", ()))
        missed |= board.finish("honesty", quick=True)  # only prints it: the rows are kept by part
        if not options.quick:
            keep(part, board)
    return missed


if __name__ == "__main__":
    sys.exit(main())

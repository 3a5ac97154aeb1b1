"""What is read is what was proved, measured: statements, formulas, captured modules, hostile files, limits.

    python benchmarks/honesty.py [--quick] [--only statements mechanisms ...]     # --quick: under five minutes

Exit code 1 if a target is missed. Each part is a file of benchmarks/campaigns.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board
from benchmarks.campaigns.examples import seen

PARTS = ("statements", "mechanisms", "modules", "refusals", "search", "ranges", "limits", "fuzz", "kept")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some parts, and nothing kept")
    options = parser.parse_args()
    board = Board("honesty")
    for part in options.only:
        campaign = import_module(f"benchmarks.campaigns.{part}")
        campaign.run(board, options.quick)
        seen(board, getattr(campaign, "EXAMPLES", ()))
    return board.finish("honesty", quick=options.quick or options.only != PARTS)


if __name__ == "__main__":
    sys.exit(main())

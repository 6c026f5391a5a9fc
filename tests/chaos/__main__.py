"""The long form, `make chaos`: runs storms one after the other and prints what happened in them.

It exits with 0 only if no storm left a difference. If one did, its lake and the output of its runs
are kept, and their folder is named.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chaos import steps
from chaos.storm import StormResult, run_storm

console = Console(highlight=False)


def main() -> int:
    """Run the storms, and return the exit code."""
    options = _options()
    total = StormResult()
    began = time.monotonic()
    for seed in options.seeds or range(1, options.storms + 1):
        result = _run_one(seed, options.kills)
        total.add(result)
        console.print(
            f"seed {seed}: {result.runs.total()} runs, {result.kills.total()} kills, "
            f"{result.faults.total()} faults, {len(result.differences)} differences; "
            f"{time.monotonic() - began:.0f} s"
        )
    _report(total)
    return 1 if total.differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--storms", type=int, default=20, help="how many storms, with seeds from 1")
    parser.add_argument("--seeds", type=int, nargs="*", help="run these seeds instead")
    parser.add_argument("--kills", type=int, default=12, help="how many runs to kill in each storm")
    return parser.parse_args()


def _run_one(seed: int, kills: int) -> StormResult:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    result = run_storm(seed, folder, kills)
    if result.differences:
        console.print(f"seed {seed}: kept in {folder}")
    else:
        shutil.rmtree(folder)
    return result


def _report(total: StormResult) -> None:
    by_step: dict[str, list[int]] = {step.name: [0, 0] for step in steps.STEPS}
    for point, count in total.kills.items():
        when, _, name = point.partition(" ")
        if name in by_step:
            by_step[name][when == "after"] += count
    table = Table("killed at", "before", "after")
    for name, (before, after) in by_step.items():
        table.add_row(name, str(before), str(after))
    table.add_row("a random instant", str(total.kills["at a random instant"]), "")
    console.print(table)
    for title, counts in (
        ("injected fault", total.faults),
        ("other disturbance", total.disturbances),
        ("run", total.runs),
        ("change in the hospital", total.changes),
    ):
        _print(title, counts)
    never = [point for point in steps.POINTS if point not in total.reached]
    console.print(f"steps that no run reached: {', '.join(never) or 'none'}")
    console.print(
        f"survived {total.kills.total()} kills and {total.faults.total()} injected faults, with "
        f"{len(total.differences)} differences"
    )
    for difference in total.differences:
        console.print(difference, markup=False, soft_wrap=True)


def _print(title: str, counts: Counter[str]) -> None:
    table = Table(title, "times")
    for name, count in counts.most_common():
        table.add_row(name, f"{count:,}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

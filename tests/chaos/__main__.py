"""The long form: `make chaos`. Storm after storm, and a table of what was survived.

Exits with 0 only if no storm left a difference. The lake and the output of the runs of a storm
that did are kept, and their folder is named.
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
from chaos.storm import Account, storm

console = Console(highlight=False)


def main() -> int:
    """Let the storms pass."""
    options = _options()
    total = Account()
    began = time.monotonic()
    for seed in options.seeds or range(1, options.storms + 1):
        account = _one(seed, options.kills)
        total.add(account)
        console.print(
            f"seed {seed}: {account.runs.total()} runs, {account.kills.total()} kills, "
            f"{account.faults.total()} faults, {len(account.differences)} differences; "
            f"{time.monotonic() - began:.0f} s"
        )
    _report(total)
    return 1 if total.differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--storms", type=int, default=20, help="how many, of seeds 1 to this")
    parser.add_argument("--seeds", type=int, nargs="*", help="these seeds instead")
    parser.add_argument("--kills", type=int, default=12, help="runs to kill in each")
    return parser.parse_args()


def _one(seed: int, kills: int) -> Account:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    account = storm(seed, folder, kills)
    if account.differences:
        console.print(f"seed {seed}: kept in {folder}")
    else:
        shutil.rmtree(folder)
    return account


def _report(total: Account) -> None:
    by_step: dict[str, list[int]] = {step.name: [0, 0] for step in steps.STEPS}
    for crossing, count in total.kills.items():
        when, _, name = crossing.partition(" ")
        if name in by_step:
            by_step[name][when == "after"] += count
    table = Table("killed at", "before", "after")
    for name, (before, after) in by_step.items():
        table.add_row(name, str(before), str(after))
    table.add_row("a random instant", str(total.kills["at a random instant"]), "")
    console.print(table)
    for title, counts in (
        ("injected fault", total.faults),
        ("suffered", total.suffered),
        ("run", total.runs),
        ("meanwhile in the hospital", total.events),
    ):
        _print(title, counts)
    never = [crossing for crossing in steps.CROSSINGS if crossing not in total.crossed]
    console.print(f"steps that no run came by: {', '.join(never) or 'none'}")
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

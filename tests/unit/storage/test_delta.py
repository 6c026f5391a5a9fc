"""Delta tables: what it takes to open one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cohortlake.storage import delta
from cohortlake.storage.root import Root

ROWS = pa.table({"kind": pa.array(["version"])})


def test_a_table_is_opened_from_a_checkpoint_and_few_commits(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    table = delta.make_table(root, "image_sets", ROWS.schema)
    for _ in range(25):
        table = delta.commit(root, "image_sets", table, ROWS)
    table = delta.commit(root, "image_sets", table, ROWS, overwrite=True)  # as a rebuild does
    for _ in range(14):
        table = delta.commit(root, "image_sets", table, ROWS)
    log = Path(root.path("image_sets/_delta_log"))
    checkpoints = sorted(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    assert checkpoints == [9, 19, 29, 39]
    for path in log.glob("*.json"):
        if int(path.name[:20]) < 39:
            path.unlink()
    opened = delta.open_table(root, "image_sets")
    assert opened
    assert (opened.version(), opened.count()) == (40, 15)

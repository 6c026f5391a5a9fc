"""Two runs at a time on one root, on S3 servers that fail: the lake equals the hospital."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.s3.lake import Bucket
from chaos.s3.servers import MARKS, SERVERS
from chaos.s3.storm import PAIRS, S3Storm
from emulator import Emulator


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "bucket", [pytest.param(name, marks=MARKS[name]) for name in SERVERS], indirect=True
)
def test_after_a_storm_on_s3_the_lake_equals_the_data_store(
    bucket: Bucket, hospital: Emulator, seed: int, tmp_path: Path
) -> None:
    storm = S3Storm(bucket, hospital, seed, tmp_path)
    storm.run(2 * len(PAIRS))
    storm.compare()
    assert storm.result.differences == [], storm.result
    assert storm.result.kills.total() > 0
    assert storm.result.faults.total() > 0
    assert storm.result.disturbances["the published tables were read"] > 0

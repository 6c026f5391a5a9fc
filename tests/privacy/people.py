"""Made-up patients with all that a policy has to hide, and their lake."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from looks import DATASTORE, Looked, write

from cohortlake.history import image_sets
from cohortlake.storage.root import Root

SEEN = datetime(2026, 6, 1, tzinfo=UTC)
PARTS = ("CHEST", "HEAD", "KNEE", "Smith, left knee")
MODALITIES = ("CT", "MR", "DX", "JONES")
DESCRIPTIONS = ("CT CHEST", "MR HEAD", "Knee of Mr Brown")


def summaries(patients: int, seed: int = 1, days: int = 4_500) -> list[dict[str, Any]]:
    """Return summaries: one to four studies a patient, each with one or two series.

    Args:
        patients: How many patients there are.
        seed: What the summaries are drawn by.
        days: How many days after 1 January 2012 studies are made. Fewer days give fewer files.
    """
    dice, found = random.Random(seed), []  # noqa: S311
    for patient in range(patients):
        born = date(1920, 1, 1) + timedelta(days=dice.randrange(36_000))
        for study in range(dice.randint(1, 4)):
            day = date(2012, 1, 1) + timedelta(days=dice.randrange(days))
            uid = f"1.2.840.113619.{day:%Y%m%d}.{patient}.{study}"
            for series in range(dice.randint(1, 2)):
                tags = {
                    "DICOMPatientId": f"MRN-{patient:05}",
                    "DICOMPatientName": f"Family{patient}^Given{patient}",
                    "DICOMPatientBirthDate": f"{born:%Y%m%d}",
                    "DICOMPatientSex": dice.choice(["F", "M", "O", "", "Miller"]),
                    "DICOMAccessionNumber": f"ACC{patient:05}{study}",
                    "DICOMStudyId": f"ST{patient:05}{study}",
                    "DICOMStudyInstanceUID": uid,
                    "DICOMSeriesInstanceUID": f"{uid}.{series}",
                    "DICOMStudyDate": f"{day:%Y%m%d}",
                    "DICOMStudyTime": f"{dice.randrange(24):02}{dice.randrange(60):02}11",
                    "DICOMStudyDescription": dice.choice(DESCRIPTIONS),
                    "DICOMSeriesModality": dice.choice(MODALITIES),
                    "DICOMSeriesBodyPart": dice.choice(PARTS),
                    "DICOMSeriesNumber": str(series + 1),
                }
                imported = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
                found.append({
                    "imageSetId": f"{len(found):032x}",
                    "version": 1,
                    "createdAt": imported,
                    "updatedAt": imported,
                    "isPrimary": True,
                    "DICOMTags": tags,
                })  # fmt: skip
    return found


def copy_of(lake: Root, folder: Path) -> Root:
    """Return a copy of a lake, for a test that changes it."""
    shutil.copytree(lake.path(), folder / "lake")
    return Root(str(folder / "lake"))


def lake_of(folder: str, found: list[dict[str, Any]]) -> Root:
    """Return a lake that has seen these summaries, and has published nothing yet."""
    root = Root(folder)
    root.prepare()
    image_sets.apply(root, write(root, [Looked(SEEN, found)]))
    return Root(folder)  # which no run is at work in


__all__ = ["DATASTORE", "SEEN", "copy_of", "lake_of", "summaries"]

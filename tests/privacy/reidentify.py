"""Someone who knows all of a hospital's true values tries to find its image sets in `published/`.

    PYTHONPATH=tests python -m privacy.reidentify     # prints the table of docs/security.md

They join by every pair of columns: what is published, as far as they can know it too. A match
counts where one true image set and one published one have that pair of values, and are the same.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
from privacy.people import lake_of, summaries

import cohortlake
from cohortlake.privacy import built_in
from cohortlake.publish.publisher import publish

KNOWN_AS = {
    "study_date_shifted": "StudyDate",
    "study_year_shifted": "year",
    "study_year": "year",
    "age_at_study_years": "age",
    "age_band": "age",
    "sex": "PatientSex",
    "body_part": "BodyPartExamined",
}
"""A published column -> what it could be taken for; all others by their own names."""


def truth_of(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Return what is true of each image set, one row each."""
    rows = []
    for one in found:
        tags = {name.removeprefix("DICOM"): value for name, value in one["DICOMTags"].items()}
        day = date.fromisoformat(tags["StudyDate"])
        born = date.fromisoformat(tags["PatientBirthDate"])
        years = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
        rows.append({
            "image_set_id": one["imageSetId"],
            "PatientID": tags["PatientId"],
            "PatientName": tags["PatientName"],
            "PatientBirthDate": str(born),
            "PatientSex": tags["PatientSex"],
            "AccessionNumber": tags["AccessionNumber"],
            "StudyID": tags["StudyId"],
            "StudyInstanceUID": tags["StudyInstanceUID"],
            "SeriesInstanceUID": tags["SeriesInstanceUID"],
            "StudyDate": str(day),
            "StudyTime": tags["StudyTime"],
            "StudyDescription": tags["StudyDescription"],
            "Modality": tags["SeriesModality"],
            "BodyPartExamined": tags["SeriesBodyPart"],
            "SeriesNumber": tags["SeriesNumber"],
            "year": f"{day:%Y}",
            "age": str(min(years, 90)) if years >= 0 else None,
            "created_at": str(one["createdAt"].date()),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("image_set_id")


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    is_day = column.dtype == "datetime64[us]"
    return (column.dt.date if is_day else column).astype("string")


def unique_shares(published: pd.DataFrame, truth: pd.DataFrame) -> Mapping[tuple[str, str], float]:
    """Return for each pair of published columns the share of image sets found by it."""
    told = {
        name: _as_text(published[name])
        for name in published.columns
        if KNOWN_AS.get(name, name) in truth.columns
    }
    shares = {}
    for one, other in itertools.combinations(sorted(told), 2):
        shown = pd.DataFrame({"a": told[one], "b": told[other]}).dropna()
        known = truth[[KNOWN_AS.get(name, name) for name in (one, other)]].astype("string")
        known.columns = pd.Index(["a", "b"])
        sides = (
            side.reset_index().drop_duplicates(["a", "b"], keep=False) for side in (shown, known)
        )
        matched = pd.merge(*sides, on=["a", "b"], suffixes=("_published", "_true"))
        right = matched["image_set_id_published"] == matched["image_set_id_true"]
        shares[one, other] = float(right.sum()) / len(published)
    return shares


def main() -> None:
    """Print the shares under each policy."""
    found = summaries(2000)
    truth = truth_of(found)
    print("| policy | pair of columns | image sets found by it |\n|---|---|---|")
    for policy in (built_in("safe", "shift"), built_in("safe", "year"), built_in("limited")):
        with tempfile.TemporaryDirectory() as folder:
            root = lake_of(folder, found)
            publish(root, policy)
            frame = cohortlake.read_table(root.uri, "image_sets").set_index("image_set_id")
        shares = unique_shares(frame, truth)
        name = policy.name + ("" if policy.name != "safe" else f", {policy.dates.value}")
        for pair, share in sorted(shares.items(), key=lambda item: -item[1])[:4]:
            print(f"| {name} | `{pair[0]}`, `{pair[1]}` | {share:.2%} |")


if __name__ == "__main__":
    main()

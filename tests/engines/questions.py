"""Ten questions about a lake, in SQL that all engines understand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

QUESTIONS = {
    "studies by month": """
        SELECT study_month, count(*) FROM {at}studies
        WHERE study_month BETWEEN '2026-01' AND '2026-03' GROUP BY study_month""",
    "series and patients by modality": """
        SELECT Modality, count(*), count(DISTINCT patient_key) FROM {at}series GROUP BY Modality""",
    "patients with CT and MR": """
        SELECT count(*) FROM {at}patients AS p
        WHERE EXISTS (SELECT 1 FROM {at}series AS s
                      WHERE s.patient_key = p.patient_key AND s.Modality = 'CT')
          AND EXISTS (SELECT 1 FROM {at}series AS s
                      WHERE s.patient_key = p.patient_key AND s.Modality = 'MR')""",
    "first studies": """
        SELECT count(*), min(StudyDate), max(StudyDate) FROM (
            SELECT StudyDate, row_number() OVER (
                PARTITION BY patient_key ORDER BY StudyDate, StudyInstanceUID) AS place
            FROM {at}studies WHERE StudyDate IS NOT NULL) AS dated
        WHERE place = 1""",
    "image sets that changed since an instant": """
        SELECT count(*), count(DISTINCT patient_key) FROM {at}image_sets
        WHERE updated_at >= TIMESTAMP '2026-03-01 00:00:00.500 UTC'""",
    "what is missing": """
        SELECT count(*), count(StudyDate), count(BodyPartExamined), count(PatientSex)
        FROM {at}series""",
    "studies with a modality": """
        SELECT count(*) FROM {at}studies WHERE {has_ct}""",
    "kinds of change": """
        SELECT kind, is_study_wide, count(*) FROM {at}history GROUP BY kind, is_study_wide""",
    "studies of some days": """
        SELECT StudyDate, count(*) FROM {at}studies
        WHERE StudyDate BETWEEN DATE '2026-02-10' AND DATE '2026-03-05' GROUP BY StudyDate""",
    "ages by sex": """
        SELECT p.sex, count(*), min(s.age_at_study_years), sum(s.age_at_study_years)
        FROM {at}studies AS s JOIN {at}patients AS p
        ON s.datastore_id = p.datastore_id AND s.patient_key = p.patient_key
        WHERE s.StudyDate IS NOT NULL GROUP BY p.sex""",
}
OF_THREE_MONTHS = "SELECT sum(n_series) FROM {at}studies WHERE study_month IN {months}"
MONTHS = "('2026-01', '2026-02', '2026-03')"


def comparable(rows: Iterable[Iterable[Any]]) -> list[tuple[str, ...]]:
    """Return the rows as text, sorted: one engine has dates as texts, and none gives an order."""
    return sorted(tuple(str(value).lower() for value in row) for row in rows)

"""A synthetic hospital: seeded patients and their studies, as records for the store.

It makes the content of a study. See `history` and `control.life` for when studies arrive, and
`catalogue` for names and examinations.

It may make a million records, so it joins the summary as text. The JSON of the patient and of the
study is written once and used in each of their records.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from emulator.data.catalogue import Examination, catalogue
from emulator.data.headers.plan import instance_count
from emulator.data.records import ARCHIVE, FREQUENT, Record
from emulator.datetimes import study_key, to_wire
from emulator.seeded import generator
from emulator.wire import encode

DAY_MS = 86_400_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_SERIES_WEIGHTS = (30, 48, 62, 73, 81, 87, 91, 94, 96, 98, 99, 100)
ARCHIVE_YEARS = 12
"""How old the studies of an old archive are at most when they are imported."""
# S3 Intelligent-Tiering, which HealthImaging uses, archives what nobody read for this time.
_ARCHIVED_AFTER_MS = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient: the PatientID and all patient level tags as JSON members."""

    patient_id: str
    members: str


@dataclass(frozen=True, slots=True)
class Study:
    """A study: its searchable tags, and all study level tags as JSON members."""

    patient: Patient
    examination: Examination
    study_uid: str
    study_id: str | None
    accession_number: str | None
    key: int
    instances: tuple[int, ...]
    repeats_series: bool
    members: str


class Hospital:
    """The patients and studies of one data store.

    Args:
        datastore: The data store's number in the store.
        seed: The same seed and the same calls give the same records, byte for byte.
        now_ms: The latest time in any record.
        series_size: A factor of the usual number of instances of a series.
    """

    def __init__(
        self, datastore: int, seed: object, now_ms: int, *, series_size: float = 1.0
    ) -> None:
        self.chance = generator("hospital", seed, datastore)
        self.now_ms = now_ms
        self._datastore = datastore
        self._series_size = series_size
        self._patients: list[Patient] = []
        self._catalogue = catalogue()

    def sizes(self, image_sets: int) -> list[int]:
        """Returns random study sizes, in image sets, whose sum is `image_sets`."""
        sizes: list[int] = []
        while (missing := image_sets - sum(sizes)) > 0:
            wanted = max(1, missing // 12)
            sizes += self.chance.choices(range(1, 13), cum_weights=_SERIES_WEIGHTS, k=wanted)
        sizes[-1:] = [] if not sizes else [sizes[-1] + image_sets - sum(sizes)]
        return sizes

    def study(self, image_sets: int, imported_ms: int, *, migrated: bool) -> list[Record]:
        """Makes a study with `image_sets` current image sets.

        Args:
            image_sets: The number of current records. One of them may repeat a series.
            imported_ms: The time at which the import began.
            migrated: Whether the study comes from an old archive: often years old, imported fast.

        Returns:
            The current records, then the superseded versions of those that were corrected later.
        """
        study = self._new_study(image_sets, imported_ms, migrated=migrated)
        corrected_ms = None
        if self.chance.random() < 0.04:
            corrected_ms = imported_ms + int(self.chance.expovariate(1 / (20 * DAY_MS))) + 60_000
            corrected_ms = corrected_ms if corrected_ms < self.now_ms else None
        pace_ms = 15 if migrated else 4_000
        records: list[Record] = []
        superseded: list[Record] = []
        created_ms = imported_ms
        for number in range(image_sets):
            created_ms = min(created_ms + int(self.chance.random() * pace_ms), self.now_ms)
            repeats = study.repeats_series and number == image_sets - 1
            primary = records[0] if repeats else None
            record = self._record(study, number, created_ms, corrected_ms, primary)
            records.append(record)
            if corrected_ms is not None:
                superseded.append(_superseded(record))
        return records + superseded

    def _patient(self) -> Patient:
        chance, known = self.chance, self._patients
        if known and chance.random() < 0.55:
            return known[int(len(known) * (1 - chance.random() ** 2))]
        names = self._catalogue
        if chance.random() < 0.08:
            name = chance.choice(names.worldwide)
        else:
            name = f"{chance.choice(names.family)}^{chance.choice(names.given)}"
        birth: str | None = _da(_EPOCH_DAY + chance.randrange(-14_600, 18_250))
        if chance.random() < 0.02:
            birth = names.birth_dates.draw(chance)
        patient_id = f"MRN{chance.getrandbits(36):010d}"
        members = {
            "DICOMPatientId": patient_id,
            "DICOMPatientName": name,
            "DICOMPatientBirthDate": birth,
            "DICOMPatientSex": names.sexes.draw(chance),
        }
        known.append(Patient(patient_id, _members(members)))
        return known[-1]

    def _new_study(self, image_sets: int, imported_ms: int, *, migrated: bool) -> Study:
        chance, names = self.chance, self._catalogue
        examination = chance.choices(names.examinations, cum_weights=names.examination_weights)[0]
        repeats = image_sets > 1 and chance.random() < 0.035
        least, most = examination.fewest_instances, examination.most_instances
        series = image_sets - repeats
        usual = [least + int((most - least) * chance.random() ** 2) for _ in range(series)]
        study_date, study_time = self._when(imported_ms, migrated=migrated)
        study_uid = f"2.25.{chance.getrandbits(120)}"
        instances = tuple(
            instance_count(
                study_uid,
                _modality(examination, number),
                number + 1,
                max(1, round(count * self._series_size)),
            )
            for number, count in enumerate(usual)
        )
        study_id = str(chance.randrange(1, 99_999)) if chance.random() < 0.9 else None
        accession = f"ACC{chance.getrandbits(40):012d}" if chance.random() < 0.97 else None
        members = {
            "DICOMStudyInstanceUID": study_uid,
            "DICOMStudyId": study_id,
            "DICOMStudyDescription": examination.description if chance.random() < 0.95 else None,
            "DICOMNumberOfStudyRelatedSeries": series,
            "DICOMNumberOfStudyRelatedInstances": sum(instances),
            "DICOMAccessionNumber": accession,
            "DICOMStudyDate": study_date,
            "DICOMStudyTime": study_time,
        }
        return Study(
            self._patient(),
            examination,
            study_uid,
            study_id,
            accession,
            study_key(study_date, study_time),
            instances,
            repeats,
            _members(members),
        )

    def _when(self, imported_ms: int, *, migrated: bool) -> tuple[str | None, str | None]:
        """Draws the study's date and time: mostly soon before its import, sometimes unusable."""
        chance = self.chance
        if migrated:
            age_ms = int((0.05 + ARCHIVE_YEARS * chance.random() ** 1.7) * 365 * DAY_MS)
        else:
            age_ms = int(chance.expovariate(1 / (DAY_MS // 6))) + 300_000
        day, of_day_ms = divmod(imported_ms - age_ms, DAY_MS)
        minutes, seconds = divmod(of_day_ms // 1000, 60)
        study_date: str | None = _da(_EPOCH_DAY + day)
        study_time: str | None = f"{minutes // 60:02d}{minutes % 60:02d}{seconds:02d}"
        if chance.random() < 0.02:
            study_date = self._catalogue.study_dates.draw(chance)
        if chance.random() < 0.06:
            study_time = self._catalogue.study_times.draw(chance)
        return study_date, study_time

    def _record(
        self,
        study: Study,
        number: int,
        created_ms: int,
        corrected_ms: int | None,
        primary: Record | None,
    ) -> Record:
        chance = self.chance
        version = 1 if corrected_ms is None else 2
        updated_ms = created_ms if corrected_ms is None else max(corrected_ms, created_ms + 1)
        image_set_id = f"{chance.getrandbits(128):032x}"
        if primary is None:
            series_uid, instances = f"2.25.{chance.getrandbits(120)}", study.instances[number]
        else:
            series_uid, instances = str(primary.series_uid), primary.instances
        tags = ",".join((study.patient.members, study.members, self._series(study, number)))
        summary = (
            f'{{"imageSetId":"{image_set_id}","version":{version},'
            f'"createdAt":{to_wire(created_ms)},"updatedAt":{to_wire(updated_ms)},'
            f'{self._access(updated_ms)},"DICOMTags":{{{tags},'
            f'"DICOMSeriesInstanceUID":"{series_uid}"}},'
            f'"isPrimary":{"true" if primary is None else "false"}}}'
        )
        return Record(
            self._datastore,
            image_set_id,
            version,
            created_ms,
            updated_ms,
            study.key,
            study.patient.patient_id,
            study.accession_number,
            study.study_id,
            study.study_uid,
            series_uid,
            primary is None,
            instances,
            summary.encode(),
        )

    def _series(self, study: Study, number: int) -> str:
        examination = study.examination
        modality = _modality(examination, number)
        members = f'"DICOMSeriesModality":"{modality}","DICOMSeriesNumber":{number + 1}'
        if self.chance.random() < 0.12:
            return members
        return f'{members},"DICOMSeriesBodyPart":"{examination.body_part}"'

    def _access(self, updated_ms: int) -> str:
        chance = self.chance
        accessed_ms = updated_ms
        if chance.random() < 0.25:
            accessed_ms += int((self.now_ms - updated_ms) * chance.random())
        archived = self.now_ms - accessed_ms > _ARCHIVED_AFTER_MS
        tier = ARCHIVE if archived else FREQUENT
        return f'"lastAccessedAt":{to_wire(accessed_ms)},"storageTier":"{tier}"'


def _modality(examination: Examination, number: int) -> str:
    """Returns the modality of one series. A PET study also has CT, which PET is read with."""
    return "CT" if examination.modality == "PT" and number % 2 else examination.modality


def _superseded(record: Record) -> Record:
    """Returns the first version of an image set whose patient name was corrected later."""
    summary = record.wire()
    summary |= {"version": 1, "updatedAt": summary["createdAt"]}
    summary["DICOMTags"] |= {"DICOMPatientName": "Unknown^Emergency"}
    return record._replace(
        version=1,
        updated_ms=record.created_ms,
        summary=encode(summary),
        current=0,
        searchable=0,
    )


def _members(tags: dict[str, Any]) -> str:
    """Returns tags as the members of a JSON object, without braces and without absent tags."""
    present = {name: value for name, value in tags.items() if value is not None}
    return encode(present)[1:-1].decode()


@lru_cache(maxsize=65_536)
def _da(day: int) -> str:
    return date.fromordinal(day).strftime("%Y%m%d")

"""The standard's terms for coded values, the spellings that mean one, and other words for columns.

The terms are those of `PatientSex`, `Modality` and `BodyPartExamined`. A value that may mean two
terms, or more than a term says, is read as none. The words for columns are for error messages only.
See `publish.derived_values` for where the terms stand in tables, and `privacy` for who may see what
was sent.

Source: DICOM PS3.3 C.7.1.1 for the sexes; PS3.16 Annex L, Table L-1 (human use), as of 2020, for
the body parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cohortlake.dicom_values import SEPARATOR, canonical_text, distinct_values
from cohortlake.errors import did_you_mean

OK, RESPELLED, SEVERAL, MISSING, INVALID = "ok", "respelled", "several", "missing", "invalid"
IMPLAUSIBLE, CONFLICTING = "implausible", "conflicting"
"""The statuses of a value:

- `ok`: a term of the standard, as the standard writes it;
- `respelled`: what was sent means a term, but is written in another way, such as in lower case;
- `several`: more than one term was sent where the standard has one;
- `missing`: nothing was sent;
- `invalid`: what was sent cannot be read;
- `implausible`: it can be read and cannot be true;
- `conflicting`: image sets of one patient say different things.
"""

SEXES = frozenset("MFO")
"""The enumerated values of Patient's Sex."""

MODALITIES = frozenset(
    """
    ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC
    HD IO IOL IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA
    PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN
    RTSTRUCT RX SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
    AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF
    """.split()  # noqa: SIM905
)
"""The defined terms for Modality, PS3.3 C.7.3.1.1.1; the last line has the retired ones."""

_SEXES = {"M": "M", "F": "F", "O": "O", "MALE": "M", "FEMALE": "F", "OTHER": "O"}

BODY_PARTS = frozenset(
    """
    3RDVENTRICLE 4THVENTRICLE ABDOMEN ABDOMENPELVIS ABDOMINALAORTA ACA ACJOINT ADRENAL
    AMNIOTICFLUID ANKLE ANTCARDIACV ANTCOMMA ANTECUBITALV ANTSPINALA ANTTIBIALA ANUSRECTUMSIGMD
    AORTA AORTICARCH APPENDIX ARM ARTERY ASCAORTA ASCENDINGCOLON AXILLA AXILLARYA AXILLARYV
    AZYGOSVEIN BACK BASILARA BILEDUCT BLADDER BLADDERURETHRA BRACHIALA BRACHIALV BRAIN BREAST
    BRONCHUS BULB BUTTOCK CALCANEUS CALF CAROTID CCA CELIACA CEPHALICV CEREBELLUM CEREBHEMISPHERE
    CEREBRALA CERVIX CFA CFV CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CHOROIDPLEXUS CIRCLEOFWILLIS
    CLAVICLE COCCYX COLON COMILIACA COMILIACV COMMONBILEDUCT CORNEA CORONARYARTERY CORONARYSINUS
    CSPINE CTSPINE CULDESAC DESCAORTA DESCENDINGCOLON DUODENUM EAC EAR ECA ELBOW ENDOARTERIAL
    ENDOCARDIAC ENDOESOPHAGEAL ENDOMETRIUM ENDONASAL ENDONASOPHARYNYX ENDORECTAL ENDORENAL
    ENDOURETERIC ENDOURETHRAL ENDOVAGINAL ENDOVASCULAR ENDOVENOUS ENDOVESICAL EPIDIDYMIS
    EPIGASTRIC ESOPHAGUS EXTILIACA EXTILIACV EXTJUGV EXTREMITY EYE EYELID FACE FACIALA FEMORALA
    FEMORALV FEMUR FETALARM FETALDIGIT FETALHEART FETALLEG FETALPOLE FIBULA FINGER FLANK FONTANEL
    FOOT FOREARM GALLBLADDER GASTRICV GENICULARA GESTSAC GLUTEAL GSV HAND HEAD HEADNECK HEART
    HEPATICA HEPATICV HIP HUMERUS HYPOGASTRIC HYPOPHARYNX IAC ICA ILEUM ILIACA ILIACV ILIUM
    INFMESA INFVENACAVA INGUINAL INNOMINATEA INNOMINATEV INTILIACA INTJUGULARV INTMAMMARYA
    INTRACRANIAL JAW JEJUNUM JOINT KIDNEY KNEE LACRIMALA LARGEINTESTINE LARYNX LATRIUM
    LATVENTRICLE LEG LFEMORALA LHEPATICV LHYPOCHONDRIAC LINGUALA LINGUINAL LIVER LLQ LLUMBAR
    LPORTALV LPULMONARYA LSPINE LSSPINE LSUPPULMONARYV LUMBAR LUMBARA LUMEN LUNG LUQ LVENTRICLE
    MASTOID MAXILLA MCA MEDIASTINUM MESENTRICA MESENTRICV MIDHEPATICV MORISONSPOUCH MOUTH
    NASOPHARYNX NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE OCCIPTALV OCCPITALA
    OPHTHALMICA OPTICCANAL ORBIT OVARY PANCREAS PANCREATICDUCT PARASTERNAL PARATHYROID PAROTID
    PATELLA PCA PELVIS PENILEA PENIS PERINEUM PERONEALA PHARYNX PHARYNXLARYNX PLACENTA POPLITEALA
    POPLITEALFOSSA POPLITEALV PORTALV POSCOMMA POSTIBIALA PROFFEMA PROFFEMV PROSTATE PULMONARYA
    PULMONARYV RADIALA RADIUS RADIUSULNA RATRIUM RECTUM RENALA RENALV RETROPERITONEUM RFEMORALA
    RHEPATICV RHYPOCHONDRIAC RIB RINGUINAL RLQ RLUMBAR RPORTALV RPULMONARYA RSUPPULMONARYV RUQ
    RVENTRICLE SAPHENOUSV SCALP SCAPULA SCJOINT SCLERA SCROTUM SELLA SEMVESICLE SESAMOID SFA SFJ
    SFV SHOULDER SIGMOID SIJOINT SKULL SMA SMALLINTESTINE SPINALCORD SPINE SPLEEN SPLENICA
    SPLENICV SSPINE STERNUM STOMACH SUBCLAVIANA SUBCLAVIANV SUBCOSTAL SUBMANDIBULAR
    SUPRACLAVICULAR SUPRAPUBIC SUPTHYROIDA SVC TESTIS THALAMUS THIGH THORACICAORTA THORAX THUMB
    THYMUS THYROID TIBIA TIBIAFIBULA TLSPINE TMJ TOE TONGUE TRACHEA TRACHEABRONCHUS
    TRANSVERSECOLON TSPINE ULNA ULNARA UMBILICAL UMBILICALA UMBILICALV UPRURINARYTRACT URETER
    URETHRA UTERUS VAGINA VEIN VERTEBRALA VULVA WHOLEBODY WRIST ZYGOMA
    """.split()  # noqa: SIM905 - a list would have a line for each of them
)
"""The defined terms for Body Part Examined, for human use."""

OF_COLUMNS = {
    "PatientSex": SEXES,
    "Modality": MODALITIES,
    "BodyPartExamined": BODY_PARTS,
}
"""Column of coded values -> its terms."""

# What Table L-1 calls the code of a term, where that is another word than the term and short
# enough to be sent; and the plurals that take more than an S off.
_SAME = {
    "ACROMIOCLAVICULARJOINT": "ACJOINT",
    "ADRENALGLAND": "ADRENAL",
    "ANKLEJOINT": "ANKLE",
    "CAROTIDARTERY": "CAROTID",
    "CERVICALSPINE": "CSPINE",
    "CERVICOTHORACICSPINE": "CTSPINE",
    "CHESTABDOMENPELVIS": "CHESTABDPELVIS",
    "ELBOWJOINT": "ELBOW",
    "ENTIREBODY": "WHOLEBODY",
    "HIPJOINT": "HIP",
    "JAWREGION": "JAW",
    "LOWERLEG": "LEG",
    "LUMBARREGION": "LUMBAR",
    "LUMBARSPINE": "LSPINE",
    "LUMBOSACRALSPINE": "LSSPINE",
    "MANDIBLE": "JAW",
    "MASTOIDBONE": "MASTOID",
    "NECKCHESTABDOMENPELVIS": "NECKCHESTABDPELV",
    "PAROTIDGLAND": "PAROTID",
    "SACROILIACJOINT": "SIJOINT",
    "SACRUM": "SSPINE",
    "SELLATURCICA": "SELLA",
    "SEMINALVESICLE": "SEMVESICLE",
    "SIGMOIDCOLON": "SIGMOID",
    "STERNOCLAVICULARJOINT": "SCJOINT",
    "SUBMANDIBULARGLAND": "SUBMANDIBULAR",
    "TEMPOROMANDIBULARJOINT": "TMJ",
    "THORACICSPINE": "TSPINE",
    "THORACOLUMBARSPINE": "TLSPINE",
    "UPPERARM": "ARM",
    "UPPERURINARYTRACT": "UPRURINARYTRACT",
    "WRISTJOINT": "WRIST",
    "BRONCHI": "BRONCHUS",
    "FEET": "FOOT",
    "OVARIES": "OVARY",
    "TESTES": "TESTIS",
}

# Taken apart, the cervico-thoracic spine looks like a CT of the spine.
_ONLY_IN_ONE_WORD = frozenset(("CTSPINE",))

_BETWEEN_WORDS = re.compile(r"[ _/&+,.-]+")


class Term(NamedTuple):
    """The meaning of a value that was sent.

    Attributes:
        value: The standard's term, or None where none is certain.
        status: `ok`, `respelled`, `several`, `missing` or `invalid`.
    """

    value: str | None
    status: str


def sex(sent: str | None) -> Term:
    """Read a PatientSex: M, F, O, or the word in full, in any case. Two different ones: none."""
    term = _read(sent, _SEXES.get)
    return Term(None, INVALID) if term.status == SEVERAL else term


def modality(sent: str | None) -> Term:
    """Read a Modality: a defined term of the standard, in any case."""
    return _read(sent, lambda text: text if text in MODALITIES else None)


def body_part(sent: str | None) -> Term:
    """Read a BodyPartExamined.

    In any case; with spaces, punctuation and the word AND left out, for the standard's terms
    have none; in the singular, for the standard's terms are; by the name that Table L-1 gives
    the term's code.
    """
    return _read(sent, _body_part)


def term(column: str, sent: str) -> str | None:
    """Return the standard's term that a person means by a value of a column, to suggest it.

    Args:
        column: `PatientSex`, `Modality`, `BodyPartExamined` or a column of their meanings.
        sent: The value, in any spelling.
    """
    read = _READERS.get(column)
    word = canonical_text("CS", sent) or ""
    return (read(sent).value if read else None) or _WORDS.get(column, {}).get(word)


def _body_part(text: str) -> str | None:
    if text in BODY_PARTS:
        return text
    word = "".join(part for part in _BETWEEN_WORDS.split(text) if part != "AND")
    if word in _ONLY_IN_ONE_WORD:
        return None
    spellings = (word, _SAME.get(word, ""), word.removesuffix("S"))
    return next((spelling for spelling in spellings if spelling in BODY_PARTS), None)


def _read(sent: str | None, meaning: Callable[[str], str | None]) -> Term:
    """Read the values of a text, each by itself."""
    values = distinct_values(sent or "")
    terms = [meaning(canonical_text("CS", value) or "") for value in values]
    if not values:
        return Term(None, MISSING)
    if None in terms:
        return Term(None, INVALID)
    read = list(dict.fromkeys(term for term in terms if term))
    if len(read) > 1:
        return Term(SEPARATOR.join(read), SEVERAL)
    return Term(read[0], OK if values == read else RESPELLED)


_WORDS = {
    "Modality": {
        "ANGIOGRAPHY": "XA", "ECHO": "US", "MAMMO": "MG", "MAMMOGRAM": "MG", "MAMMOGRAPHY": "MG",
        "MRI": "MR", "PET": "PT", "RADIOGRAPH": "DX", "SPECT": "NM", "ULTRASOUND": "US",
        "X-RAY": "DX", "XRAY": "DX",
    },
    "PatientSex": {"MAN": "M", "MEN": "M", "WOMAN": "F", "WOMEN": "F"},
}  # fmt: skip
"""Words that people use for a term, and that no modality sends."""
_READERS = {
    "PatientSex": sex,
    "sex": sex,
    "Modality": modality,
    "BodyPartExamined": body_part,
    "body_part": body_part,
}


_MOST_SUGGESTED = 2
_COLUMN_WORDS = {
    "age_at_study_years age_band": "age ageatstudy ageyears patientage patientsage years",
    "PatientSex sex": "gender patientgender patientssex sex",
    "patient_key PatientID": "id mrn patient patientid person pid subject subjectid",
    "PatientBirthDate": "birthday birthdate birthyear dateofbirth dob",
    "StudyDate study_date_shifted study_year": (
        "acquisitiondate date day examdate examinationdate scandate seriesdate studydate"
    ),
    "study_year study_year_shifted study_month": "calendaryear studyyear year",
    "study_quarter study_month": "quarter studyquarter",
    "study_month": "month",
    "StudyTime": "time",
    "StudyInstanceUID": "exam examid examuid study studyuid uid",
    "SeriesInstanceUID": "series seriesid seriesuid",
    "AccessionNumber accession_key": "accession accessionid accessionno accessionnumber",
    "StudyDescription": "description",
    "BodyPartExamined body_part body_parts": "anatomy bodypart bodyparts organ region",
    "modalities Modality": "modalitiesinstudy modality",
    "n_series": "countseries numberofseries seriescount",
    "n_studies": "countstudies numberofstudies studycount",
    "NumberOfStudyRelatedInstances": "images instances ninstances numberofimages",
    "created_at first_created_at": "created creationdate",
    "updated_at last_updated_at": "changed lastupdated modified updated",
}
"""Columns, the best first -> the words that people try for them, without case and signs."""
COLUMNS_OF_WORDS = {
    word: columns.split() for columns, words in _COLUMN_WORDS.items() for word in words.split()
}
_OWNERS = ("patient", "study", "series")


def did_you_mean_column(wrong: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'X'?"`, or nothing where no known column is near.

    Args:
        wrong: The name that was asked for.
        known: The columns that there are. Only these are suggested.
    """
    word, there = _without_signs(wrong), sorted(known)
    same = [name for name in there if _without_signs(name) == word]
    meant = [name for name in COLUMNS_OF_WORDS.get(word, ()) if name in there]
    owned = [name for name in there if _without_signs(name) in {owner + word for owner in _OWNERS}]
    found = [*dict.fromkeys((*same, *meant))] or owned
    if not found:
        return did_you_mean(wrong, there)
    return f"; did you mean {' or '.join(map(repr, found[:_MOST_SUGGESTED]))}?"


def _without_signs(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())

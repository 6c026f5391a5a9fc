"""The standard's own terms: of coded values, those that nobody can have typed a name into.

DICOM calls a value of VR CS free of leading and trailing spaces and of lower case (PS3.5 section
6.2), so these do not count when a value is looked up.
"""

from __future__ import annotations

PATIENT_SEX = frozenset("FMO")
"""PS3.3 section C.7.1.1."""

MODALITY = frozenset(
    """
    ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC
    HD IO IOL IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA
    PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN
    RTSTRUCT RX SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
    AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF
    """.split()  # noqa: SIM905
)
"""PS3.3 section C.7.3.1.1.1; the last line has the retired ones."""

BODY_PART = frozenset(
    """
    ABDOMEN ANKLE BRAIN BREAST CHEST CSPINE ELBOW FOOT HAND HEAD HEART HIP KNEE LIVER LSPINE NECK
    PELVIS SHOULDER SKULL SPINE TSPINE WRIST WHOLEBODY KIDNEY EXTREMITY PROSTATE
    """.split()  # noqa: SIM905
)

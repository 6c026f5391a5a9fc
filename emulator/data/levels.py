"""The levels of a metadata document: which attribute belongs to patient, study, series or instance.

HealthImaging keeps the modules Patient, General Study, Patient Study, General Series, General
Equipment and Frame of Reference (PS3.3) once, and all other attributes for each instance.
"""

from __future__ import annotations

PATIENT_LEVEL = {
    "DICOMPatientId": "PatientID",
    "DICOMPatientName": "PatientName",
    "DICOMPatientBirthDate": "PatientBirthDate",
    "DICOMPatientSex": "PatientSex",
}
"""Members of a summary and their keywords, at the patient level."""

STUDY_LEVEL = {
    "DICOMStudyInstanceUID": "StudyInstanceUID",
    "DICOMStudyId": "StudyID",
    "DICOMStudyDescription": "StudyDescription",
    "DICOMNumberOfStudyRelatedSeries": "NumberOfStudyRelatedSeries",
    "DICOMNumberOfStudyRelatedInstances": "NumberOfStudyRelatedInstances",
    "DICOMAccessionNumber": "AccessionNumber",
    "DICOMStudyDate": "StudyDate",
    "DICOMStudyTime": "StudyTime",
}
SERIES_LEVEL = {
    "DICOMSeriesInstanceUID": "SeriesInstanceUID",
    "DICOMSeriesModality": "Modality",
    "DICOMSeriesBodyPart": "BodyPartExamined",
    "DICOMSeriesNumber": "SeriesNumber",
}
INTEGERS = {
    "DICOMNumberOfStudyRelatedSeries",
    "DICOMNumberOfStudyRelatedInstances",
    "DICOMSeriesNumber",
}
"""The members of a summary that are numbers."""

_PATIENT_MODULES = """
    IssuerOfPatientID TypeOfPatientID PatientBirthTime OtherPatientIDs OtherPatientNames
    OtherPatientIDsSequence EthnicGroup PatientComments PatientSpeciesDescription
    PatientBreedDescription ResponsiblePerson PatientIdentityRemoved DeidentificationMethod
    DeidentificationMethodCodeSequence
"""
PATIENT = {*PATIENT_LEVEL.values(), *_PATIENT_MODULES.split()}
_STUDY_MODULES = """
    ReferringPhysicianName PhysiciansOfRecord NameOfPhysiciansReadingStudy ProcedureCodeSequence
    ReferencedStudySequence ConsultingPhysicianName RequestingService
    IssuerOfAccessionNumberSequence AdmittingDiagnosesDescription PatientAge PatientSize
    PatientWeight Occupation AdditionalPatientHistory AdmissionID MedicalAlerts Allergies
    PregnancyStatus SmokingStatus PatientState PatientSexNeutered
"""
STUDY = {*STUDY_LEVEL.values(), *_STUDY_MODULES.split()}
_SERIES_MODULES = """
    Laterality SeriesDate SeriesTime PerformingPhysicianName ProtocolName SeriesDescription
    SeriesDescriptionCodeSequence OperatorsName ReferencedPerformedProcedureStepSequence
    RelatedSeriesSequence PatientPosition SmallestPixelValueInSeries LargestPixelValueInSeries
    RequestAttributesSequence PerformedProcedureStepID PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime PerformedProcedureStepEndDate PerformedProcedureStepEndTime
    PerformedProcedureStepDescription PerformedProtocolCodeSequence
    CommentsOnThePerformedProcedureStep AnatomicalOrientationType Manufacturer InstitutionName
    InstitutionAddress StationName InstitutionalDepartmentName ManufacturerModelName
    DeviceSerialNumber SoftwareVersions GantryID SpatialResolution DateOfLastCalibration
    TimeOfLastCalibration PixelPaddingValue FrameOfReferenceUID PositionReferenceIndicator
"""
SERIES = {*SERIES_LEVEL.values(), *_SERIES_MODULES.split()}

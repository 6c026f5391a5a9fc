"""Rebuilding the version history and the coverage from the increments."""

from __future__ import annotations

from cohortlake.admin import rotate_patient_key
from cohortlake.cohort.freeze import rotate_cohort_keys
from cohortlake.cohort.freeze.signature import read_key as read_cohort_key
from cohortlake.history import coverage, image_sets, refiled
from cohortlake.history.image_sets import ApplyResult
from cohortlake.increments import files
from cohortlake.publish.publication.marker import read_marker
from cohortlake.publish.publication.published_key import key_to_publish_with
from cohortlake.settings import Settings
from cohortlake.storage import delta
from cohortlake.storage.root import Root


def rebuild_tables(root: Root, settings: Settings) -> ApplyResult:
    """Rebuild the version history and the coverage from the increments.

    Also upgrades what an older release wrote, frozen cohorts included.

    Args:
        root: The lake.
        settings: Where the keys are.

    Raises:
        CommitConflict: Other writers kept committing first.
        DamagedFile: An increment is damaged.
        SettingError: A frozen cohort gets new keys, and there is no key to sign it with.
    """
    for table in (image_sets.TABLE, coverage.TABLE):
        delta.discard_unreadable(root, table)
    refiled.drop_late(root, files.paths(root), are_all=True)
    applied, paths = image_sets.rebuild(root)
    coverage.record(root, paths, rebuild=True)
    if marker := read_marker(root):
        key = key_to_publish_with(root, settings.patient_key, marker)
        link = rotate_patient_key.respelled(root, key)
        rotate_cohort_keys.rotate(root, link, read_cohort_key(settings.cohort_key_file))
    return applied

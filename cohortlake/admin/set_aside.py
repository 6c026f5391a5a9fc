"""Setting a damaged increment aside, so that its window is searched again."""

from __future__ import annotations

from cohortlake.admin.rebuild_tables import rebuild_tables
from cohortlake.errors import SettingError
from cohortlake.increments import files
from cohortlake.settings import Settings
from cohortlake.storage.root import Root


def set_aside(root: Root, settings: Settings, path: str) -> str:
    """Rename a damaged increment, and rebuild the tables, so that its window is due again.

    The tables are rebuilt because a search keeps only rows that the version history lacks. Until
    the next search, the tables lack what only this increment held. Earlier versions that the
    service does not return any more are lost.

    Args:
        root: The lake.
        settings: Where the keys are.
        path: The file of the increment, or of packed increments, relative to the root. A file that
            was set aside before may be given again.

    Returns:
        The new path.

    Raises:
        SettingError: It is not an increment of this lake, or it is not damaged.
        DamagedFile: Another increment is damaged too: set that one aside next.
        LakeInUse: Another run is at work.
    """
    moved = f"{path}{files.DAMAGED_SUFFIX}"
    is_there = path in files.listed(root)
    if not is_there and not root.exists(moved):
        raise SettingError(
            f"{path} is not an increment below {root.uri}; give the path as the error names it"
        )
    if is_there and not files.is_damaged(root, path):
        raise SettingError(f"{path} can be read, so it is not set aside")
    with root.alone():
        if is_there:
            files.set_aside(root, path)
        rebuild_tables(root, settings)
    return moved

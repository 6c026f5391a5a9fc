"""Every notebook runs from top to bottom, with its own assertions, on a lake like the demo's."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cohortlake import Settings, Sync
from emulator import running

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("lake"))
    with pytest.MonkeyPatch.context() as patch, running(synthetic=4000, seed=1) as emulator:
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        settings = Settings(
            datastores=emulator.datastores, root=root, tps=500, workers=8, privacy="limited"
        )
        Sync(settings).run()
        emulator.admin.live(3, seed=1)
        Sync(settings).run()
    return root


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_notebook(name: str, lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHORTLAKE_ROOT", lake)
    notebook = nbformat.read(FOLDER / name, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    assert all(not cell["outputs"] for cell in nbformat.read(FOLDER / name, 4).cells
               if cell.cell_type == "code"), "commit notebooks without outputs"  # fmt: skip
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert images

"""A local AWS HealthImaging endpoint, driven by botocore's own service model.

    with emulator.running(synthetic=2000, seed=1) as healthimaging:
        client = boto3.client("medical-imaging", endpoint_url=healthimaging.endpoint, ...)

The package imports nothing of `cohortlake`, so that no mistake in one hides a mistake in the other.
See `docs/reference/emulator.md` for what is emulated, what is assumed and what is missing.
"""

from emulator.control.client import AdminClient, AdminError
from emulator.options import Options
from emulator.runner import Emulator, running
from emulator.service.bad_documents import BAD_DOCUMENTS
from emulator.service.faults import Behaviour

__all__ = [
    "BAD_DOCUMENTS",
    "AdminClient",
    "AdminError",
    "Behaviour",
    "Emulator",
    "Options",
    "running",
]

"""The resources: the library, with the settings of the environment."""

import dagster as dg

from cohortlake import Settings, Sync, protect_process


class SyncResource(dg.ConfigurableResource[Sync]):
    """The lake and the service, from COHORTLAKE_* and boto3's own configuration.

    Assets ask for `sync: dg.ResourceParam[Sync]`. It has no configuration in Dagster, so that
    a run, the command line and a notebook cannot mean different lakes.
    """

    def create_resource(self, context: dg.InitResourceContext) -> Sync:
        """Read the settings, when a run begins and not when the code location loads."""
        protect_process()
        return Sync(Settings.from_env(), note=context.log.warning if context.log else None)


RESOURCES = {"sync": SyncResource()}

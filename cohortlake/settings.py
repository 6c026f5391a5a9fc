"""The settings, read in one place.

`SETTINGS` lists each environment variable with its default and its meaning; the docs page is
generated from it. boto3 reads credentials, region and endpoint itself (AWS_PROFILE, AWS_REGION,
AWS_ENDPOINT_URL_MEDICAL_IMAGING).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from cohortlake.errors import SettingError, did_you_mean

POLICIES = ("safe", "limited", "identified")
SAFE_DATES = ("shift", "year")

_DATASTORE_ID = re.compile(r"[0-9a-z]{32}")


@dataclass(frozen=True)
class Setting:
    """One row of the settings table."""

    variable: str
    default: str
    meaning: str


SETTINGS = (
    Setting("COHORTLAKE_DATASTORES", "", "Data store ids, comma separated. Has no default."),
    Setting("COHORTLAKE_ROOT", "cohortlake-data", "The lake: a folder, or `s3://bucket/prefix`."),
    Setting(
        "COHORTLAKE_PUBLISHED",
        "",
        "Another folder or `s3://bucket/prefix` for `published/` and `cohorts/`, so that readers "
        "need no right on the rest. By default they lie in the lake.",
    ),
    Setting(
        "COHORTLAKE_TPS",
        "25",
        "SearchImageSets requests per second that the account's quota leaves to the lake.",
    ),
    Setting(
        "COHORTLAKE_BURST",
        "",
        "Requests that may go out at once after a pause. By default TPS, half of what AWS grants.",
    ),
    Setting(
        "COHORTLAKE_SEARCHERS",
        "1",
        "Processes that may search at once, each with an equal share of TPS and BURST. "
        "Dagster's pool `healthimaging` must have the same limit.",
    ),
    Setting(
        "COHORTLAKE_WORKERS",
        "",
        "Requests in flight at once. By default what the quota needs at 100 ms latency, "
        "with room to spare: TPS / 5, at least 4, at most 64.",
    ),
    Setting(
        "COHORTLAKE_LOOKBACK_SECONDS",
        "600",
        "How far before the last proven instant each tick searches again.",
    ),
    Setting(
        "COHORTLAKE_SETTLE_SECONDS",
        "300",
        "How long a change may take to become searchable. A window closes only after it.",
    ),
    Setting(
        "COHORTLAKE_MAX_DELETED_SHARE",
        "0.2",
        "Share of a study month that a sweep may close as deleted by itself, if that is more than "
        "ten image sets. If more is missing, a person must check first.",
    ),
    Setting(
        "COHORTLAKE_TRUST_SEARCH",
        "no",
        "`yes` closes as deleted what two searches do not find, where GetImageSet is denied. Set "
        "it only if searches may find every image set: IAM can hide single studies and series.",
    ),
    Setting(
        "COHORTLAKE_RETENTION_DAYS",
        "30",
        "How long old versions of `image_sets/` and `coverage/` can be read, and uncommitted files "
        "of killed runs stay. At least 7, the longest that a run takes; 30 lets incremental "
        "publishing resume after a month.",
    ),
    Setting(
        "COHORTLAKE_PRIVACY",
        "safe",
        "What `published/` may show: `safe`, `limited`, `identified`, or the name of the policy in "
        "COHORTLAKE_PRIVACY_FILE. A run without it does not change the policy of a lake that is "
        "published under another one.",
    ),
    Setting(
        "COHORTLAKE_PRIVACY_FILE",
        "",
        "A YAML file that narrows a policy, or makes another one, and lists reviewed values.",
    ),
    Setting(
        "COHORTLAKE_SAFE_DATES",
        "shift",
        "What `safe` does with dates: `shift` moves all of a patient's by the same number of days, "
        "`year` shows the year.",
    ),
    Setting(
        "COHORTLAKE_PATIENT_KEY",
        "lake",
        "Where the key is that patient_key, accession_key, UIDs and shifts are made with: `lake` "
        "(`keys/` of the restricted zone), `env:NAME`, `file:PATH`, `secretsmanager:ID` or "
        "`kms:KEY-ID`.",
    ),
    Setting(
        "COHORTLAKE_METADATA_TPS",
        "50",
        "GetImageSetMetadata requests per second that AWS grants the account. It is shared by the "
        "searchers as COHORTLAKE_TPS is.",
    ),
    Setting(
        "COHORTLAKE_HEADERS",
        "",
        "Modalities whose whole headers Dagster fetches, comma separated: `CT,MR`; or `all`. Each "
        "image set costs a request. Empty fetches none.",
    ),
    Setting(
        "COHORTLAKE_EVENTS_QUEUE",
        "",
        "URL of an SQS queue with HealthImaging's events, if there is one.",
    ),
    Setting(
        "COHORTLAKE_NOTIFY",
        "",
        "Where alerts go: URLs of apprise, separated by blanks, such as `mailto://…`, `slack://…`, "
        "`msteams://…`, `pagerduty://…` or `jsons://…` for a webhook. They hold secrets. "
        "Without them no alert is sent.",
    ),
    Setting(
        "COHORTLAKE_ICEBERG",
        "",
        "`CATALOGUE.NAMESPACE`, such as `glue.imaging`: where Iceberg tables of what is published "
        "are registered. PyIceberg's own configuration says how the catalogue is reached.",
    ),
    Setting(
        "COHORTLAKE_COHORTS",
        "cohorts",
        "A folder of YAML files, each a cohort of the same name.",
    ),
    Setting(
        "COHORTLAKE_COHORT_KEY_FILE",
        "",
        "A file with the key that signs frozen cohorts, kept outside the lake.",
    ),
)


_DEFAULTS = {setting.variable: setting.default for setting in SETTINGS}


def _workers_for(tps: float) -> int:
    return min(64, max(4, round(tps / 5)))


@dataclass(frozen=True)
class Settings:
    """The settings of a deployment.

    Attributes:
        datastores: Ids of the data stores in this lake.
        root: A local path or an `s3://` URL.
        published: The same, for `published/` and `cohorts/`; empty if they lie in the root.
        tps: SearchImageSets requests per second of this process.
        burst: Requests that may go out at once after a pause, 1 or more.
        workers: Requests in flight at once.
        metadata_tps: GetImageSetMetadata requests per second of this process.
        headers: Modalities whose headers Dagster fetches; `ALL` for all of them.
        lookback: How far the next search of an open window overlaps its last search.
        settle: How long a change may take to become searchable.
        max_deleted_share: Share of a study month that a sweep may close as deleted by itself.
        trust_search: Whether searches alone may prove that an image set was deleted.
        retention: How long old versions of `image_sets/` and `coverage/` can be read.
        privacy: The name of the policy of `published/`. Empty means `safe`, but does not change
            the policy of a lake that is published under another one.
        privacy_file: A file with a policy; empty for none.
        safe_dates: How `safe` treats dates: shift or year. Empty means shift, but does not change
            a lake that is published with years.
        patient_key: Where the patient key lies.
        events_queue: The URL of the queue of events; empty if there is none.
        notify: The URLs of apprise that alerts go to. They hold secrets.
        iceberg: The catalogue and the namespace of the Iceberg tables; empty for none.
        cohorts: The folder of cohorts as YAML files.
        cohort_key_file: The file with the key that signs frozen cohorts; empty for none.
    """

    datastores: tuple[str, ...] = ()
    root: str = _DEFAULTS["COHORTLAKE_ROOT"]
    tps: float = float(_DEFAULTS["COHORTLAKE_TPS"])
    burst: float = tps
    workers: int = _workers_for(tps)
    metadata_tps: float = float(_DEFAULTS["COHORTLAKE_METADATA_TPS"])
    headers: frozenset[str] = frozenset()
    lookback: timedelta = timedelta(seconds=float(_DEFAULTS["COHORTLAKE_LOOKBACK_SECONDS"]))
    settle: timedelta = timedelta(seconds=float(_DEFAULTS["COHORTLAKE_SETTLE_SECONDS"]))
    max_deleted_share: float = float(_DEFAULTS["COHORTLAKE_MAX_DELETED_SHARE"])
    retention: timedelta = timedelta(days=int(_DEFAULTS["COHORTLAKE_RETENTION_DAYS"]))
    privacy: str = ""
    privacy_file: str = ""
    safe_dates: str = ""
    patient_key: str = _DEFAULTS["COHORTLAKE_PATIENT_KEY"]
    events_queue: str = ""
    notify: tuple[str, ...] = field(default=(), repr=False)
    iceberg: str = ""
    cohorts: str = _DEFAULTS["COHORTLAKE_COHORTS"]
    cohort_key_file: str = ""
    published: str = ""
    trust_search: bool = _DEFAULTS["COHORTLAKE_TRUST_SEARCH"] == "yes"

    @property
    def readers_root(self) -> str:
        """The root that readers use."""
        return self.published or self.root

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables.

        Args:
            environ: Where to read; the process's environment by default.

        Raises:
            SettingError: A value cannot be used; the message names the variable.
        """
        env = os.environ if environ is None else environ
        unknown_setting(env)
        values = {s.variable: env.get(s.variable, "").strip() or s.default for s in SETTINGS}
        searchers = _whole_number("COHORTLAKE_SEARCHERS", values)
        quota = _number("COHORTLAKE_TPS", values, above_zero=True)
        burst = _number("COHORTLAKE_BURST", values) if values["COHORTLAKE_BURST"] else quota
        tps = quota / searchers
        return cls(
            datastores=_datastores(values["COHORTLAKE_DATASTORES"]),
            root=values["COHORTLAKE_ROOT"],
            tps=tps,
            burst=max(1.0, burst / searchers),
            workers=_workers(values, tps),
            metadata_tps=_number("COHORTLAKE_METADATA_TPS", values, above_zero=True) / searchers,
            headers=_modalities(values["COHORTLAKE_HEADERS"]),
            lookback=timedelta(seconds=_number("COHORTLAKE_LOOKBACK_SECONDS", values)),
            settle=timedelta(seconds=_number("COHORTLAKE_SETTLE_SECONDS", values)),
            max_deleted_share=_share("COHORTLAKE_MAX_DELETED_SHARE", values),
            retention=timedelta(days=_whole_number("COHORTLAKE_RETENTION_DAYS", values, 7, 36500)),
            privacy=env.get("COHORTLAKE_PRIVACY", "").strip(),
            privacy_file=values["COHORTLAKE_PRIVACY_FILE"],
            safe_dates=_safe_dates(env.get("COHORTLAKE_SAFE_DATES", "").strip()),
            patient_key=values["COHORTLAKE_PATIENT_KEY"],
            events_queue=_url(values["COHORTLAKE_EVENTS_QUEUE"]),
            notify=tuple(values["COHORTLAKE_NOTIFY"].split()),
            iceberg=_iceberg(values["COHORTLAKE_ICEBERG"]),
            cohorts=values["COHORTLAKE_COHORTS"],
            cohort_key_file=values["COHORTLAKE_COHORT_KEY_FILE"],
            published=values["COHORTLAKE_PUBLISHED"],
            trust_search=_is_yes("COHORTLAKE_TRUST_SEARCH", values),
        )

    def require_datastores(self) -> tuple[str, ...]:
        """Return the data stores.

        Raises:
            SettingError: None is set.
        """
        if not self.datastores:
            raise SettingError(
                "COHORTLAKE_DATASTORES is not set; give the ids of the data stores to keep, "
                "comma separated (`aws medical-imaging list-datastores` shows them)"
            )
        return self.datastores

    def require_headers(self) -> frozenset[str]:
        """Return the modalities whose headers are fetched.

        Raises:
            SettingError: None is set.
        """
        if not self.headers:
            raise SettingError(
                "COHORTLAKE_HEADERS is not set; name the modalities whose whole headers are "
                "fetched, comma separated, or `all`: each image set costs a request"
            )
        return self.headers


def unknown_setting(environ: Mapping[str, str]) -> None:
    """Refuse a COHORTLAKE_ variable that nothing reads: it is a spelling mistake.

    Raises:
        SettingError: There is one; the message names the nearest that exists.
    """
    known = [s.variable for s in SETTINGS]
    for name in environ:
        if name.startswith("COHORTLAKE_") and name not in known and "_TEST_" not in name:
            if environ.get("COHORTLAKE_PATIENT_KEY", "").strip() == f"env:{name}":
                raise SettingError(
                    f"COHORTLAKE_PATIENT_KEY=env:{name}: the name of that variable must not begin "
                    "with COHORTLAKE_, as those of settings do; give it another one"
                )
            raise SettingError(f"{name} is not a setting{did_you_mean(name, known)}")


def _datastores(text: str) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for datastore_id in ids:
        if not _DATASTORE_ID.fullmatch(datastore_id):
            raise SettingError(
                f"COHORTLAKE_DATASTORES: {datastore_id!r} is not a data store id; "
                "these are 32 characters of 0-9 and a-z"
            )
    return ids


def _number(variable: str, values: Mapping[str, str], *, above_zero: bool = False) -> float:
    try:
        number = float(values[variable])
    except ValueError:
        number = float("nan")
    if not (0 < number < 1e9 if above_zero else 0 <= number < 1e9):
        least = "above 0" if above_zero else "0 or more"
        raise SettingError(f"{variable} must be a number {least}, not {values[variable]!r}")
    return number


def _share(variable: str, values: Mapping[str, str]) -> float:
    share = _number(variable, values)
    if share > 1:
        raise SettingError(f"{variable} must be a share from 0 to 1, not {values[variable]!r}")
    return share


def _modalities(text: str) -> frozenset[str]:
    """Return the modalities that a setting names, in upper case."""
    return frozenset(name.strip().upper() for name in text.split(",") if name.strip())


def _workers(values: Mapping[str, str], tps: float) -> int:
    if not values["COHORTLAKE_WORKERS"]:
        return _workers_for(tps)
    return _whole_number("COHORTLAKE_WORKERS", values)


def _whole_number(variable: str, values: Mapping[str, str], least: int = 1, most: int = 512) -> int:
    text = values[variable]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise SettingError(
            f"{variable} must be a whole number from {least} to {most}, not {text!r}"
        )
    return int(text)


def _is_yes(variable: str, values: Mapping[str, str]) -> bool:
    if values[variable] not in ("yes", "no"):
        raise SettingError(f"{variable} must be yes or no, not {values[variable]!r}")
    return values[variable] == "yes"


def _safe_dates(text: str) -> str:
    if text and text not in SAFE_DATES:
        raise SettingError(
            f"COHORTLAKE_SAFE_DATES must be one of {', '.join(SAFE_DATES)}, not {text!r}"
            f"{did_you_mean(text, SAFE_DATES)}"
        )
    return text


def _iceberg(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_]+", text):
        raise SettingError(
            f"COHORTLAKE_ICEBERG must be CATALOGUE.NAMESPACE, such as glue.imaging, not {text!r}"
        )
    return text


def _url(text: str) -> str:
    if text and not text.startswith(("https://", "http://")):
        raise SettingError(
            f"COHORTLAKE_EVENTS_QUEUE must be the queue's URL, https://sqs...., not {text!r}; "
            "`aws sqs get-queue-url` shows it"
        )
    return text

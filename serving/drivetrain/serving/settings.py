"""What the operator tells an endpoint's processes through their environment; paths are read from nowhere else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from drivetrain.api import layout, names
from drivetrain.api.errors import DrivetrainError
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.store import DirectoryStore, ObjectStore, open_store


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment, typed."""

    namespace: str
    project: str
    deployment: str
    cluster: str
    report: str
    policies: Path
    keys: Path
    work: Path
    service_account: Path
    store: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Settings":
        """Reads the environment. Raises DrivetrainError naming the first variable that is missing."""
        try:
            return cls(
                namespace=env.get(names.NAMESPACE_ENV, "default"),
                project=env[names.PROJECT_ENV],
                deployment=env[names.DEPLOYMENT_ENV],
                cluster=env.get(names.CLUSTER_NAME_ENV, ""),
                report=env.get(names.REPORT_ENV, ""),
                policies=Path(env.get(names.POLICIES_ENV, names.POLICIES_DIRECTORY)),
                keys=Path(env.get(names.KEYS_ENV, names.KEYS_DIRECTORY)),
                work=Path(env.get(names.WORK_ENV, names.WORK_DIRECTORY)),
                service_account=Path(env.get(names.SERVICE_ACCOUNT_ENV, names.SERVICE_ACCOUNT_DIRECTORY)),
                store=env[names.STORE_ENV],
            )
        except KeyError as error:
            raise DrivetrainError(
                f"{error.args[0]} is not set.", remedy="The operator sets it on the endpoint's pods."
            ) from None

    @property
    def journal(self) -> Path:
        """Where this endpoint's journals lie on this node: what another endpoint left belongs into another store."""
        return self.work / "journal" / f"{self.namespace}.{self.deployment}"

    @property
    def monitor(self) -> str:
        """Folder on the store of this cluster's Monitor: while one cluster replaces another, each has its own."""
        return f"{layout.monitor(self.deployment)}/{self.cluster or 'local'}"

    @property
    def models(self) -> Path:
        """Where this node keeps fetched models."""
        return self.work / "models"

    @property
    def bucket(self) -> Store | None:
        """The project's store where it is on S3."""
        return None if self.store.startswith("file://") else Store.model_validate(json.loads(self.store))

    def open_store(self, env: Mapping[str, str]) -> ObjectStore:
        """The project's store: a Store as JSON, or file:///path for a directory on one machine."""
        bucket = self.bucket
        if bucket is None:
            return DirectoryStore(Path(url2pathname(urlsplit(self.store).path)))
        return open_store(bucket, env)

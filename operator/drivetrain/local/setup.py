"""What is put in place once: folders, resource definitions, the operator's rights, the bucket and its keys."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import yaml

from drivetrain.api.crds import crds as crds_of_drivetrain
from drivetrain.api.documents import JSON, Document, documents, mapping, name_of, text
from drivetrain.api.errors import ClusterError, ComponentError, StoreError
from drivetrain.api.kinds import CUSTOM_RESOURCE_DEFINITION, Ref
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.local.components import BUCKET
from drivetrain.local.rights import operator_rights
from drivetrain.local.settings import Settings
from drivetrain.local.statedir import StateDir

FIELD_MANAGER = "drivetrain-local"
STORE_SECRET = "s3"  # noqa: S105 (the name of a Secret)
ESTABLISHED_SECONDS = 40.0
NUDGE_SECONDS = 12.0


def prepare_folders(state: StateDir) -> bool:
    """Make the folders that components write to; return whether S3 metadata needs files beside the objects.

    Ray's and HAProxy's folder is emptied: what is in it belongs to processes that are gone.
    """
    shutil.rmtree(state.sockets, ignore_errors=True)
    for folder in (state.sockets, state.sockets / "ray", state.sockets / "haproxy"):
        folder.mkdir(mode=0o700)
    for name in ("s3", "s3-metadata", "mlflow"):
        (state.root / name).mkdir(exist_ok=True)
    state.heartbeat.unlink(missing_ok=True)
    return not _keeps_attributes(state.root / "s3")


async def set_up_cluster(state: StateDir, settings: Settings, crds: Path) -> None:
    """Apply resource definitions, the operator's rights and the Secret with the S3 keys; running it again is safe.

    Raises ClusterError when the API server refuses, ComponentError when definitions are not served in time.
    """
    definitions = [*_kuberay_definitions(crds), *crds_of_drivetrain().values()]
    async with connect(from_kubeconfig(state.kubeconfig), lambda *_: None) as cluster:
        for document in (*definitions, *operator_rights(), _store_secret(settings)):
            await cluster.apply(document, field_manager=FIELD_MANAGER)
        await _established(cluster, (name_of(definition) for definition in definitions))


def set_up_store(settings: Settings) -> None:
    """Create the bucket if it is not there. Raises StoreError."""
    import boto3  # heavy, and needed only here
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_url,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        region_name="us-east-1",
    )
    try:
        client.create_bucket(Bucket=BUCKET)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        return
    except (BotoCoreError, ClientError) as error:
        raise StoreError("StoreUnavailable", f"The bucket {BUCKET} cannot be created: {error}.") from error


def _kuberay_definitions(folder: Path) -> Iterable[Document]:
    for file in sorted(folder.glob("*.yaml")):
        yield yaml.load(file.read_text(), Loader=yaml.CSafeLoader)


def _store_secret(settings: Settings) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": STORE_SECRET, "namespace": "default"},
        "stringData": {"AWS_ACCESS_KEY_ID": settings.s3_access_key, "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key},
    }


async def _established(cluster: KubernetesCluster, names: Iterable[str]) -> None:
    began = time.monotonic()
    for name in names:
        nudged = False
        while True:
            try:
                found = await cluster.get(Ref(CUSTOM_RESOURCE_DEFINITION, "", name))
            except ClusterError:
                found = None
            conditions = documents(mapping(found or {}, "status"), "conditions")
            if any(text(entry, "type") == "Established" and text(entry, "status") == "True" for entry in conditions):
                break
            waited = time.monotonic() - began
            if found and waited > NUDGE_SECONDS and not nudged:
                # An API server that ends in the 5 s between accepting the names and establishing them never comes
                # back to it; names that differ from the wanted ones make it accept and establish again.
                blank: JSON = {"acceptedNames": {"kind": "", "plural": ""}}
                await cluster.apply_status({**found, "status": blank}, field_manager=FIELD_MANAGER)
                nudged = True
            if waited > ESTABLISHED_SECONDS:
                raise ComponentError(f"The API server does not serve {name} after {ESTABLISHED_SECONDS:.0f} s.")
            await asyncio.sleep(0.1)


def _keeps_attributes(folder: Path) -> bool:
    probe = folder / ".attributes"
    probe.touch()
    try:
        os.setxattr(probe, "user.drivetrain", b"1")
    except (OSError, AttributeError):  # AttributeError: Python has no setxattr outside Linux
        return False
    finally:
        probe.unlink()
    return True

"""KubeRay does what the agent of the embedded mode is held to."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.api.dossier import Dossier
from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from tests.cluster import clusters
from tests.cluster.clusters import s3_at
from tests.cluster.forwarding import forwarded
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, KubectlError, delete_namespaces
from tests.cluster.release import a_namespace
from tests.conformance.cases import Conformance
from tests.conformance.manifests import KEYS
from tests.conformance.party import Party
from tests.conformance.stories import Told, tell

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]  # the first test waits for all stories
NAMESPACE = "conformance"
BUCKET = "conformance"


@pytest.fixture(scope="module")
def team(cluster: Kubectl) -> Iterator[Kubectl]:
    """A namespace for all stories."""
    cluster.apply(a_namespace(NAMESPACE, **{"drivetrain.dev/enabled": "true"}))
    yield cluster.within(NAMESPACE)
    delete_namespaces(cluster, [NAMESPACE])


@pytest.fixture(scope="module")
def told(team: Kubectl, images: Images) -> Iterator[Told]:
    """All stories, told by KubeRay."""
    team.apply(*clusters.s3_server(clusters.S3_IMAGE))
    team("wait", "--for=condition=Ready", "pod/s3", "--timeout=90s", seconds=100)
    with forwarded(team, "pod/s3", 7070) as url:
        s3 = s3_at(url)
        s3.create_bucket(Bucket=BUCKET)

        def dossiers() -> list[Dossier]:
            found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())
            bodies = (s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in found)
            return [Dossier.model_validate_json(body) for body in bodies]

        def answer(name: str) -> str:
            try:
                return team("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/services/{name}-serve-svc:8000/proxy/")
            except KubectlError as error:
                raise OSError(str(error)) from error

        credentials = SecretReference(secret_name=KEYS)
        party = Party(
            kubeconfig=Path(os.environ["KUBECONFIG"]),
            namespace=NAMESPACE,
            image=images.ray,
            store=Store(uri=f"s3://{BUCKET}/p", endpoint="http://s3:7070", region="us-east-1", credentials=credentials),
            keys={"AWS_ACCESS_KEY_ID": clusters.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": clusters.SECRET_KEY},
            dossiers=dossiers,
            answer=answer,
        )
        yield asyncio.run(tell(party))


class TestKubeRay(Conformance):
    """KubeRay."""

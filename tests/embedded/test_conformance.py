"""The agent of the embedded mode does what KubeRay does, as far as the operator looks."""

import asyncio
import urllib.request

import pytest

from drivetrain.api.documents import annotations_of
from drivetrain.api.dossier import Dossier
from drivetrain.api.kinds import RAY_SERVICE
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION
from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from tests.conformance.cases import Conformance
from tests.conformance.manifests import KEYS
from tests.conformance.party import Party
from tests.conformance.stories import Told, tell
from tests.embedded.conftest import Embedded

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]  # the first test waits for all stories
NAMESPACE = "conformance"


@pytest.fixture(scope="module")
def told(embedded: Embedded) -> Told:
    """All stories, told by the agent."""
    here, place = embedded.within(NAMESPACE), embedded.addresses
    credentials = SecretReference(secret_name=KEYS)
    uri = f"s3://{place.bucket}/{NAMESPACE}"

    def dossiers() -> list[Dossier]:
        found = here.s3().list_objects_v2(Bucket=place.bucket, Prefix=f"{NAMESPACE}/").get("Contents", ())
        bodies = (here.s3().get_object(Bucket=place.bucket, Key=each["Key"])["Body"].read() for each in found)
        return [Dossier.model_validate_json(body) for body in bodies]

    def answer(name: str) -> str:
        url = annotations_of(here.get(RAY_SERVICE, name) or {})[ENDPOINT_URL_ANNOTATION]
        with urllib.request.urlopen(f"{url}/", timeout=5) as response:
            return str(response.read().decode())

    party = Party(
        kubeconfig=place.kubeconfig,
        namespace=NAMESPACE,
        image="local",
        store=Store(uri=uri, endpoint=place.s3, region="us-east-1", credentials=credentials),
        keys={"AWS_ACCESS_KEY_ID": place.s3_access_key, "AWS_SECRET_ACCESS_KEY": place.s3_secret_key},
        dossiers=dossiers,
        answer=answer,
    )
    return asyncio.run(tell(party))


class TestAgent(Conformance):
    """The agent."""

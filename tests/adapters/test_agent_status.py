"""What the embedded agent says of a RayService is taken by a real API server with KubeRay's definitions."""

import asyncio

import pytest
import yaml

from drivetrain.api.documents import Document, mapping, text
from drivetrain.api.kinds import RAY_SERVICE
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import connect
from drivetrain.local import binaries
from drivetrain.local.agent.clusters import MANAGER
from drivetrain.local.agent.effects import SetStatus
from drivetrain.local.agent.facts import RayFacts
from drivetrain.local.agent.services import decide
from tests.support.api_server import ApiServer
from tests.unit.local.worlds import a_service, a_world, its_cluster, its_head

pytestmark = pytest.mark.binaries

BARE: Document = {"status": "DEPLOYING", "message": "", "deployments": {}}
WHOLE: Document = {
    "status": "RUNNING",
    "message": "",
    "deployments": {"Endpoint": {"status": "HEALTHY", "message": "", "replicas": []}},
}
STORY = (("runs", WHOLE), ("is lost with Ray", None), ("is deployed anew", BARE), ("runs again", WHOLE))


async def test_an_endpoint_that_ray_loses_and_gets_back_is_told_at_each_step_and_written_once(
    api_server: ApiServer,
) -> None:
    async with connect(from_kubeconfig(api_server.kubeconfig), lambda *_: None) as cluster:
        await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        (definition,) = binaries.cache_folder().glob("kuberay-crds-*/ray.io_rayservices.yaml")
        await cluster.apply(yaml.safe_load(definition.read_text()))
        async with asyncio.timeout(30):
            while not await cluster.serves(RAY_SERVICE):  # noqa: ASYNC110 - the API server tells nobody when it serves
                await asyncio.sleep(0.1)
        made = a_service(name="lost-and-found")
        plain = {key: part for key, part in made.items() if key != "status"}
        held = {key: mapping(made, "metadata")[key] for key in ("finalizers", "annotations")}
        metadata: Document = {"name": "lost-and-found", "namespace": "team", **held}
        stored = await cluster.apply({**plain, "metadata": metadata})
        stored = await cluster.apply_status(
            {**stored, "status": {"activeServiceStatus": {"rayClusterName": "shop-abcde"}}}, field_manager=MANAGER
        )
        for step, details in STORY:
            ray_cluster = its_cluster(stored, "shop-abcde")
            ray = RayFacts(applications={} if details is None else {"team.shop-abcde.endpoint": details})
            world = a_world(stored, ray_cluster, its_head(ray_cluster), ray=ray)
            (wanted,) = [each for each in decide(stored, world, "x") if isinstance(each, SetStatus)]
            stored = await cluster.apply_status({**stored, "status": wanted.status}, field_manager=MANAGER)
            assert mapping(stored, "status") == wanted.status, step
            again = a_world(stored, ray_cluster, its_head(ray_cluster), ray=ray)
            assert not [each for each in decide(stored, again, "x") if isinstance(each, SetStatus)], step
        assert text(stored, "status", "serviceStatus") == "Running"

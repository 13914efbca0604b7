"""One of each rendered object, with the specs that reach every branch of the renderers.

`python -m tests.unit.controller.rendered` writes them below `golden/`; the diff is what a reviewer looks at, because a
changed RayService replaces serving clusters.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from drivetrain.api.documents import Document
from drivetrain.api.kinds import DEPLOYMENT, TRAINING_RUN
from drivetrain.api.ledger import DeploymentLedger
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.v1alpha1.dataset import SecretReference
from drivetrain.controller.core.training_run import run_spec
from drivetrain.controller.manifests import records
from drivetrain.controller.manifests.metadata import Owner
from drivetrain.controller.manifests.network import network_policy
from drivetrain.controller.manifests.ray_cluster import Runtime
from drivetrain.controller.manifests.ray_job import Part, ray_job
from drivetrain.controller.manifests.ray_service import (
    cluster_config,
    ray_service,
    revision_of,
    serve_config,
    service,
)
from drivetrain.controller.manifests.settings import Settings
from tests.support.builders import a_deployment, a_project, a_run

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = Settings(
    ray_image="example.org/ray:1",
    ray_version="2.60.0",
    mlflow_url="http://mlflow:5000",
    python_version="3.11",
    pull_secrets=("registry",),
)


def rendered() -> Mapping[str, Document]:
    """Name of each golden file to its object."""
    project = (
        a_project()
        .with_metadata(uid="p-uid")
        .with_field("spec.data.store.endpoint", "https://s3.example.org")
        .with_field("spec.data.sources[0].credentials", {"secretName": "visits"})
        .build()
    )
    run = (
        a_run()
        .with_metadata(uid="r-uid", creationTimestamp="2026-01-01T00:00:00Z")
        .with_field("spec.queue", {"name": "pool", "priorityClass": "low"})
        .with_field("spec.scaling", {"workers": 2, "resourcesPerWorker": {"cpu": "4", "memory": "8Gi", "gpu": 1}})
        .with_field(
            "spec.cluster",
            {
                "head": {"cpu": "1500m", "memory": "3Gi"},
                "nodeSelector": {"pool": "gpu", "arch": "amd64"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "runtimeClass": "nvidia",
                "topology": {"required": "cloud.provider.com/rack"},
            },
        )
        .build()
    )
    deployment = a_deployment().with_metadata(uid="d-uid").with_field("spec.replicas", 2).build()
    scaled = (
        a_deployment()
        .with_metadata(uid="d-uid")
        .with_field("spec.autoscaling", {"minReplicas": 1, "maxReplicas": 3})
        .with_field("spec.resources", {"cpu": "500m", "memory": "1Gi", "gpu": 0.5})
        .with_field("spec.cluster", {"topology": {"spread": [{"topologyKey": "topology.kubernetes.io/zone"}]}})
        .build()
    )
    runner = Owner(TRAINING_RUN, "default", "shop-1", "r-uid", "shop")
    server = Owner(DEPLOYMENT, "default", "shop", "d-uid", "shop")
    spec = run_spec(run, project, DeploymentLedger(), SETTINGS)
    credentials = SecretReference(secret_name="mlflow")
    endpoint = EndpointConfig(stable="a" * 16, baseline="b" * 16, load=("c" * 16,), salt="d-uid")
    runtime = Runtime.of(spec.spec.cluster, SETTINGS.runtime)
    objects: dict[str, Document] = {
        "ray_job": ray_job(runner, spec, Part(2, "t"), runtime, tracking_credentials=credentials),
        "ray_job_prepare": ray_job(runner, spec, Part(2, "p"), runtime, tracking_credentials=credentials),
        "run_spec": records.run_spec(runner, spec),
        "run_report": records.report(runner, annotations={"drivetrain.dev/incarnation": "1 shop-1-a1-abcde"}),
        "service": service(server, "0123456789ab"),
    }
    objects["run_network"] = network_policy(
        runner, project.spec.data, "http://tracking.mlflow.svc:80", SETTINGS.api_ports
    )
    objects["endpoint_network"] = network_policy(server, project.spec.data, None, SETTINGS.api_ports)
    for name, each in (("ray_service", deployment), ("ray_service_scaled", scaled)):
        config = cluster_config(
            server, each.spec, project.spec.data.store, Runtime.of(each.spec.cluster, SETTINGS.runtime)
        )
        objects[name] = ray_service(server, each.spec, config, serve_config(each.spec, endpoint), revision_of(config))
    rights = records.reporters(runner, SETTINGS.pull_secrets, {})
    for part, each_object in zip(("account", "role", "binding"), rights, strict=True):
        objects[part] = each_object
    return objects


def golden_text(document: Document) -> str:
    """How an object is kept: readable, and in the order in which it was rendered."""
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Write all golden files."""
    GOLDEN.mkdir(exist_ok=True)
    for name, document in rendered().items():
        (GOLDEN / f"{name}.json").write_text(golden_text(document))


if __name__ == "__main__":
    main()

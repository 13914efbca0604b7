"""RayServices: one Serve configuration for all of them, and KubeRay's status for each."""

from drivetrain.api.documents import Document, documents, labels_of, mapping, sequence, text, uid_of, value
from drivetrain.api.kinds import RAY_CLUSTER, Ref
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION
from drivetrain.local.agent.clusters import pods
from drivetrain.local.agent.effects import Apply, Delete, Effect, Hold, SetStatus
from drivetrain.local.agent.facts import RayFacts
from drivetrain.local.agent.services import FINALIZER, decide, deployed, serve_config, wanted
from tests.unit.local.worlds import STARTED, a_service, a_template, a_world, its_cluster, its_head, without_ray

PENDING = {"pendingServiceStatus": {"rayClusterName": "shop-abcde"}}
ACTIVE = {"activeServiceStatus": {"rayClusterName": "shop-abcde"}}
CONFIG = """
applications:
- name: endpoint
  route_prefix: /
  import_path: drivetrain.serving.app:build
  args: {policies: /etc/policies}
  runtime_env: {env_vars: {OWN: "1"}}
  deployments:
  - {name: Endpoint, num_replicas: 1, ray_actor_options: {num_cpus: 1, num_gpus: 1}}
"""


def ray(status: str, cluster: str = "shop-abcde") -> RayFacts:
    details: Document = {
        "status": status,
        "message": "",
        "deployments": {"Endpoint": {"status": "HEALTHY", "message": "", "replicas": []}},
    }
    return RayFacts(applications={f"team.{cluster}.endpoint": details})


def status_of(effects: tuple[Effect, ...]) -> Document:
    (found,) = [effect.status for effect in effects if isinstance(effect, SetStatus)]
    return found


def ready_condition(status: Document) -> tuple[str, str]:
    (found,) = [entry for entry in documents(status, "conditions") if text(entry, "type") == "Ready"]
    return text(found, "status"), text(found, "reason")


def test_a_new_service_is_held_and_says_where_it_will_answer_before_anything_else() -> None:
    known = a_service()
    service: Document = {**known, "metadata": {"name": "shop", "namespace": "team", "uid": "uid-shop"}}
    (held,) = decide(service, a_world(service), "abcde")
    assert held == Hold(service, (FINALIZER,), {ENDPOINT_URL_ANNOTATION: "http://127.0.0.1:8000/team/shop"})


def test_a_name_for_its_cluster_is_told_before_that_is_made() -> None:
    service = a_service()
    status = status_of(decide(service, a_world(service), "abcde"))
    assert text(status, "pendingServiceStatus", "rayClusterName") == "shop-abcde"
    assert ready_condition(status) == ("False", "Initializing")
    assert "serviceStatus" not in status


def test_a_name_that_kuberay_refuses_is_refused() -> None:
    service = a_service(name="s" * 48)
    refused = {**service, "status": status_of(decide(service, a_world(service), "abcde"))}
    (told,) = documents(refused, "status", "conditions")
    assert ready_condition(mapping(refused, "status")) == ("False", "ValidationFailed")
    words = "The RayService metadata is invalid: RayService name should be no more than 47 characters"
    assert text(told, "message") == words
    assert decide(refused, a_world(refused), "abcde") == ()


def test_its_cluster_is_a_copy_of_what_the_service_said_then() -> None:
    service = a_service(PENDING)
    made = [
        effect for effect in decide(service, a_world(service), "x") if isinstance(effect, Apply) and effect.create_only
    ]
    assert [mapping(effect.document, "spec") for effect in made] == [mapping(service, "spec", "rayClusterConfig")]


def test_a_service_is_promoted_when_every_application_runs() -> None:
    service = a_service(PENDING)
    cluster = its_cluster(service, "shop-abcde")
    head = its_head(cluster)
    deploying = status_of(decide(service, a_world(service, cluster, head, ray=ray("DEPLOYING")), "x"))
    assert ready_condition(deploying) == ("False", "Initializing")
    assert "activeServiceStatus" not in deploying
    running = status_of(decide(service, a_world(service, cluster, head, ray=ray("RUNNING")), "x"))
    assert ready_condition(running) == ("True", "NonZeroServeEndpoints")
    assert running["numServeEndpoints"] == 1
    assert running["serviceStatus"] == "Running"
    assert "pendingServiceStatus" not in running
    assert value(running, "activeServiceStatus", "applicationStatuses") == {
        "endpoint": {
            "status": "RUNNING",
            "message": "",
            "serveDeploymentStatuses": {"Endpoint": {"status": "HEALTHY", "message": ""}},
        }
    }


def test_the_head_pod_carries_the_label_that_services_select_by() -> None:
    service = a_service(PENDING)
    cluster = its_cluster(service, "shop-abcde")
    effects = decide(service, a_world(service, cluster, its_head(cluster), ray=ray("RUNNING")), "x")
    labels = [value(effect.document, "metadata", "labels") for effect in effects if isinstance(effect, Apply)]
    assert {"ray.io/serve": "true"} in labels


def test_a_service_without_a_running_application_has_no_endpoint() -> None:
    service = a_service(ACTIVE)
    cluster = its_cluster(service, "shop-abcde")
    status = status_of(decide(service, a_world(service, cluster, its_head(cluster), ray=RayFacts()), "x"))
    assert ready_condition(status) == ("False", "ZeroServeEndpoints")
    assert status["numServeEndpoints"] == 0
    assert "serviceStatus" not in status


def test_an_endpoint_that_ray_has_lost_is_not_ready_until_it_runs_again() -> None:
    service = a_service(ACTIVE)
    cluster = its_cluster(service, "shop-abcde")
    head = its_head(cluster)
    ready = a_service(status_of(decide(service, a_world(service, cluster, head, ray=ray("RUNNING")), "x")))
    lost = status_of(decide(ready, a_world(ready, cluster, head, ray=RayFacts()), "x"))
    assert ready_condition(lost) == ("False", "ZeroServeEndpoints")
    assert mapping(lost, "activeServiceStatus") == {"rayClusterName": "shop-abcde"}, "no map that is empty: see _status"
    again = a_service(lost)
    bare: Document = {"status": "DEPLOYING", "message": "", "deployments": {}}
    begun = RayFacts(applications={"team.shop-abcde.endpoint": bare})
    deploying = status_of(decide(again, a_world(again, cluster, head, ray=begun), "x"))
    assert ready_condition(deploying) == ("False", "ZeroServeEndpoints")
    assert value(deploying, "activeServiceStatus", "applicationStatuses") == {
        "endpoint": {"status": "DEPLOYING", "message": ""}
    }
    running = status_of(decide(again, a_world(again, cluster, head, ray=ray("RUNNING")), "x"))
    assert ready_condition(running) == ("True", "NonZeroServeEndpoints")


def test_an_endpoint_stays_ready_while_it_takes_over_a_change() -> None:
    first = a_service(PENDING)
    cluster = its_cluster(first, "shop-abcde")
    head = its_head(cluster)
    serves = status_of(decide(first, a_world(first, cluster, head, ray=ray("RUNNING")), "x"))
    service = {**first, "status": serves}
    changing = status_of(decide(service, a_world(service, cluster, head, ray=ray("DEPLOYING")), "x"))
    assert ready_condition(changing) == ("True", "NonZeroServeEndpoints")
    given_up = status_of(decide(service, a_world(service, cluster, head, ray=ray("DEPLOY_FAILED")), "x"))
    assert ready_condition(given_up) == ("True", "NonZeroServeEndpoints"), "what served before goes on answering"
    anew = a_service(ACTIVE)
    starting = status_of(decide(anew, a_world(anew, cluster, head, ray=ray("DEPLOYING")), "x"))
    assert ready_condition(starting)[0] == "False", "one that did not serve before does not serve yet"


def deleted(service: Document) -> Document:
    return {**service, "metadata": {**mapping(service, "metadata"), "deletionTimestamp": STARTED}}


def test_a_deleted_service_stays_until_its_cluster_is_gone() -> None:
    service = deleted(a_service(ACTIVE))
    cluster = its_cluster(service, "shop-abcde")
    stranger = its_cluster(a_service(ACTIVE, name="other"), "other-abcde")
    ended = decide(service, a_world(service, cluster, stranger), "x")
    assert ended == (Delete(Ref(RAY_CLUSTER, "team", "shop-abcde"), uid_of(cluster)),)
    going = deleted(cluster)
    assert decide(service, a_world(service, going, stranger), "x") == ()
    assert decide(service, a_world(service, stranger), "x") == (Hold(service, ()),)


def test_the_pods_of_a_service_carry_the_label_of_their_kind_from_the_beginning() -> None:
    service = a_service(PENDING)
    assert labels_of(its_head(its_cluster(service, "shop-abcde")))["ray.io/serve"] == "false"
    group: Document = {"groupName": "workers", "replicas": 1, "template": a_template()}
    config: Document = {"headGroupSpec": {"template": a_template()}, "workerGroupSpecs": [group]}
    _, worker = pods(its_cluster(a_service(PENDING, rayClusterConfig=config), "shop-abcde"))
    assert labels_of(worker)["ray.io/serve"] == "true"


def test_nothing_is_concluded_while_ray_does_not_answer() -> None:
    service = a_service(ACTIVE)
    cluster = its_cluster(service, "shop-abcde")
    effects = decide(service, without_ray(a_world(service, cluster, its_head(cluster))), "x")
    assert not [effect for effect in effects if isinstance(effect, SetStatus)]


def test_a_settled_service_is_not_written_again() -> None:
    service = a_service(PENDING)
    cluster = its_cluster(service, "shop-abcde")
    head = its_head(cluster)
    world = a_world(service, cluster, head, ray=ray("RUNNING"))
    settled = {**service, "status": status_of(decide(service, world, "x"))}
    again = a_world(settled, cluster, head, ray=ray("RUNNING"))
    assert not [effect for effect in decide(settled, again, "x") if isinstance(effect, SetStatus)]


def test_a_refused_configuration_is_reported_and_what_runs_goes_on() -> None:
    service = a_service(ACTIVE)
    cluster = its_cluster(service, "shop-abcde")
    world = a_world(service, cluster, its_head(cluster), ray=ray("RUNNING"))
    status = status_of(decide(service, world, "x", "num_replicas must be positive"))
    application = mapping(status, "activeServiceStatus", "applicationStatuses", "endpoint")
    assert (application["status"], application["message"]) == ("DEPLOY_FAILED", "num_replicas must be positive")
    assert ready_condition(status) == ("True", "NonZeroServeEndpoints")


def test_all_services_are_merged_and_each_keeps_its_own_names_paths_and_environment() -> None:
    template = a_template(
        env=[{"name": "POLICIES", "value": "/etc/policies/"}],
        volumeMounts=[{"name": "policies", "mountPath": "/etc/policies"}],
    )
    config: Document = {"headGroupSpec": {"template": template}}
    shop = a_service(ACTIVE, serveConfigV2=CONFIG, rayClusterConfig=config)
    news = a_service({"activeServiceStatus": {"rayClusterName": "news-fghij"}}, name="news")
    clusters = [its_cluster(shop, "shop-abcde"), its_cluster(news, "news-fghij")]
    heads = [its_head(cluster) for cluster in clusters]
    world = a_world(shop, news, *clusters, *heads)
    merged = serve_config(wanted(world), world)
    applications = {text(app, "name"): app for app in documents(merged, "applications")}
    assert {name: app["route_prefix"] for name, app in applications.items()} == {
        "team.shop-abcde.endpoint": "/team/shop",
        "team.news-fghij.endpoint": "/team/news",
    }
    app = applications["team.shop-abcde.endpoint"]
    folder = f"/state/pods/{uid_of(heads[0])}/policies"
    assert app["args"] == {"policies": folder}
    variables = mapping(app, "runtime_env", "env_vars")
    assert variables["RAY_CLUSTER_NAME"] == "shop-abcde"
    assert variables["POLICIES"] == f"{folder}/"
    assert variables["OWN"] == "1"
    (deployment,) = sequence(app, "deployments")
    assert deployment == {"name": "Endpoint", "num_replicas": 1, "ray_actor_options": {"num_cpus": 1}}


def test_a_service_whose_head_is_not_ready_waits_and_keeps_nobody_else_waiting() -> None:
    shop = a_service(PENDING)
    cluster = its_cluster(shop, "shop-abcde")
    world = a_world(shop, cluster, its_head(cluster, up=False))
    assert wanted(world) == ()


def test_what_runs_can_be_kept_by_an_agent_that_has_forgotten_it() -> None:
    shop = a_service(ACTIVE)
    config: Document = {"name": "team.shop-abcde.endpoint", "import_path": "app:app"}
    running = RayFacts(applications={"team.shop-abcde.endpoint": {"status": "RUNNING", "deployed_app_config": config}})
    assert deployed(("team", "shop"), a_world(shop, ray=running)).applications == (config,)
    assert deployed(("team", "other"), a_world(shop, ray=running)).applications == ()


def test_a_configuration_that_is_no_yaml_is_reported() -> None:
    shop = a_service(PENDING, serveConfigV2="applications: [")
    cluster = its_cluster(shop, "shop-abcde")
    world = a_world(shop, cluster, its_head(cluster))
    assert [entry.applications for entry in wanted(world)] == [()]
    status = status_of(decide(shop, world, "x"))
    message = text(status, "pendingServiceStatus", "applicationStatuses", "default", "message")
    assert message.startswith("serveConfigV2 is not YAML")

"""Decisions about one Deployment: its children, its cluster revisions, what replicas are told, what status says."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import JSON, Document, documents, labels_of, mapping, name_of, text, texts, value
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    RAY_SERVICE,
    ROLE,
    SERVICE,
    SERVICE_ACCOUNT,
    TRAINING_RUN,
    Ref,
)
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.names import ENDPOINT_URL_ANNOTATION, LEDGER_KEY
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.controller.manifests.settings import Settings
from tests.support.bench import SETTINGS, Bench, ServingBench
from tests.support.builders import a_deployment, a_project, a_run

VERSION = VersionReference(version="1", digest="a" * 64, run="shop-1")


def a_bench() -> ServingBench:
    bench = ServingBench(a_deployment().document())
    bench.up()
    return bench


def config(service: Document) -> EndpointConfig:
    serve = json.loads(text(service, "spec", "serveConfigV2"))
    told: Mapping[str, JSON] = serve["applications"][0]["deployments"][0]["user_config"]
    return EndpointConfig.model_validate(told)


def rolling(bench: ServingBench) -> str:
    """Bring a candidate to its first step; return its hash."""
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    candidate = bench.record.candidate
    assert candidate is not None
    bench.tell(loads=[{"hash": candidate.hash, "state": "Loaded"}])
    return candidate.hash


def test_todays_policy_is_the_first_stable_variant() -> None:
    bench = a_bench()
    told = config(bench.services()[0])
    assert told.stable == told.baseline
    assert (told.candidate, told.weight, told.load, told.pinned) == (None, 0, (), None)
    assert set(texts(bench.read(CONFIG_MAP, "shop-policies"), "data")) == {f"{told.stable}.json"}
    assert bench.said("Ready") == ("True", "Serving", "Serves today's policy.")


def test_the_role_gives_patch_on_the_report_and_nothing_else() -> None:
    assert a_bench().read(ROLE, "deployment-shop")["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["deployment-shop-report"],
            "verbs": ["patch"],
        }
    ]


def test_the_service_selects_the_pods_of_the_revision_that_serve() -> None:
    bench = a_bench()
    selector = texts(bench.read(SERVICE, "shop"), "spec", "selector")
    assert selector["drivetrain.dev/revision"] == bench.record.revision
    assert selector["ray.io/serve"] == "true"


def test_the_url_is_the_service_unless_the_ray_service_says_another() -> None:
    bench = a_bench()
    assert text(bench.read(DEPLOYMENT, "shop"), "status", "url") == "http://shop.default.svc:8000"
    live = bench.services()[0]
    metadata = {
        **mapping(live, "metadata"),
        "annotations": {ENDPOINT_URL_ANNOTATION: "http://127.0.0.1:1/default/shop"},
    }
    bench.cluster.put({**live, "metadata": metadata})
    bench.look()
    assert text(bench.read(DEPLOYMENT, "shop"), "status", "url") == "http://127.0.0.1:1/default/shop"


def test_a_candidate_is_loaded_before_it_gets_a_weight() -> None:
    bench = a_bench()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    loading = config(bench.services()[0])
    assert (loading.candidate, loading.weight, len(loading.load)) == (None, 0, 1)
    assert f"{loading.load[0]}.json" in texts(bench.read(CONFIG_MAP, "shop-policies"), "data")
    bench.tell(loads=[{"hash": loading.load[0], "state": "Loaded"}])
    weighted = config(bench.services()[0])
    assert (weighted.candidate, weighted.weight) == (loading.load[0], 10)
    progressing = bench.said("Progressing")
    assert progressing is not None
    assert progressing[1] == "RollingOut"


def test_a_shadowing_candidate_is_told_to_replicas_without_a_weight_and_told_in_status() -> None:
    bench = ServingBench(a_deployment().with_field("spec.rollout.shadow", {"minDecisions": 10}).document())
    bench.up()
    hash_ = rolling(bench)
    told = config(bench.services()[0])
    assert (told.candidate, told.weight) == (hash_, 0)
    seen = {"rollout": told.rollout, "stable": told.stable, "candidate": hash_, "weight": 0}
    counts = {"outcomes_stable": 0, "outcomes_candidate": 0, "shadow": {"decisions": 4, "milliseconds": 2}}
    bench.tell(rollout={**seen, **counts}, loads=[{"hash": hash_, "state": "Loaded"}])
    progressing = bench.said("Progressing")
    assert progressing is not None
    assert progressing[1] == "Shadowing"
    assert "4 of 10 decisions, 2 ms each" in progressing[2]
    status = mapping(bench.read(DEPLOYMENT, "shop"), "status")
    assert (status["weight"], "step" in status, "analysis" in status) == (0, False, False)
    bench.tell(rollout={**seen, **counts, "shadow": {"decisions": 10}}, loads=[{"hash": hash_, "state": "Loaded"}])
    assert config(bench.services()[0]).weight == 10


def test_a_halted_rollout_says_why_it_stands_still() -> None:
    bench = a_bench()
    hash_ = rolling(bench)
    told = config(bench.services()[0])
    seen = {"rollout": told.rollout, "stable": told.stable, "candidate": hash_, "weight": told.weight}
    counts = {"outcomes_stable": 9, "outcomes_candidate": 1, "halted": "OutcomesMissing", "message": "1 is missing."}
    bench.tell(rollout={**seen, **counts}, loads=[{"hash": hash_, "state": "Loaded"}])
    assert bench.said("Progressing") == ("True", "OutcomesMissing", "1 is missing.")


def test_during_a_rollout_only_the_user_config_changes() -> None:
    bench = a_bench()
    before = bench.services()[0]
    rolling(bench)
    after = bench.services()[0]
    assert mapping(after, "spec", "rayClusterConfig") == mapping(before, "spec", "rayClusterConfig")
    plain = [json.loads(text(each, "spec", "serveConfigV2")) for each in (before, after)]
    for serve in plain:
        for each in serve["applications"][0]["deployments"]:
            del each["user_config"]
    assert plain[0] == plain[1]


def test_a_second_deployment_of_a_project_stalls_without_children() -> None:
    bench = a_bench()
    bench.pass_time(seconds=5)
    bench.cluster.put(a_deployment("other").document())
    bench.reconcile(DEPLOYMENT, "other")
    stalled = bench.condition(DEPLOYMENT, "other", "Stalled")
    assert stalled is not None
    assert stalled[1] == "ProjectAlreadyServed"
    assert bench.read(CONFIG_MAP, "deployment-other-report") == {}
    assert bench.read(SERVICE, "other") == {}


def test_a_changed_cluster_is_a_second_ray_service_and_clients_move_when_it_is_ready() -> None:
    bench = a_bench()
    old = bench.services()[0]
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    bench.look()
    assert len(bench.services()) == 2
    assert texts(bench.read(SERVICE, "shop"), "spec", "selector")["drivetrain.dev/revision"] in name_of_revision(old)
    progressing = bench.said("Progressing")
    assert progressing is not None
    assert progressing[1] == "ReplacingCluster"
    bench.up()
    new = next(each for each in bench.services() if name_of(each) != name_of(old))
    assert texts(bench.read(SERVICE, "shop"), "spec", "selector")["drivetrain.dev/revision"] in name_of_revision(new)
    assert len(bench.services()) == 2, "the old one drains first"
    bench.pass_time(minutes=1)
    bench.look()
    assert [name_of(each) for each in bench.services()] == [name_of(new)]


def test_a_cluster_that_does_not_become_ready_is_given_up_and_the_old_one_serves_on() -> None:
    bench = a_bench()
    old = bench.services()[0]
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    assert bench.look() == timedelta(minutes=1)
    bench.pass_time(minutes=30)
    bench.tell(old)
    assert [name_of(each) for each in bench.services()] == [name_of(old)]
    assert bench.said("Ready") == ("True", "Serving", "Serves today's policy.")
    degraded = bench.said("Degraded")
    assert degraded is not None
    assert degraded[1] == "ClusterNotReady"


def test_a_cluster_that_was_given_up_is_tried_again_when_it_is_asked_for_anew() -> None:
    bench = a_bench()
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    bench.look()
    bench.pass_time(minutes=30)
    bench.look()
    assert len(bench.services()) == 1
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "1"})
    bench.look()
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    bench.look()
    assert len(bench.services()) == 2


def test_no_cluster_change_starts_during_a_rollout() -> None:
    bench = a_bench()
    rolling(bench)
    before = mapping(bench.services()[0], "spec", "rayClusterConfig")
    bench.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    bench.look()
    assert len(bench.services()) == 1
    assert mapping(bench.services()[0], "spec", "rayClusterConfig") == before


def test_replica_counts_change_in_place() -> None:
    bench = a_bench()
    bench.edit(DEPLOYMENT, "shop", replicas=3)
    bench.look()
    assert len(bench.services()) == 1
    groups = value(bench.services()[0], "spec", "rayClusterConfig", "workerGroupSpecs")
    assert isinstance(groups, list)
    assert groups[0]["replicas"] == 3


def test_the_selector_finds_the_pods_that_hold_replicas_and_no_others() -> None:
    bench = a_bench()
    wanted = dict(part.split("=") for part in text(bench.read(DEPLOYMENT, "shop"), "status", "selector").split(","))
    (group,) = documents(bench.services()[0], "spec", "rayClusterConfig", "workerGroupSpecs")
    labels = {**labels_of(mapping(group, "template")), "ray.io/node-type": "worker"}
    assert wanted.items() <= labels.items()
    assert wanted["drivetrain.dev/revision"] == bench.record.revision


def test_an_endpoint_that_serve_scales_offers_no_selector_to_another_autoscaler() -> None:
    bench = ServingBench(a_deployment().with_field("spec.autoscaling", {"maxReplicas": 2}).document())
    bench.up()
    assert "selector" not in mapping(bench.read(DEPLOYMENT, "shop"), "status")


def upgraded(bench: ServingBench) -> Bench:
    """The same cluster under an operator with another default image."""
    newer = Bench(settings=Settings(ray_image="example.org/ray:2", ray_version="2.60.1", python_version="3.12"))
    newer.cluster = bench.cluster
    return newer


def image_of(bench: ServingBench) -> str:
    assert bench.record.runtime is not None
    return bench.record.runtime.image


def test_an_operator_with_another_default_image_replaces_no_cluster() -> None:
    bench = a_bench()
    upgraded(bench).reconcile(DEPLOYMENT, "shop")
    assert len(bench.services()) == 1
    assert bench.record.runtime == SETTINGS.runtime


def test_another_spec_takes_the_default_image_of_today() -> None:
    bench = a_bench()
    newer = upgraded(bench)
    newer.reconcile(DEPLOYMENT, "shop")
    newer.edit(DEPLOYMENT, "shop", rollout={"holdout": 0.02})
    newer.reconcile(DEPLOYMENT, "shop")
    assert image_of(bench) == "example.org/ray:2"
    assert len(bench.services()) == 2


def test_a_spec_that_states_what_was_its_default_is_the_same_spec() -> None:
    bench = a_bench()
    newer = upgraded(bench)
    newer.edit(DEPLOYMENT, "shop", rollout={"holdout": 0.01}, cluster={"nodeSelector": {}})
    newer.reconcile(DEPLOYMENT, "shop")
    assert image_of(bench) == "example.org/ray:1"


def test_a_spec_that_another_operator_reads_differently_replaces_no_cluster_before_it_is_changed() -> None:
    bench = a_bench()
    rewritten(bench, bench.record.model_copy(update={"rendered_spec": "as another version saw it"}))
    newer = upgraded(bench)
    newer.reconcile(DEPLOYMENT, "shop")
    newer.edit(DEPLOYMENT, "shop", replicas=2)
    newer.reconcile(DEPLOYMENT, "shop")
    assert image_of(bench) == "example.org/ray:1"


def test_a_ledger_of_an_earlier_operator_keeps_its_image_and_learns_the_spec() -> None:
    bench = a_bench()
    rewritten(bench, bench.record.model_copy(update={"rendered_spec": None}))
    newer = upgraded(bench)
    newer.edit(DEPLOYMENT, "shop", replicas=3)  # while no operator looked
    newer.reconcile(DEPLOYMENT, "shop")
    assert image_of(bench) == "example.org/ray:1"
    assert len(bench.services()) == 1
    newer.edit(DEPLOYMENT, "shop", resources={"cpu": "2"})
    newer.reconcile(DEPLOYMENT, "shop")
    assert image_of(bench) == "example.org/ray:2"


def rewritten(bench: ServingBench, record: DeploymentLedger) -> None:
    """Put another ledger in the place of the one that is there."""
    live = bench.read(CONFIG_MAP, "deployment-shop-ledger")
    bench.cluster.put({**live, "data": {LEDGER_KEY: canonical_json(record)}})


def test_the_default_image_is_renewed_on_request_and_once() -> None:
    bench = a_bench()
    newer = upgraded(bench)
    newer.annotate(DEPLOYMENT, "shop", renew_image="1")
    newer.reconcile(DEPLOYMENT, "shop")
    renewed = bench.record.runtime
    assert renewed is not None
    assert renewed.image == "example.org/ray:2"
    assert len(bench.services()) == 2
    bench.reconcile(DEPLOYMENT, "shop")
    assert bench.record.runtime == renewed


def test_secrets_of_registries_reach_the_account_of_a_serving_endpoint_and_restart_nothing() -> None:
    bench = a_bench()
    before = bench.services()
    assert "imagePullSecrets" not in bench.read(SERVICE_ACCOUNT, "deployment-shop")
    newer = Bench(settings=replace(SETTINGS, pull_secrets=("registry", "mirror")))
    newer.cluster = bench.cluster
    newer.reconcile(DEPLOYMENT, "shop")
    assert pull_secrets(bench) == ["registry", "mirror"]
    assert bench.services() == before
    bench.look()
    assert pull_secrets(bench) == [], "an operator that is told of none takes its own away"


def test_a_secret_that_the_platform_gives_an_account_stays_beside_ours() -> None:
    bench = a_bench()
    account = bench.read(SERVICE_ACCOUNT, "deployment-shop")
    bench.cluster.put({**account, "imagePullSecrets": [{"name": "deployment-shop-dockercfg"}]}, "openshift")
    bench.look()
    assert pull_secrets(bench) == ["deployment-shop-dockercfg"]
    newer = Bench(settings=replace(SETTINGS, pull_secrets=("registry",)))
    newer.cluster = bench.cluster
    newer.reconcile(DEPLOYMENT, "shop")
    assert pull_secrets(bench) == ["deployment-shop-dockercfg", "registry"]


def pull_secrets(bench: ServingBench) -> list[str]:
    return [
        text(each, "name") for each in documents(bench.read(SERVICE_ACCOUNT, "deployment-shop"), "imagePullSecrets")
    ]


def test_an_unsupported_ray_stalls_before_anything_is_made() -> None:
    bench = ServingBench(a_deployment().with_field("spec.cluster.rayVersion", "2.52.1").document())
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "ImageUnsupported"
    assert "2.52.1" in stalled[2]
    assert not bench.services()


def test_a_candidate_that_is_unknown_to_the_store_stalls_while_stable_serves() -> None:
    bench = a_bench()
    bench.tell()
    bench.approve(ProjectLedger(approved=VERSION))
    hash_ = config(bench.services()[0]).load[0]
    bench.tell(loads=[{"hash": hash_, "state": "Failed", "reason": "ModelNotFound", "message": "no such graph"}])
    assert bench.said("Ready") == ("True", "Serving", "Serves today's policy.")
    assert bench.said("Stalled") == ("True", "ModelNotFound", "ModelNotFound: no such graph")
    degraded = bench.said("Degraded")
    assert degraded is not None
    assert degraded[1] == "CandidateRejected"
    assert bench.said("Reconciling") is None


def test_a_pinned_version_that_no_run_registered_stalls() -> None:
    document = a_deployment().without_field("spec.project").with_field("spec.model", {"name": "shop", "version": "9"})
    bench = ServingBench(document.document())
    bench.up()
    told = "No run of project shop has registered version 9; none has registered any yet."
    assert bench.said("Stalled") == ("True", "ModelNotFound", told)
    assert bench.said("Ready") == ("False", "ModelNotFound", told)


def test_a_pinned_version_that_no_run_registered_has_no_children_until_one_does() -> None:
    document = a_deployment().without_field("spec.project").with_field("spec.model", {"name": "shop", "version": "1"})
    bench = ServingBench(document.document())
    owned = {text(each, "kind") for each in bench.cluster.everything()}
    assert owned == {"DrivetrainProject", "Deployment", "Event"}, "nothing serves what was not asked for"
    bench.cluster.put(a_run().document())
    bench.write_ledger(TRAINING_RUN, "shop-1", RunLedger(attempt=1, version=VERSION, finished="Approved"))
    bench.look()
    assert bench.said("Stalled") is None
    assert len(bench.services()) == 1


def test_a_pin_moved_to_an_unknown_version_leaves_what_serves_alone() -> None:
    document = a_deployment().without_field("spec.project").with_field("spec.model", {"name": "shop", "version": "1"})
    bench = ServingBench(document.document())
    bench.cluster.put(a_run().document())
    bench.write_ledger(TRAINING_RUN, "shop-1", RunLedger(attempt=1, version=VERSION, finished="Approved"))
    bench.look()
    bench.up()
    bench.tell()
    bench.tell(loads=[{"hash": config(bench.services()[0]).load[0], "state": "Loaded"}])
    serving = config(bench.services()[0])
    bench.edit(DEPLOYMENT, "shop", model={"name": "shop", "version": "9"})
    bench.look()
    told = "No run of project shop has registered version 9: name one of 1."
    assert bench.said("Stalled") == ("True", "ModelNotFound", told)
    assert bench.said("Ready") == ("True", "Serving", "Serves version 1.")
    assert config(bench.services()[0]) == serving


def test_a_pinned_version_is_served_on_when_its_run_is_deleted_and_when_its_number_comes_again() -> None:
    document = a_deployment().without_field("spec.project").with_field("spec.model", {"name": "shop", "version": "1"})
    bench = ServingBench(document.document())
    bench.cluster.put(a_run().document())
    bench.write_ledger(TRAINING_RUN, "shop-1", RunLedger(attempt=1, version=VERSION, finished="Approved"))
    bench.look()
    bench.up()
    bench.tell()
    bench.tell(loads=[{"hash": config(bench.services()[0]).load[0], "state": "Loaded"}])
    serving = config(bench.services()[0])
    bench.cluster.remove(Ref(TRAINING_RUN, "default", "shop-1"))
    bench.cluster.remove(Ref(CONFIG_MAP, "default", "trainingrun-shop-1-ledger"))
    bench.look()
    assert bench.said("Stalled") is None
    bench.cluster.put(a_run("shop-2").document())
    again = VersionReference(version="1", digest="b" * 64, run="shop-2")
    bench.write_ledger(TRAINING_RUN, "shop-2", RunLedger(attempt=1, version=again, finished="Approved"))
    bench.look()
    assert config(bench.services()[0]) == serving
    bench.edit(DEPLOYMENT, "shop", model={"name": "other", "version": "1"})
    other = a_project().named("other").document()
    bench.cluster.put(other)
    bench.look()
    told = "No run of project other has registered version 1; none has registered any yet."
    assert bench.said("Stalled") == ("True", "ModelNotFound", told)
    assert config(bench.services()[0]) == serving


def test_a_pinned_version_serves_without_canary_exploration_and_holdout() -> None:
    document = a_deployment().without_field("spec.project").with_field("spec.model", {"name": "shop", "version": "1"})
    bench = ServingBench(document.document())
    bench.cluster.put(a_run().document())
    bench.write_ledger(TRAINING_RUN, "shop-1", RunLedger(attempt=1, version=VERSION, finished="Approved"))
    bench.look()
    bench.up()
    bench.tell()
    ready = bench.said("Ready")
    assert ready is not None
    assert ready[:2] == ("False", "Loading")
    bench.tell(loads=[{"hash": config(bench.services()[0]).load[0], "state": "Loaded"}])
    told = config(bench.services()[0])
    assert (told.candidate, told.weight, told.holdout, told.exploration.share, told.pinned) == (None, 0, 0, 0, True)
    assert text(bench.read(DEPLOYMENT, "shop"), "status", "stable", "version") == "1"
    ready = bench.said("Ready")
    assert ready is not None
    assert ready[0] == "True"


def test_a_changed_baseline_serves_only_once_replicas_hold_it() -> None:
    bench = a_bench()
    bench.tell()
    before = config(bench.services()[0])
    project = a_project().with_field("spec.objective.baseline", {"action": {"price": "1.99", "discount": "0"}})
    bench.edit(DRIVETRAIN_PROJECT, "shop", **project.document()["spec"])
    bench.look()
    loading = config(bench.services()[0])
    assert (loading.stable, loading.baseline) == (before.stable, before.baseline)
    assert len(loading.load) == 1
    bench.tell(loads=[{"hash": loading.load[0], "state": "Loaded"}])
    after = config(bench.services()[0])
    assert after.stable == after.baseline == loading.load[0]
    assert after.load == ()


def test_changed_constraints_reach_replicas_in_one_change_for_todays_policy_and_the_champions_model() -> None:
    bench = a_bench()
    champion = rolling(bench)
    bench.annotate(DEPLOYMENT, "shop", promote=champion)
    bench.look()
    assert bench.record.stable is not None
    assert bench.record.stable.hash == champion
    known = config(bench.services()[0]).load
    constraints = [{"expression": "price - discount >= 1.5", "scope": "PerDecision"}]
    project = a_project().with_field("spec.objective.constraints", constraints)
    bench.edit(DRIVETRAIN_PROJECT, "shop", **project.document()["spec"])
    bench.look()
    added = set(config(bench.services()[0]).load) - set(known)
    assert len(added) == 2
    bench.tell(loads=[{"hash": each, "state": "Loaded"} for each in added])
    assert bench.record.baseline in added
    candidate = bench.record.candidate
    assert candidate is not None
    assert candidate.hash in added


def test_a_project_that_turns_invalid_stalls_the_deployment_and_leaves_what_serves_alone() -> None:
    bench = a_bench()
    bench.tell(kpi={"mean": 0.4, "decisions": 10})
    before, status = bench.services(), mapping(bench.read(DEPLOYMENT, "shop"), "status")
    bench.edit(DRIVETRAIN_PROJECT, "shop", levers=[])
    bench.look()
    after = mapping(bench.read(DEPLOYMENT, "shop"), "status")
    for kept in ("url", "replicas", "stable", "kpi"):
        assert after[kept] == status[kept]
    stalled = bench.said("Stalled")
    assert stalled is not None
    assert stalled[1] == "InvalidSpec"
    assert bench.said("Ready") == ("True", "Serving", "The stable variant serves on.")
    assert bench.services() == before


def test_a_gpu_that_is_not_used_is_told_and_the_endpoint_serves_on() -> None:
    bench = a_bench()
    load: JSON = {"hash": "a" * 16, "state": "Loaded", "reason": "RunsOnCPU", "message": "CUDA cannot be used."}
    bench.tell(loads=[load])
    assert bench.said("Accelerated") == ("False", "RunsOnCPU", "CUDA cannot be used.")
    bench.tell()
    assert bench.said("Accelerated") is None


def test_a_queue_is_refused_in_words_and_never_put_on_a_ray_service() -> None:
    bench = ServingBench(a_deployment().with_field("spec.queue", {"name": "pool"}).document())
    queued = bench.said("Queued")
    assert queued is not None
    assert queued[:2] == ("False", "QueueingUnsupported")
    assert "kueue.x-k8s.io/queue-name" not in texts(bench.services()[0], "metadata", "labels")


def test_a_kueue_that_queues_ray_services_is_given_the_queue_and_owns_suspend() -> None:
    document = a_deployment().with_field("spec.queue", {"name": "pool", "priorityClass": "high"}).document()
    bench = ServingBench(document, admission=suspended)
    (service,) = bench.services()
    labels = texts(service, "metadata", "labels")
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("pool", "high")
    assert bench.said("Queued") is None
    config_ = {**mapping(service, "spec", "rayClusterConfig"), "suspend": True}
    bench.cluster.put({**service, "spec": {**mapping(service, "spec"), "rayClusterConfig": config_}}, "kueue")
    bench.look()
    assert value(bench.services()[0], "spec", "rayClusterConfig", "suspend") is True


def suspended(document: Document) -> Document:
    """What a Kueue that queues RayServices makes of one with its label."""
    spec = mapping(document, "spec")
    assert "kueue.x-k8s.io/queue-name" in texts(document, "metadata", "labels")
    return {**document, "spec": {**spec, "rayClusterConfig": {**mapping(spec, "rayClusterConfig"), "suspend": True}}}


def test_losing_the_report_keeps_the_stable_variant_and_the_weight() -> None:
    bench = a_bench()
    hash_ = rolling(bench)
    live = bench.read(CONFIG_MAP, "deployment-shop-report")
    bench.cluster.put({key: part for key, part in live.items() if key != "data"})
    bench.look()
    assert config(bench.services()[0]).candidate == hash_


def test_a_deleted_ray_service_comes_back() -> None:
    bench = a_bench()
    bench.cluster.remove(Ref(RAY_SERVICE, "default", name_of(bench.services()[0])))
    bench.look()
    assert len(bench.services()) == 1


def name_of_revision(service: Document) -> str:
    return texts(service, "metadata", "labels")["drivetrain.dev/revision"]


def test_a_late_read_of_an_older_spec_is_not_acted_on() -> None:
    bench = a_bench()
    bench.write_ledger(DEPLOYMENT, "shop", bench.record.model_copy(update={"rendered_generation": 2, "revision": None}))
    assert bench.look() == timedelta(seconds=1)
    assert bench.record.revision is None


def test_a_ledger_that_was_left_behind_without_its_owner_is_taken_over_whatever_generation_it_tells_of() -> None:
    bench = a_bench()
    for replicas in (2, 3):
        bench.edit(DEPLOYMENT, "shop", replicas=replicas)
        bench.look()
    assert bench.record.rendered_generation == 3
    ledger = bench.read(CONFIG_MAP, "deployment-shop-ledger")
    kept = {key: part for key, part in mapping(ledger, "metadata").items() if key != "ownerReferences"}
    bench.cluster.put({**ledger, "metadata": kept})
    bench.cluster.remove(Ref(DEPLOYMENT, "default", "shop"))
    bench.cluster.collect_garbage()
    bench.cluster.put(a_deployment().document())
    bench.look()
    assert bench.record.rendered_generation == 1
    assert bench.said("Ready") is not None

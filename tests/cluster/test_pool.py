"""Two teams share four GPUs: quotas, borrowing, a preemption that changes no result, and what all of it cost."""

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from drivetrain.api.documents import Document, documents, integer, labels_of, name_of, namespace_of, text, uid_of, value
from drivetrain.api.kinds import CONFIG_MAP, DRIVETRAIN_PROJECT, LOCAL_QUEUE, POD
from drivetrain.api.ledger import ProjectLedger
from drivetrain.api.names import APPROVE_ANNOTATION, LEDGER_KEY, REVISION_LABEL, ledger_name
from tests.cluster import buckets, clusters, release, watches
from tests.cluster.forwarding import forwarded
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, until
from tests.cluster.queues import PRIORITIES, cluster_queue, kueue, local_queue
from tests.cluster.searches import slow_search
from tests.cluster.teams import Team, enabled
from tests.cluster.tracking import Mlflow

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

COHORT, FLAVOR = "shared", "shared"
NORTH, SOUTH = "north", "south"
GPUS = {NORTH: 1, SOUTH: 3}
ONE_CLUSTER = "360m"
"""CPU of each team's quota: a head, its submitter and a little more."""
HEAD = {"cpu": "300m", "memory": "3Gi"}
RUNS = (
    *((NORTH, run) for run in ("renewals-1", "steady", "twin-1")),
    *((SOUTH, run) for run in ("renewals-1", "urgent", "wide")),
)
SOON, TRAINED, ALL = 90, 240, 420
QUICK: Mapping[str, Any] = {
    "candidates": [{"name": "linear", "estimator": "LinearRegression"}],
    "tuning": {"algorithm": "Grid", "trials": 1, "parallelTrials": 1, "seed": 3},
}
SLOW_TRIALS = 9
THOROUGH: Mapping[str, Any] = {**slow_search(SLOW_TRIALS), "cluster": {"head": {**HEAD, "gpu": 2}}}
ON_A_WORKER: Mapping[str, Any] = {
    **QUICK,
    # Two of these fit beside an endpoint on two CPUs: KubeRay adds an init container to a worker that asks for 200m.
    "cluster": {"head": {**HEAD, "cpu": "150m"}},
    "scaling": {"workers": 1, "resourcesPerWorker": {"cpu": "100m", "memory": "2Gi"}},
}
URGENT: Mapping[str, Any] = {
    **ON_A_WORKER,
    "scaling": {"workers": 1, "resourcesPerWorker": {"cpu": "100m", "memory": "2Gi", "gpu": 3}},
}


@pytest.fixture
def pool(cluster: Kubectl) -> Iterator[None]:
    """A cohort of two queues: four GPUs, and CPU for two Ray clusters at a time."""

    def queue(team: str) -> Document:
        quotas = {"cpu": ONE_CLUSTER, "memory": "32Gi", "nvidia.com/gpu": str(GPUS[team])}
        spec = {
            "cohortName": COHORT,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team}},
            "preemption": {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "LowerPriority"},
        }
        return cluster_queue(team, quotas, flavor=FLAVOR, **spec)

    cluster.apply(
        kueue("ResourceFlavor", FLAVOR),
        *(queue(team) for team in GPUS),
        *(kueue("WorkloadPriorityClass", f"{COHORT}-{name}", value=number) for name, number in PRIORITIES.items()),
    )
    yield
    for kind, names in (
        ("clusterqueue", list(GPUS)),
        ("resourceflavor", [FLAVOR]),
        ("workloadpriorityclass", [f"{COHORT}-{name}" for name in PRIORITIES]),
    ):
        cluster("delete", kind, *names, "--ignore-not-found", "--wait=false")


@pytest.fixture
def teams(cluster: Kubectl, namespaces: Callable[[str], Kubectl], pool: None) -> Mapping[str, Team]:
    """Both teams, each with its namespace and its way into the pool."""
    found = {}
    for name in GPUS:
        found[name] = Team(namespaces(name))
        cluster.apply(enabled(name))
        found[name].kubectl.apply(local_queue("pool", name))
    return found


def training(spec: Mapping[str, Any], priority: str = "low") -> dict[str, Any]:
    """What a run asks for, in the team's queue."""
    queue = {"name": "pool", "priorityClass": f"{COHORT}-{priority}"}
    return {"cluster": {"head": HEAD}, "attempts": 1, "deadline": "1h", **spec, "queue": queue}


def a_project(team: Team, spec: Mapping[str, Any], *, name: str = "renewals", serves: bool = False) -> dict[str, Any]:
    """The example's project of this team with another training; versions wait for a person's approval."""
    found = team.project()
    found["metadata"]["name"] = name
    found["spec"]["data"]["store"]["uri"] = f"s3://{team.name}/{name}"
    found["spec"]["training"] = {**training(spec), "evaluation": found["spec"]["training"]["evaluation"]}
    found["spec"]["loop"]["approval"] = "Manual"
    if not serves:
        del found["spec"]["serving"]
    return found


def a_run(name: str, spec: Mapping[str, Any], priority: str = "low") -> dict[str, Any]:
    """A run that somebody asks for by hand."""
    metadata = {"name": name}
    wanted = {**training(spec, priority), "project": "renewals"}
    return {"apiVersion": "drivetrain.dev/v1alpha1", "kind": "TrainingRun", "metadata": metadata, "spec": wanted}


def planned(folder: Path, team: Team, manifest: Document) -> dict[str, Any]:
    """What `drivetrain plan` says of the first thing that asks for resources."""
    file = folder / "planned.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(manifest))))
    command = str(Path(sys.executable).with_name("drivetrain"))
    found = json.loads(release.run(command, "plan", str(file), "-n", team.name, "-o", "json", seconds=60))
    sys.stderr.write(f"{json.dumps(found['asks'], indent=1)}\n")
    asked: dict[str, Any] = found["asks"][0]
    return asked


def of_queue(asked: Mapping[str, Any]) -> dict[str, str]:
    """What a plan says of the queue, by level."""
    return {each["told"]: each["level"] for each in asked["because"] if each["told"].startswith("queue pool")}


def a_caller(image: str, host: str, key: str) -> Document:
    """Asks the endpoint for decisions all the time."""
    variables = {"HOST": host, "KEY": key}
    template = clusters.template(image, "caller", memory="256Mi", variables=variables, restart_policy="Never")
    container = template["spec"]["containers"][0]
    container["command"] = ["python", f"{clusters.PROGRAM}/decider.py"]
    container["resources"]["requests"] = {"cpu": "20m", "memory": "64Mi"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "caller"}, "spec": template["spec"]}


def is_ready(run: Document) -> bool:
    return clusters.condition(run, "Ready").get("status") == "True"


def serving_pods(team: Team) -> dict[str, int]:
    """The endpoint's Pods by UID, and how often their containers were restarted."""
    pods = [each for each in team.kubectl.items(POD) if REVISION_LABEL in labels_of(each)]
    return {
        uid_of(pod): sum(integer(each, "restartCount") for each in documents(pod, "status", "containerStatuses"))
        for pod in pods
    }


def metrics_of(system: Kubectl) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What the operator's only process shows."""
    with forwarded(system, "deployment/drivetrain", 8080) as url:
        shown = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
    families = text_string_to_metric_families(shown)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for one in families for each in one.samples}


def test_six_runs_of_two_teams_share_four_gpus(
    cluster: Kubectl, images: Images, teams: Mapping[str, Team], tmp_path: Path
) -> None:
    north, south = teams[NORTH], teams[SOUTH]
    with ExitStack() as stack:
        values: dict[str, Any] = {"replicas": 1, "rbac": {"clusterQueues": True}}
        system = stack.enter_context(release.installed(cluster, images, **values))
        with ThreadPoolExecutor() as both:
            list(both.map(Team.prepare, teams.values()))
        runs, workloads = (stack.enter_context(watches.watched(each)) for each in ("trainingruns", "workloads"))
        seen = watches.Seen(runs, workloads)
        stack.callback(tell, seen, system)
        stack.callback(lambda: [team.kubectl("delete", "dtp", "--all", "--wait=true") for team in teams.values()])

        # One quick run of each team comes first, and what the south trained serves from then on.
        first = a_project(north, QUICK)
        assert set(of_queue(planned(tmp_path, north, first)).values()) == {"fits"}
        north.kubectl.apply(first)
        south.kubectl.apply(a_project(south, QUICK, serves=True))
        until(lambda: is_ready(seen.state(SOUTH, "renewals-1")), TRAINED, "the south has a version")
        digest = until(lambda: awaits_approval(south), SOON, "it asks for approval")
        south.kubectl("annotate", "dtp", "renewals", f"{APPROVE_ANNOTATION}={digest}")
        until(lambda: is_ready(seen.state(NORTH, "renewals-1")), TRAINED, "the north has a version")

        # Whoever comes while a job still ends would borrow quota, and lose it again.
        until(lambda: not any(seen.holds(f"{team}/renewals-1-a1") for team in GPUS), SOON, "both jobs have ended")

        # The north trains on two GPUs, one of them borrowed; the south's urgent run has its data ready, and waits.
        north.kubectl.apply(a_run("steady", THOROUGH))
        south.kubectl.apply(a_run("urgent", URGENT, "high"))
        until(lambda: seen.holds(f"{SOUTH}/urgent-a1-p"), SOON, "the urgent run prepares")
        south.kubectl.patch(LOCAL_QUEUE, "pool", {"spec": {"stopPolicy": "Hold"}})
        south.kubectl("wait", "dtd/renewals", "--for=condition=Ready", f"--timeout={TRAINED}s", seconds=TRAINED + 10)
        address, key = clusters.address(south.kubectl, "renewals"), south.secret("renewals-keys")["decide"]
        south.kubectl.apply(clusters.program("decider"), a_caller(images.ray, address, key))
        south.kubectl("wait", "pod/caller", "--for=condition=Ready", f"--timeout={SOON}s", seconds=SOON + 10)
        until(lambda: "answered" in south.kubectl.logs("caller"), SOON, "the south's endpoint answers")
        serve = serving_pods(south)
        assert len(serve) == 2, "a head and a replica"
        until(lambda: seen.holds(f"{NORTH}/steady-a1-t"), TRAINED, "the north holds GPUs")
        until(lambda: seen.of_job(f"{SOUTH}/urgent-a1-t"), TRAINED, "the urgent run is ready for GPUs")
        larger = a_run("larger", {**THOROUGH, "cluster": {"head": {**HEAD, "gpu": 3}}})
        asked = planned(tmp_path, north, larger)
        lacking = (
            "queue pool: 3 nvidia.com/gpu asked, 1 more needed: 2 of 4 in use, borrowing from cohort shared included"
        )
        assert of_queue(asked)[lacking] == "waits"
        assert asked["cost"] == ["at most 3 GPU-hours: 3 GPUs times the deadline of 1h, all attempts together"]

        until(
            lambda: integer(seen.state(NORTH, "steady"), "status", "progress", "trialsDone") >= 2, TRAINED, "two trials"
        )
        with buckets.opened(north) as bucket:
            done = bucket.trial_times(seen.state(NORTH, "steady"))
        south.kubectl.patch(LOCAL_QUEUE, "pool", {"spec": {"stopPolicy": "None"}})
        evicted = until(
            lambda: seen.was_evicted(f"{NORTH}/steady-a1-t"), SOON, "the urgent run preempts the steady one"
        )
        assert evicted["reason"] == "Preempted"

        # The same spec in a project of its own, which no one disturbs; and one more run, for which there is no CPU yet.
        north.kubectl.apply(a_project(north, THOROUGH, name="twin"))
        until(lambda: seen.holds(f"{NORTH}/twin-1-a1-p"), SOON, "the twin prepares")
        south.kubectl.apply(a_run("wide", ON_A_WORKER))
        until(lambda: all(is_ready(seen.state(*each)) for each in RUNS), ALL, "all six runs are Ready")
        south.kubectl("exec", "caller", "--", "touch", "/tmp/stop")
        south.kubectl("wait", "pod/caller", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")

        found = json.loads(south.kubectl.logs("caller").splitlines()[-1])
        assert found["failures"] == []
        assert found["answers"] > 100
        assert serving_pods(south) == serve, "the south's endpoint was restarted"

        the_waiting_was_told(seen)
        steady, twin = seen.state(NORTH, "steady"), seen.state(NORTH, "twin-1")
        the_preempted_run_ended_as_the_undisturbed_one(north, steady, twin, evicted, done)
        mlflow_holds_the_same(system, steady, twin)
        until(lambda: the_charges_are_settled(seen), SOON, "every run is charged for what its Workloads held")
        the_sums_are_right(system, seen, teams)
        asked = planned(tmp_path, north, larger)
        assert set(of_queue(asked).values()) == {"fits"}
        assert asked["cost"][1].startswith("median of the one earlier run with GPUs: ")


def tell(seen: watches.Seen, system: Kubectl) -> None:
    """What happened, for whoever reads the log of a run."""
    for namespace, run in dict.fromkeys((namespace_of(each), name_of(each)) for each in seen.runs):
        state = seen.state(namespace, run)
        cost = {each: value(state, "status", each) for each in ("gpuSeconds", "waitingSeconds", "incarnation")}
        sys.stderr.write(f"== {namespace}/{run}: {cost} {clusters.condition(state, 'Ready')}\n")
        sys.stderr.writelines(f"     {why}\n" for why in seen.whys(namespace, run))
    for job, held in watches.spans(seen.workloads).items():
        sys.stderr.write(f"{job}: {[f'{start:%H:%M:%S} to {end:%H:%M:%S}' for start, end in held]}\n")
    sys.stderr.write(system("logs", "deployment/drivetrain", "--tail=60"))


def awaits_approval(team: Team) -> str:
    """The digest that a person has to approve."""
    return text(team.kubectl.get(DRIVETRAIN_PROJECT, "renewals") or {}, "status", "awaitingApproval", "digest")


def the_waiting_was_told(seen: watches.Seen) -> None:
    """Runs that had to wait said for what, in a plain sentence."""
    place = r"more needed, .*position \d in its queue"
    for namespace, run, wanted in (
        (NORTH, "steady", rf"waits for 2 nvidia\.com/gpu in queue pool: \d {place}"),
        (SOUTH, "wide", rf"waits for 0\.3 cpu in queue pool: \d+m {place}"),
        (SOUTH, "urgent", r"(?i)inactive|stopped"),
    ):
        whys = seen.whys(namespace, run)
        assert any(re.search(wanted, why) for why in whys), f"{run}: {whys}"


def the_preempted_run_ended_as_the_undisturbed_one(
    team: Team, steady: Document, twin: Document, evicted: Document, done: Mapping[str, datetime]
) -> None:
    """One more incarnation, the same attempt, the same trials and the same model."""
    assert [integer(each, "status", "incarnation") for each in (steady, twin)] == [3, 2]
    assert [integer(each, "status", "attempt") for each in (steady, twin)] == [1, 1]
    assert text(steady, "status", "dataVersion") == text(twin, "status", "dataVersion")
    assert value(steady, "status", "metrics") == value(twin, "status", "metrics")
    ledgers = [team.kubectl.get(CONFIG_MAP, ledger_name("TrainingRun", name_of(each))) for each in (steady, twin)]
    digests = [json.loads(text(each or {}, "data", LEDGER_KEY))["version"]["digest"] for each in ledgers]
    preempted = datetime.fromisoformat(text(evicted, "lastTransitionTime"))
    with buckets.opened(team) as bucket:
        log = bucket.trials(steady)
        assert log == bucket.trials(twin)
        assert len(log) == 1 + SLOW_TRIALS
        times = bucket.trial_times(steady)
        assert len(done) >= 2
        assert done.items() <= times.items(), "a trial that was done before the eviction was repeated"
        assert max(times.values()) > preempted, "nothing was left to do after the eviction"
        assert [each.ended for each in bucket.dossiers(steady)] == ["Succeeded", "Terminated", "Succeeded"]
        assert bucket.contract("renewals", digests[0]) == bucket.contract("twin", digests[1])


def mlflow_holds_the_same(system: Kubectl, steady: Document, twin: Document) -> None:
    """What both runs logged, but for the times that were measured."""
    with Mlflow.of(system) as mlflow:

        def logged(run: Document) -> dict[str, float]:
            found = mlflow.metrics(text(run, "status", "mlflowRun"))
            return {metric: last for metric, last in found.items() if not metric.startswith("latency")}

        assert logged(steady) == logged(twin)
        assert "rmse" in logged(steady)


def recomputed(seen: watches.Seen, namespace: str, run: str) -> float:
    """GPUs of each Workload of a run by the time that it held them, as Kueue's conditions tell it."""
    newest = {watches.job_of(each): each for each in seen.workloads}
    held = watches.spans(seen.workloads)
    return sum(
        watches.gpus(each) * watches.seconds(held.get(job, ()))
        for job, each in newest.items()
        if re.fullmatch(rf"{namespace}/{run}-a\d+(-[pt])?", job)
    )


def the_charges_are_settled(seen: watches.Seen) -> bool:
    """Whether each run's GPU-seconds are those of its Workloads."""
    charged = {each: value(seen.state(*each), "status", "gpuSeconds") for each in RUNS}
    return charged == {each: pytest.approx(recomputed(seen, *each), abs=0.01) for each in RUNS}


def the_sums_are_right(system: Kubectl, seen: watches.Seen, teams: Mapping[str, Team]) -> None:
    """Metrics, statuses of projects and the budget of the loop add up to what Kueue's conditions say."""
    shown = metrics_of(system)
    cost = {
        (namespace, run): recomputed(seen, namespace, run)
        for namespace, run in ((NORTH, "steady"), (NORTH, "twin-1"), (SOUTH, "urgent"))
    }
    assert all(each > 0 for each in cost.values())

    def metric(series: str, /, **labels: str) -> float:
        return shown[f"drivetrain_{series}", tuple(sorted(labels.items()))]

    for (namespace, run), spent in cost.items():
        project = "twin" if run == "twin-1" else "renewals"
        labels = {"namespace": namespace, "project": project, "name": run, "queue": "pool"}
        assert metric("run_gpu_seconds", **labels) == pytest.approx(spent, abs=0.01)
        assert metric("project_gpu_seconds", namespace=namespace, project=project) == pytest.approx(spent, abs=0.01)
        told = teams[namespace].kubectl.get(DRIVETRAIN_PROJECT, project)
        assert value(told or {}, "status", "effort", "gpuHours") == pytest.approx(spent / 3600, abs=0.001)
        kept = teams[namespace].kubectl.get(CONFIG_MAP, ledger_name("DrivetrainProject", project))
        budget = ProjectLedger.model_validate_json(text(kept or {}, "data", LEDGER_KEY))
        assert sum(each.gpu_seconds for each in budget.runs) == pytest.approx(spent, abs=0.01)
        waited = sum(
            watches.seconds(gaps)
            for job, gaps in watches.waits(seen.workloads).items()
            if re.fullmatch(rf"{namespace}/{run}-a1-[pt]", job)
        )
        assert metric("run_waiting_seconds", **labels) == pytest.approx(waited, abs=4)
    for team in teams:
        spent = sum(each for (namespace, _), each in cost.items() if namespace == team)
        assert metric("queue_gpu_seconds", namespace=team, queue="pool") == pytest.approx(spent, abs=0.01)

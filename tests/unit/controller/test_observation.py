"""What a reconcile asks the API server for, and in which order."""

from collections import Counter

import pytest

from drivetrain.api.documents import texts, uid_of
from drivetrain.api.kinds import CONFIG_MAP, POD, TRAINING_RUN
from drivetrain.api.names import CLUSTER_LABEL, RUN_UID_LABEL, report_name
from tests.support.bench import RunBench

REFUSED = {"state": "Refused", "reason": "GateFailed", "message": "no"}


def asked(bench: RunBench) -> list[str]:
    """The reads of one more look, which finds nothing to do."""
    bench.look()
    before, version = len(bench.cluster.requests), bench.cluster.resource_version
    bench.look()
    assert bench.cluster.resource_version == version
    return [f"{verb} {ref.kind} {ref.name}".strip() for verb, ref in bench.cluster.requests[before:]]


def written(bench: RunBench) -> set[str]:
    """The clusters whose reports are there."""
    report = bench.read(CONFIG_MAP, report_name(TRAINING_RUN.kind, "shop-1"))
    return {key for key, content in texts(report, "data").items() if content}


def test_a_running_run_is_read_with_all_that_it_needs_its_report_after_its_pods_after_its_jobs() -> None:
    bench = RunBench()
    bench.running()
    reads = asked(bench)
    assert not [each for each, count in Counter(reads).items() if count > 1]
    report = f"get ConfigMap {report_name(TRAINING_RUN.kind, 'shop-1')}"
    assert reads.index("list RayJob") < reads.index("list Pod") < reads.index(report)
    assert {"get ServiceAccount trainingrun-shop-1", "get Role trainingrun-shop-1"} <= set(reads)
    assert len(reads) == 11


def test_a_run_that_is_over_is_read_with_what_its_status_tells() -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=REFUSED)
    assert asked(bench) == [
        "get TrainingRun shop-1",
        "get ConfigMap trainingrun-shop-1-ledger",
        "get ConfigMap shop-1-spec",
        "list RayJob",
        "get ConfigMap trainingrun-shop-1-report",
    ]


@pytest.mark.parametrize("wiped", [False, True])
def test_a_run_that_is_over_tells_the_same_from_what_is_read_then(wiped: bool) -> None:
    bench = RunBench()
    bench.running()
    bench.tell(result=REFUSED, metrics={"logLoss": 0.5})
    bench.look()
    before = bench.read(TRAINING_RUN, "shop-1")["status"]
    if wiped:
        bench.cluster.put_status({**bench.read(TRAINING_RUN, "shop-1"), "status": {}}, "vandal")
    bench.look()
    assert bench.read(TRAINING_RUN, "shop-1")["status"] == before


def test_a_former_clusters_key_is_emptied_once_its_pods_are_gone_also_when_the_run_is_over() -> None:
    bench = RunBench()
    bench.running()
    bench.tell("former")
    bench.job("Running", "former")
    bench.look()
    bench.job("Running", "last")
    labels = {RUN_UID_LABEL: uid_of(bench.read(TRAINING_RUN, "shop-1")), CLUSTER_LABEL: "former"}
    bench.pod("zombie", metadata={"labels": dict(labels)})
    bench.look()
    bench.tell("last", incarnation=bench.record.incarnation, result=REFUSED)
    assert "list Pod" in asked(bench)
    assert written(bench) >= {"former", "last"}
    bench.drop(POD, "zombie")
    bench.look()
    assert "former" not in written(bench)
    assert "last" in written(bench)

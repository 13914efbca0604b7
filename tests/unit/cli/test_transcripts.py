"""`drivetrain logs`: the driver's log by the person's rights, wherever it still is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from drivetrain.api.documents import Document, uid_of
from drivetrain.api.dossier import Dossier
from drivetrain.api.errors import ClusterError, DrivetrainError, ForbiddenError
from drivetrain.api.kinds import DRIVETRAIN_PROJECT, POD, TRAINING_RUN, Ref
from drivetrain.api.layout import dossier as dossier_key
from drivetrain.cli.transcripts import Transcripts, speakers
from drivetrain.store import DirectoryStore
from tests.support.bench import RunBench
from tests.unit.cli.person import Person
from tests.unit.cli.test_answer import failed, no_store


class Listener(Person):
    """A person whose Pods speak, or do not."""

    said: Sequence[str] = ()
    error: ClusterError | None = None
    heard: Sequence[str] = ()

    def log(self, pod: Ref, container: str, *, lines: int, follow: bool = False) -> Iterator[str]:
        self.heard = [*self.heard, pod.name]
        if self.error is not None:
            raise self.error
        yield from (f"{container}: {line}" for line in self.said[-lines:])


def with_pods(*containers: str) -> RunBench:
    bench = RunBench()
    bench.look()
    for container in containers:
        bench.pod(f"shop-1-a1-{container}", spec={"containers": [{"name": container}]})
    return bench


def lines_of(
    person: Listener,
    name: str = "shop-1",
    *,
    lines: int = 10,
    store: DirectoryStore | None = None,
    follow: bool = False,
) -> list[str]:
    opened = (lambda *_: store) if store is not None else no_store
    return list(Transcripts(person, opened).of(name, lines=lines, follow=follow))


def test_the_submitter_speaks_for_the_driver() -> None:
    person = Listener(with_pods("ray-head", "ray-job-submitter"))
    person.said = ["tuning", "done"]
    assert lines_of(person, lines=1) == ["ray-job-submitter: done"]


def test_without_a_submitter_every_pod_is_heard_by_name() -> None:
    person = Listener(with_pods("ray-head", "ray-worker"))
    person.said = ["up"]
    assert lines_of(person) == [
        "[shop-1-a1-ray-head ray-head] ray-head: up",
        "[shop-1-a1-ray-worker ray-worker] ray-worker: up",
    ]


def test_a_container_that_has_not_started_says_so() -> None:
    person = Listener(with_pods("ray-job-submitter"))
    person.error = ClusterError("container is waiting to start", kind="Pod", namespace="", name="", status=400)
    (told,) = lines_of(person)
    assert told.startswith("# ")
    assert "container is waiting to start" in told


def kept(bench: RunBench, folder: Path) -> DirectoryStore:
    store = DirectoryStore(folder)
    dossier = Dossier(run="shop-1", attempt=1, submission="s", ended="Lost", at=bench.now, log="one\ntwo\nthree\n")
    key = dossier_key(uid_of(bench.read(TRAINING_RUN, "shop-1")), 1, "s")
    store.put(key, dossier.model_dump_json(by_alias=True).encode())
    return store


def test_a_run_whose_pods_are_gone_tells_what_was_kept(tmp_path: Path) -> None:
    bench = failed()
    told = lines_of(Listener(bench), lines=2, store=kept(bench, tmp_path))
    assert told[0].endswith("s.json: Lost")
    assert told[1:] == ["two", "three"]


def test_who_may_not_read_pods_gets_the_dossier_and_is_told_why(tmp_path: Path) -> None:
    bench = failed()
    bench.pod("shop-1-a1-x", spec={"containers": [{"name": "ray-job-submitter"}]})
    person = Listener(bench)
    person.error = ForbiddenError("may not get pods/log", kind="Pod", namespace="default", name="x", status=403)
    told = lines_of(person, store=kept(bench, tmp_path))
    assert "may not get pods/log" in told[0]
    assert told[-1] == "three"


def test_who_may_not_list_pods_gets_the_dossier_and_is_told_why(tmp_path: Path) -> None:
    bench = failed()
    told = lines_of(Listener(bench, denied=(POD,)), store=kept(bench, tmp_path))
    assert "may not list" in told[0]
    assert told[-1] == "three"


def test_a_pod_that_has_written_nothing_yet_is_named() -> None:
    assert lines_of(Listener(with_pods("ray-job-submitter"))) == [
        "# shop-1-a1-ray-job-submitter has written nothing yet"
    ]


def test_nothing_left_to_read_is_told_with_what_explains_it() -> None:
    with pytest.raises(DrivetrainError, match="dossier is out of reach"):
        lines_of(Listener(failed()))


def test_a_project_speaks_by_its_newest_run() -> None:
    bench = with_pods("ray-job-submitter")
    bench.set_status(DRIVETRAIN_PROJECT, "shop", lastRun="shop-1")
    person = Listener(bench)
    person.said = ["here"]
    assert lines_of(person, "shop") == ["ray-job-submitter: here"]


def test_only_the_newest_attempt_speaks() -> None:
    def a_pod(attempt: int) -> Document:
        labels: Document = {"drivetrain.dev/attempt": str(attempt)}
        metadata: Document = {"name": f"a{attempt}", "namespace": "default", "labels": labels}
        return {"metadata": metadata, "spec": {"containers": [{"name": "ray-job-submitter"}]}}

    assert [voice.pod for voice in speakers([a_pod(1), a_pod(2)])] == [Ref(POD, "default", "a2")]


def test_the_newest_submitter_is_followed() -> None:
    bench = with_pods()
    for part in ("p", "t"):
        bench.pod(f"shop-1-a1-{part}", spec={"containers": [{"name": "ray-job-submitter"}]})
    person = Listener(bench)
    person.said = ["here"]
    assert len(lines_of(person)) == 2
    assert lines_of(person, follow=True) == ["ray-job-submitter: here"]
    assert person.heard[-1] == "shop-1-a1-t"

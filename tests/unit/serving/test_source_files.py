"""Which files count as the project's data, and what is said of sources that cannot be watched."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from drivetrain.api.errors import StoreError
from drivetrain.api.report import same_sources
from drivetrain.api.v1alpha1.dataset import SecretReference, Source, Store
from drivetrain.serving.source_files import SourceWatch
from drivetrain.store import DirectoryStore

STORE = Store(uri="s3://bucket/project", endpoint="http://s3:9000", credentials=SecretReference(secret_name="s3"))
PREFIX = Source(name="visits", uri="s3://data/visits", format="CSV")
OBJECT = Source(name="cards", uri="s3://data/cards.csv", format="CSV")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    """The bucket `data`, a directory that behaves like one."""
    found = DirectoryStore(tmp_path / "data")

    def opened(store: Store, env: Mapping[str, str]) -> DirectoryStore:
        assert (store.uri, store.endpoint, env) == ("s3://data", "http://s3:9000", {"KEY": "k"})
        return found

    monkeypatch.setattr("drivetrain.serving.source_files.open_store", opened)
    found.put("visits/1.csv", b"1")
    found.put("cards.csv", b"1")
    return found


WATCH = SourceWatch(STORE, {"KEY": "k"})


@pytest.mark.parametrize("key", ["visits/2.csv", "visits/1.csv", "cards.csv"])
def test_a_new_or_changed_object_changes_the_files_and_not_the_sources(bucket: DirectoryStore, key: str) -> None:
    before = WATCH.look([PREFIX, OBJECT]).fingerprint
    assert WATCH.look([PREFIX, OBJECT]).fingerprint == before
    bucket.put(key, b"22")
    after = WATCH.look([PREFIX, OBJECT]).fingerprint
    assert after != before
    assert same_sources(before, after)


@pytest.mark.parametrize("key", ["visits/_SUCCESS", "visits-of-others/1.csv", "visits/.part"])
def test_what_no_run_would_read_changes_nothing(bucket: DirectoryStore, key: str) -> None:
    before = WATCH.look([PREFIX])
    bucket.put(key, b"1")
    assert WATCH.look([PREFIX]) == before


def test_another_set_of_sources_is_not_taken_for_new_files(bucket: DirectoryStore) -> None:
    assert bucket.head("cards.csv") is not None
    one, both = WATCH.look([PREFIX]).fingerprint, WATCH.look([PREFIX, OBJECT]).fingerprint
    assert not same_sources(one, both)
    assert not same_sources(None, both)


def test_sources_that_cannot_be_listed_from_here_are_left_out_and_named(bucket: DirectoryStore, tmp_path: Path) -> None:
    assert bucket.head("cards.csv") is not None
    sources = [
        PREFIX,
        Source(name="own", uri="s3://other/x", format="CSV", credentials=SecretReference(secret_name="other")),
        Source(name="web", uri="https://example.org/x.csv", format="CSV"),
        Source(name="gone", uri=(tmp_path / "gone.csv").as_uri(), format="CSV"),
        Source(name="log", origin="Collected", format="DecisionLog"),
    ]
    seen = WATCH.look(sources)
    assert seen.fingerprint == WATCH.look([PREFIX]).fingerprint
    told = seen.in_words()["newData"]
    assert "own has credentials of its own" in told
    assert "web is on the web" in told
    assert "gone is not on this node" in told
    assert "log" not in told
    assert WATCH.look(sources[1:]).fingerprint is None


@pytest.mark.parametrize(("reason", "raises"), [("StoreUnavailable", True), ("CredentialsRejected", False)])
def test_a_store_that_does_not_answer_is_no_change_and_one_that_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, reason: str, raises: bool
) -> None:
    def refuses(store: Store, env: Mapping[str, str]) -> DirectoryStore:
        raise StoreError(reason, "No.")

    monkeypatch.setattr("drivetrain.serving.source_files.open_store", refuses)
    if raises:
        with pytest.raises(StoreError):
            WATCH.look([PREFIX])
    else:
        assert reason in WATCH.look([PREFIX]).in_words()["newData"]

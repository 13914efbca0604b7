"""What every object store does, shown on a directory and on a real S3 server."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from drivetrain.api.errors import StoreError
from drivetrain.store import DirectoryStore, ObjectMissingError, ObjectStore, S3Store, open_store
from tests.support.s3 import ACCESS_KEY, S3Server


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.binaries)])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ObjectStore]:
    """Opens the same empty store, as another process would."""
    if request.param == "directory":
        return lambda: DirectoryStore(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3_server")
    uri: str = request.getfixturevalue("s3_uri")
    return lambda: server.open(uri)


@pytest.fixture
def store(open_again: Callable[[], ObjectStore]) -> ObjectStore:
    return open_again()


def test_what_was_put_is_read_back_by_another_process(
    store: ObjectStore, open_again: Callable[[], ObjectStore]
) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert open_again().get("a/b") == b"two"


def test_an_object_that_is_not_there_is_named_by_its_address(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissingError) as caught:
        store.get("a/b")
    assert caught.value.uri == store.uri("a/b")
    assert store.head("a/b") is None


def test_a_missing_object_leaves_no_downloaded_file(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError):
        store.download("a/b", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_files_go_up_and_come_down_unchanged(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000  # 12.8 MB: several parts on S3
    (tmp_path / "up").write_bytes(content)
    store.upload("big", tmp_path / "up")
    store.download("big", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    info = store.head("big")
    assert info is not None
    assert info.size == len(content)


def test_only_the_first_writer_of_an_absent_object_is_told_that_it_wrote(store: ObjectStore) -> None:
    assert store.put_if_absent("owner", b"first")
    assert not store.put_if_absent("owner", b"second")
    assert store.get("owner") == b"first"


def test_a_write_under_an_old_etag_changes_nothing(store: ObjectStore) -> None:
    store.put("owner", b"first")
    seen = store.head("owner")
    assert seen is not None
    assert store.put_if_match("owner", b"second", seen.etag)
    assert not store.put_if_match("owner", b"third", seen.etag)
    assert store.get("owner") == b"second"


def test_a_write_under_an_etag_of_nothing_writes_nothing(store: ObjectStore) -> None:
    assert not store.put_if_match("owner", b"first", "0123456789abcdef0123456789abcdef")
    assert store.head("owner") is None


def test_of_eight_writers_at_once_exactly_one_creates_the_object(open_again: Callable[[], ObjectStore]) -> None:
    stores = [open_again() for _ in range(8)]
    won: list[int] = []
    start = threading.Barrier(len(stores))

    def write(number: int) -> None:
        start.wait()
        if stores[number].put_if_absent("owner", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert stores[0].get("owner") == str(won[0]).encode()


def test_of_eight_writers_at_once_exactly_one_replaces_what_all_have_seen(
    open_again: Callable[[], ObjectStore],
) -> None:
    stores = [open_again() for _ in range(8)]
    stores[0].put("owner", b"before")
    seen = stores[0].head("owner")
    assert seen is not None
    won: list[int] = []
    start = threading.Barrier(len(stores))

    def write(number: int) -> None:
        start.wait()
        if stores[number].put_if_match("owner", str(number).encode(), seen.etag):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_listing_is_in_order_of_keys_and_knows_nothing_of_other_prefixes(store: ObjectStore) -> None:
    for key in ("log/b", "log/a/2", "log/a/1", "login", "other"):
        store.put(key, b"x")
    assert [info.key for info in store.list("log/")] == ["log/a/1", "log/a/2", "log/b"]
    assert [info.key for info in store.list("log")] == ["log/a/1", "log/a/2", "log/b", "login"]
    assert list(store.list("nothing/")) == []


def test_a_listing_goes_on_after_a_key(store: ObjectStore) -> None:
    for key in ("log/1", "log/2", "log/3"):
        store.put(key, b"x")
    assert [info.key for info in store.list("log/", start_after="log/1")] == ["log/2", "log/3"]


def test_a_listing_tells_size_and_etag(store: ObjectStore) -> None:
    store.put("log/1", b"four")
    (info,) = store.list("log/")
    assert info == store.head("log/1")
    assert info.size == 4


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert store.head("a/b") is None


@pytest.mark.binaries
def test_wrong_keys_are_refused_with_what_to_check(s3_server: S3Server, s3_uri: str) -> None:
    store = S3Store(s3_server.place(s3_uri), ACCESS_KEY, "wrong")
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as caught:
        store.get("a")
    assert caught.value.reason == "CredentialsRejected"


@pytest.mark.binaries
def test_an_unknown_access_key_is_refused(s3_server: S3Server, s3_uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        list(S3Store(s3_server.place(s3_uri), "nobody", "wrong").list(""))
    assert caught.value.reason == "CredentialsRejected"


@pytest.mark.binaries
def test_a_bucket_that_is_not_there_is_named(s3_server: S3Server) -> None:
    with pytest.raises(StoreError, match="no bucket elsewhere") as caught:
        s3_server.open("s3://elsewhere/project").put("a", b"x")
    assert caught.value.reason == "BucketMissing"


def test_a_server_that_does_not_answer_is_unavailable_and_not_a_mistake() -> None:
    store = S3Server("http://127.0.0.1:9").open("s3://bucket/project")
    with pytest.raises(StoreError) as caught:
        store.get("a")
    assert caught.value.reason == "StoreUnavailable"


@pytest.mark.binaries
def test_the_environment_of_a_pod_opens_its_store(s3_server: S3Server, s3_uri: str) -> None:
    store = open_store(s3_server.place(s3_uri), s3_server.environment())
    store.put("a", b"x")
    assert store.uri("a") == f"{s3_uri}/a"

"""Opening a store, and keys that are none."""

from pathlib import Path

import pytest

from drivetrain.api.errors import StoreError
from drivetrain.api.v1alpha1.dataset import SecretReference, Store
from drivetrain.store import DirectoryStore, open_store

PLACE = Store(uri="s3://bucket/project", credentials=SecretReference(secret_name="s3-keys"))


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_missing_credential_names_itself_and_the_secret(missing: str) -> None:
    env = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    del env[missing]
    with pytest.raises(StoreError, match=f"{missing} is not set.*Secret s3-keys") as caught:
        open_store(PLACE, env)
    assert caught.value.reason == "CredentialsMissing"


def test_an_opened_store_knows_its_addresses_without_asking_anyone() -> None:
    store = open_store(PLACE, {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"})
    assert store.uri("models/x") == "s3://bucket/project/models/x"
    assert store.uri() == "s3://bucket/project"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../other", "a/../../other"])
def test_no_key_leads_out_of_a_directory(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match="is no key"):
        DirectoryStore(tmp_path / "store").put(key, b"x")


def test_scratch_files_of_a_directory_are_never_listed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"x")
    assert [info.key for info in store.list("")] == ["a"]

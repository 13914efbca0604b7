"""The local half of server-side apply: is a write needed?"""

import pytest

from drivetrain.api.documents import JSON, Document
from drivetrain.controller.core.difference import contains, needs_write
from tests.support.fake_cluster import FakeCluster

ME = "drivetrain-operator"


@pytest.mark.parametrize(
    ("live", "intent", "contained"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, True, id="a map may have more"),
        pytest.param({"a": 1}, {"a": 2}, False, id="another value"),
        pytest.param({"a": 1}, {"a": 1, "b": 2}, False, id="a missing field"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, False, id="a longer list is another list"),
        pytest.param({"a": [1, 2]}, {"a": [2, 1]}, False, id="order counts"),
        pytest.param({"a": [{"x": 1, "default": 0}]}, {"a": [{"x": 1}]}, True, id="defaults inside list elements"),
        pytest.param({}, {"a": {}, "b": [], "c": None}, True, id="empty parts equal absence"),
        pytest.param({"a": {"b": 1}}, {"a": "b"}, False, id="another type"),
        pytest.param({"a": "b"}, {"a": {"b": 1}}, False, id="a scalar where a map is wanted"),
        pytest.param({"a": True}, {"a": 1}, False, id="true is not one"),
        pytest.param({"a": "1"}, {"a": 1}, False, id="text is not a number"),
        pytest.param({"a": [1]}, {"a": []}, False, id="a list that should be empty"),
    ],
)
def test_contains(live: JSON, intent: JSON, contained: bool) -> None:
    assert contains(live, intent) is contained


def document(**parts: JSON) -> Document:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, **parts}


async def test_what_was_just_applied_needs_no_write() -> None:
    cluster = FakeCluster()
    intent = document(data={"a": "1"})
    assert not needs_write(await cluster.apply(intent), intent, manager=ME)


async def test_a_field_that_is_no_longer_stated_needs_a_write_if_it_is_ours() -> None:
    cluster = FakeCluster()
    live = await cluster.apply(document(data={"a": "1", "b": "2"}))
    assert needs_write(live, document(data={"a": "1"}), manager=ME)
    live = await cluster.apply(document(data={"a": "1"}))
    live = await cluster.apply(document(data={"other": "2"}), field_manager="reporter")
    assert not needs_write(live, document(data={"a": "1"}), manager=ME)


async def test_a_field_that_somebody_changed_needs_a_write() -> None:
    cluster = FakeCluster()
    await cluster.apply(document(data={"a": "1"}))
    live = cluster.put(document(data={"a": "2"}))
    assert needs_write(live, document(data={"a": "1"}), manager=ME)


def managed(fields: JSON) -> Document:
    entry: Document = {"manager": ME, "operation": "Apply", "fieldsV1": fields}
    return {
        "metadata": {"name": "a", "namespace": "n", "managedFields": [entry]},
        "spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "http"}], "set": ["a", "b"]},
    }


def test_list_elements_are_found_by_their_keys_with_server_defaults_left_out() -> None:
    live = managed({"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:name": {}}}}})
    metadata: JSON = {"name": "a", "namespace": "n"}
    same: Document = {"metadata": metadata, "spec": {"ports": [{"port": 80, "name": "http"}]}}
    nameless: Document = {"metadata": metadata, "spec": {"ports": [{"port": 80}]}}
    assert not needs_write(live, same, manager=ME)
    assert needs_write(live, nameless, manager=ME)


def test_values_of_sets_are_looked_up() -> None:
    live = managed({"f:spec": {"f:set": {'v:"a"': {}, 'v:"b"': {}}}})
    assert not needs_write(live, {"spec": {"set": ["a", "b"]}}, manager=ME)
    assert needs_write(live, {"spec": {}}, manager=ME)


async def test_status_and_object_are_owned_apart() -> None:
    cluster = FakeCluster()
    run: Document = {
        "apiVersion": "drivetrain.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "a", "namespace": "n"},
    }
    cluster.put({**run, "spec": {"project": "p"}})
    live = await cluster.apply_status({**run, "status": {"stage": "train", "why": "x"}})
    assert not needs_write(live, {**run, "status": {"stage": "train", "why": "x"}}, manager=ME, subresource="status")
    assert needs_write(live, {**run, "status": {"stage": "train"}}, manager=ME, subresource="status")
    assert not needs_write(live, run, manager=ME)

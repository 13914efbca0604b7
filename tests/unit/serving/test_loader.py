"""Loading policies and models, and refusing what is broken."""

import hashlib

import pytest

from drivetrain.api import layout
from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import ModelError
from drivetrain.api.model import ModelContract
from drivetrain.serving.loader import load_variant, read_policy
from tests.unit.serving.worlds import World, policy, publish


def reason_of(world: World, digest: str) -> str:
    given = policy(digest)
    with pytest.raises(ModelError) as caught:
        load_variant(world.mount(given), given, world.store, world.work / "models")
    return caught.value.reason


def test_a_published_model_is_tried_and_loaded(world: World) -> None:
    given = policy(publish(world.store))
    variant = load_variant(world.mount(given), given, world.store, world.work / "models")
    assert variant.graph is not None
    assert variant.graph.context == ("store", "price_rival")


def test_an_unknown_version_is_not_found(world: World) -> None:
    assert reason_of(world, "0" * 64) == "ModelNotFound"


@pytest.mark.parametrize("file", ["model.onnx", "contract.json"])
def test_an_altered_file_is_invalid(world: World, file: str) -> None:
    digest = publish(world.store)
    key = f"{layout.model(digest)}/{file}"
    world.store.put(key, world.store.get(key) + b" ")
    assert reason_of(world, digest) == "ModelInvalid"


def test_a_graph_that_does_not_load_is_invalid_in_a_child_process(world: World) -> None:
    good = publish(world.store)
    contract = ModelContract.model_validate_json(world.store.get(f"{layout.model(good)}/contract.json"))
    broken = contract.model_copy(update={"graph": hashlib.sha256(b"no graph").hexdigest()})
    folder = layout.model(broken.digest)
    world.store.put(f"{folder}/model.onnx", b"no graph")
    world.store.put(f"{folder}/reference.json", world.store.get(f"{layout.model(good)}/reference.json"))
    world.store.put(f"{folder}/contract.json", canonical_json(broken).encode())
    assert reason_of(world, broken.digest) == "ModelInvalid"


def test_a_policy_that_is_not_mounted_yet_is_awaited(world: World) -> None:
    assert read_policy(world.policies, "0" * 16) is None


def test_a_policy_under_another_name_is_refused(world: World) -> None:
    hash_ = world.mount(policy())
    (world.policies / f"{hash_}.json").rename(world.policies / f"{'0' * 16}.json")
    with pytest.raises(ModelError, match="holds the policy"):
        read_policy(world.policies, "0" * 16)

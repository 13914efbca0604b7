"""The loop without faults, all the way round: run, RayJob, approval, Deployment, rollout, stable."""

from drivetrain.api.documents import documents, text
from drivetrain.api.kinds import TRAINING_RUN
from tests.support.operator_world import World, a_quick_project
from tests.support.ray_programs import version_of
from tests.support.scenarios import PROJECT


def test_a_project_goes_round_the_loop_from_its_declaration_to_a_promoted_version() -> None:
    world = World(1)
    world.declare(a_quick_project())
    world.settle()
    assert world.run_ledger("shop-1").finished == "Approved"
    assert world.stable_version() == version_of("shop-1")
    ready = {text(each, "type"): text(each, "status") for each in documents(world.project(), "status", "conditions")}
    assert ready["Ready"] == "True"
    assert text(world.project(), "status", "champion", "version") == version_of("shop-1")


def test_deleting_a_project_leaves_no_object_behind() -> None:
    world = World(2)
    world.declare(a_quick_project())
    while world.stable_version() != version_of("shop-1"):
        world.step()
    world.annotate(PROJECT, retrain="now")
    while not world.ray_jobs() or len(world.cluster.find(TRAINING_RUN)) < 2:
        world.step()
    world.cluster.remove(PROJECT)
    world.settle()
    world.cluster.collect_garbage()
    assert {text(each, "kind") for each in world.cluster.everything()} == {"Event"}

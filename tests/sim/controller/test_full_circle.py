"""The loop without faults, all the way round: run, RayJob, approval, Deployment, rollout, stable."""

from drivetrain.api.documents import documents, text
from tests.support.operator_world import World, a_quick_project
from tests.support.ray_world import version_of


def test_a_project_goes_round_the_loop_from_its_declaration_to_a_promoted_version() -> None:
    world = World(1)
    world.declare(a_quick_project())
    world.settle()
    assert world.run_ledger("shop-1").finished == "Approved"
    assert world.stable_version() == version_of("shop-1")
    ready = {text(each, "type"): text(each, "status") for each in documents(world.project(), "status", "conditions")}
    assert ready["Ready"] == "True"
    assert text(world.project(), "status", "champion", "version") == version_of("shop-1")

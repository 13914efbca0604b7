"""From rows to a published model, with linear models, which fit in milliseconds."""

from pathlib import Path

from drivetrain.api.model import GRAPH_FILE
from drivetrain.pipelines.modelling import BuiltModel, build
from drivetrain.pipelines.work import LocalTrials
from tests.support.training_rows import DirectStages, MemoryLog, shop_rows, shop_spec


def built(tmp_path: Path, kind: str = "Binary", **spec: object) -> BuiltModel:
    folder = tmp_path / "model"
    folder.mkdir()
    stages = DirectStages(tmp_path / "stages")
    return build(
        shop_rows(kind=kind), shop_spec(kind, **spec), LocalTrials(), MemoryLog(), stages, champion=None, folder=folder
    )


def test_a_run_publishes_a_graph_whose_contract_names_it(tmp_path: Path) -> None:
    model = built(tmp_path)
    assert model.approved
    assert (model.folder / GRAPH_FILE).exists()

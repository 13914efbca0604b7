"""The local proof of concept: the whole line on a sample, with nothing but a folder."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from drivetrain.api.errors import SourceError
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.pipelines.poc import proof_of_concept
from tests.support.shop import a_dataset, a_run, visits, write_source

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def a_shop(uri: str) -> DrivetrainProject:
    run = a_run(a_dataset(uri))
    training = run.spec.model_dump(mode="json", by_alias=True, include={"candidates", "tuning", "evaluation"})
    return DrivetrainProject.parse(
        {
            "metadata": {"name": "shop"},
            "kind": "DrivetrainProject",
            "apiVersion": "drivetrain.dev/v1alpha1",
            "spec": {
                "objective": run.objective.model_dump(mode="json", by_alias=True, exclude_none=True),
                "levers": [lever.model_dump(mode="json", by_alias=True, exclude_none=True) for lever in run.levers],
                "decisions": {"environment": {"latencyMs": 1000}},
                "data": run.data.model_dump(mode="json", by_alias=True, exclude_none=True),
                "training": training,
            },
        }
    )


def test_a_sample_goes_through_the_whole_line_in_a_folder(tmp_path: Path) -> None:
    told: list[str] = []
    uri = write_source(visits(5000), tmp_path / "visits.csv")
    shop = a_shop(uri)
    data = shop.spec.data.model_copy(
        update={"sources": (shop.spec.data.sources[0].model_copy(update={"format": "CSV"}),)}
    )
    shop = shop.model_copy(update={"spec": shop.spec.model_copy(update={"data": data})})
    report = proof_of_concept(shop, tmp_path / "poc", 800, told.append, now=NOW, env={})
    assert report.rows == 800
    assert report.approved
    assert report.lever_effect == "Experimental"
    assert {"logLoss", "dummy.logLoss"} <= set(report.metrics)
    assert (report.model / "model.onnx").exists()
    assert report.seconds < 60
    assert any(line.startswith("Training done in") for line in told)


def test_a_mistake_is_raised_as_in_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        proof_of_concept(
            a_shop((tmp_path / "absent").as_uri()), tmp_path / "poc", 800, lambda line: None, now=NOW, env={}
        )
    assert caught.value.reason == "SourceNotFound"

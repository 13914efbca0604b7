"""What a Deployment says while the endpoint's store does not answer."""

from drivetrain.api.documents import JSON
from tests.support.bench import ServingBench
from tests.support.builders import a_deployment

TROUBLE: JSON = {"reason": "StoreUnavailable", "message": "The store at http://s3:7070 did not answer."}


def test_a_store_that_is_away_degrades_the_endpoint_which_goes_on_serving() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    bench.tell(trouble=TROUBLE)
    degraded = bench.said("Degraded")
    assert degraded is not None
    assert degraded[:2] == ("True", "StoreUnavailable")
    assert degraded[2].startswith("The store at http://s3:7070 did not answer. Decisions are answered meanwhile")
    assert (bench.said("Ready") or ("",))[0] == "True"
    assert bench.said("Stalled") is None
    assert "StoreUnavailable" in bench.events()
    bench.tell()
    assert bench.said("Degraded") is None


def test_a_troubled_report_whose_reason_is_no_word_still_makes_a_condition() -> None:
    bench = ServingBench(a_deployment().document())
    bench.up()
    bench.tell(trouble={"reason": "no word", "message": "m"})
    assert (bench.said("Degraded") or ("", ""))[1] == "MonitorTroubled"

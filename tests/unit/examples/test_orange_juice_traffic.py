"""Visitors of the demo outwait a restart of what serves them, and take no for an answer."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import orjson
import pytest
import urllib3

from examples.orange_juice import traffic as module
from examples.orange_juice.market import Grid, Market, read_contexts
from examples.orange_juice.traffic import PATIENCE_SECONDS, EndpointError, Traffic

ACTIONS = len(Grid().price)
SERVED = SimpleNamespace(status=200, data=orjson.dumps({"rows": [{"expectedValue": [0.5] * ACTIONS}]}))


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Endpoint:
    """Answers in turn what it is told to, the last one for ever; an exception is a broken connection."""

    answers: list[SimpleNamespace | Exception] = field(default_factory=list)

    def request(self, *_: object, **__: object) -> SimpleNamespace:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    made = Endpoint()
    monkeypatch.setattr(urllib3, "PoolManager", lambda **_: made)
    return made


def a_visitor() -> Traffic:
    keys = {"decide": "d", "outcomes": "o"}
    return Traffic("http://shop", keys=keys, contexts=read_contexts(), market=Market(), seed=1, rate=1.0)


def test_a_visitor_asks_again_while_the_connection_breaks_the_route_is_unknown_or_nobody_serves(
    clock: Clock, endpoint: Endpoint
) -> None:
    refused = urllib3.exceptions.ProtocolError("refused")
    endpoint.answers = [refused, SimpleNamespace(status=404, data=b""), SimpleNamespace(status=503, data=b""), SERVED]
    visitor = a_visitor()
    assert len(visitor.surface()) == ACTIONS
    assert (visitor.record.retried_requests, visitor.record.failed_requests) == (1, 2)
    assert 0 < clock.now < PATIENCE_SECONDS


@pytest.mark.usefixtures("clock")
def test_a_refused_request_is_not_sent_again(endpoint: Endpoint) -> None:
    endpoint.answers = [SimpleNamespace(status=422, data=b"row 0: price"), SERVED]
    with pytest.raises(EndpointError, match="answered 422: b'row 0: price'"):
        a_visitor().surface()


def test_a_visitor_gives_up_in_the_end_and_says_after_how_long(clock: Clock, endpoint: Endpoint) -> None:
    endpoint.answers = [urllib3.exceptions.ProtocolError("refused")]
    with pytest.raises(EndpointError, match="did not answer for 30"):
        a_visitor().surface()
    assert PATIENCE_SECONDS < clock.now < PATIENCE_SECONDS + 10

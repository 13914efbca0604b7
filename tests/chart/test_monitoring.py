"""Alerts and dashboard speak of metrics that exist."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast, get_args

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from drivetrain.api.documents import Document, documents, mapping, texts
from drivetrain.controller.handlers.metrics import Metrics as OperatorMetrics
from drivetrain.levers.assignment import Arm
from drivetrain.serving.comparison import Halt
from drivetrain.serving.decisions import Decisions
from drivetrain.serving.metrics import Metrics as EndpointMetrics
from tests.support.helm import CHART, of_kind, render

pytestmark = pytest.mark.binaries

ON = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}


def known() -> set[str]:
    """Names of all series, `_bucket`, `_sum` and `_count` of histograms included."""
    texts = (OperatorMetrics(lambda: 0.0).text(), EndpointMetrics("r").text(ready=True))
    names = set()
    for family in (family for text in texts for family in text_string_to_metric_families(text)):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def endpoint_labels() -> dict[str, set[str]]:
    """Names of the series of an endpoint, and the labels that they carry."""
    metrics = EndpointMetrics("r")
    metrics.answered("/v1/decide", 200, 0.01)
    decided = SimpleNamespace(arms=(Arm.STABLE,), policies=("p",), fallback=("ModelFailed",), explored=np.zeros(1))
    metrics.decided(cast(Decisions, decided))
    metrics.store_failed("StoreUnavailable")
    families = text_string_to_metric_families(metrics.text(ready=True))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def expressions() -> Iterator[str]:
    """Every PromQL expression of the chart."""
    rendered = render({"metrics": ON})
    (rule,) = of_kind(rendered, "PrometheusRule")
    for group in documents(rule, "spec", "groups"):
        yield from (str(each["expr"]) for each in documents(group, "rules"))
    (dashboard,) = of_kind(rendered, "ConfigMap", "drivetrain-dashboard")
    panels: list[Document] = json.loads(texts(dashboard, "data")["drivetrain.json"])["panels"]
    yield from (str(target["expr"]) for panel in panels for target in documents(panel, "targets"))


def test_every_metric_in_an_alert_or_a_panel_exists() -> None:
    named = {name for each in expressions() for name in re.findall(r"\bdrivetrain_[a-z_]+", each)}
    assert named - known() == set()
    assert {"drivetrain_leader", "drivetrain_resource_condition", "drivetrain_requests_total"} <= named


def test_what_a_replica_tells_by_several_pods_counts_once_before_it_is_summed() -> None:
    """A scrape meets any replica, so each Pod has a sparse copy of the series of each of them."""
    own = endpoint_labels()
    seen = set()
    for each in expressions():
        merged = re.findall(r"max by \(([a-z, ]+)\) \((?:rate|max_over_time)\((drivetrain_[a-z_]+)", each)
        named = [name for name in re.findall(r"\bdrivetrain_[a-z_]+", each) if name in own]
        assert [name for _, name in merged] == named, each
        for labels, name in merged:
            assert set(labels.split(", ")) == {"namespace", "service", *own[name]}, each
        seen |= set(named)
    assert len(seen) == 9


def test_a_run_that_ended_needs_nobody_for_ever() -> None:
    ended = r'unless on \([a-z, ]*namespace, name\) \S*condition\{kind="TrainingRun",type=~"Complete\|Failed"'
    of_stalled = [each for each in expressions() if "Stalled" in each]
    assert len(of_stalled) == 3, "two alerts and a panel"
    for each in of_stalled:
        assert re.search(ended, each), each


def test_every_reason_for_which_a_rollout_halts_is_alerted_and_shown() -> None:
    reasons = [set(found.split("|")) for each in expressions() for found in re.findall(r'reason=~"([^"]+)"', each)]
    assert reasons == [{reason for reason in get_args(Halt) if reason}] * 2


def test_brackets_and_quotes_of_every_expression_are_closed() -> None:
    """No PromQL parser is at hand; this is what typing errors look like."""
    for each in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert each.count(opening) == each.count(closing), each
        assert each.count('"') % 2 == 0, each


def test_each_alert_says_what_it_means_and_where_to_look() -> None:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_names_in_the_operators_metrics_are_kept() -> None:
    """Prometheus would rename `namespace` to `exported_namespace`, and every alert would speak of the operator's."""
    monitor, endpoints = of_kind(render({"metrics": ON}), "ServiceMonitor")
    assert [each["honorLabels"] for each in documents(monitor, "spec", "endpoints")] == [True]
    assert mapping(endpoints, "spec", "selector", "matchLabels")["app.kubernetes.io/managed-by"] == "drivetrain"
    (named, _) = of_kind(render({"metrics": ON, "watchNamespaces": ["team-a"]}), "ServiceMonitor")[::-1]
    assert mapping(named, "spec", "namespaceSelector") == {"matchNames": ["team-a"]}

"""Everything that the chart renders, and every Pod of a Ray cluster, as a real API server takes it."""

from collections.abc import Mapping

import pytest

from drivetrain.api.documents import JSON, Document, documents, mapping, name_of, text
from tests.chart.conftest import ENABLED, OTHER
from tests.chart.test_rendered import EVERYTHING
from tests.support.helm import NAMESPACE, of_kind, render
from tests.support.rest import Answer, Rest, serve
from tests.unit.controller.rendered import rendered
from tests.unit.controller.test_manifests import RAY_KINDS, templates

pytestmark = pytest.mark.binaries

MODES: Mapping[str, Mapping[str, JSON]] = {
    "cluster-wide": {},
    "named namespaces": {"watchNamespaces": [ENABLED, OTHER]},
    "everything on": EVERYTHING,
    "everything on, named namespaces": {**EVERYTHING, "watchNamespaces": [ENABLED]},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_server_takes_what_is_rendered_without_a_warning(rest: Rest, mode: str) -> None:
    objects = render(MODES[mode], tests=True)
    for definition in of_kind(objects, "CustomResourceDefinition"):
        serve(rest, definition)
    account: Document = {"name": "drivetrain-test", "namespace": NAMESPACE}  # Pods want theirs to exist, dry or not
    assert rest.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}).status in (200, 201)
    for document in objects:
        answer = rest.apply(document, dry=True)
        told = f"{text(document, 'kind')} {name_of(document)}: {answer.message}"
        assert answer.status in (200, 201), told
        assert not answer.warnings, told


def ray_pods() -> list[object]:
    found = rendered()
    return [
        pytest.param(template, id=f"{role} of {name}")
        for name in RAY_KINDS
        for role, template in templates(found[name])
    ]


def tried(rest: Rest, template: Document) -> Answer:
    """What the server says to the Pod that a template makes, where everything is there that it names."""
    spec = mapping(template, "spec")
    account: Document = {"name": text(spec, "serviceAccountName"), "namespace": ENABLED}
    named: list[Document] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}]
    if runtime := text(spec, "runtimeClassName"):
        metadata: Document = {"name": runtime}
        kind: Document = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata}
        named.append({**kind, "handler": runtime})
    for each in named:
        assert rest.apply(each).status in (200, 201)
    metadata = {**mapping(template, "metadata"), "name": "tried", "namespace": ENABLED}
    return rest.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry=True)


@pytest.mark.parametrize("template", ray_pods())
def test_a_pod_of_a_ray_cluster_is_admitted_where_restricted_is_enforced(rest: Rest, template: Document) -> None:
    answer = tried(rest, template)
    assert (answer.status, answer.warnings) == (201, ()), answer.message


def test_a_pod_that_may_do_more_is_refused_there(rest: Rest) -> None:
    """Else the test above could not fail."""
    (_, head), *_ = templates(rendered()["ray_job"])
    spec = mapping(head, "spec")
    loose = [{**each, "securityContext": {}} for each in documents(spec, "containers")]
    answer = tried(rest, {**head, "spec": {**spec, "containers": loose}})
    assert answer.status == 403
    assert 'violates PodSecurity "restricted' in answer.message

"""The values of the Helm chart: `values.yaml`, `values.schema.json` and the reference are generated from this model."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from drivetrain.api.meta import ApiModel

_REPOSITORY = r"^[a-z0-9][a-z0-9._:/-]*$"
_TAG = r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@sha256:[0-9a-f]{64})?)?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$"
_URL = r"^(https?://[^ ]+)?$"

Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Quantity = Annotated[str, Field(pattern=_QUANTITY)]
Labels = Mapping[str, str]
Objects = tuple[Mapping[str, object], ...]


class ChartModel(ApiModel):
    """A part of the values; a misspelt key is refused."""


class Image(ChartModel):
    """The operator's image."""

    repository: str = Field(default="drivetrain/operator", pattern=_REPOSITORY)
    """Where it lies, without tag."""
    tag: str = Field(default="", pattern=_TAG)
    """Tag, or tag@digest. Empty: the chart's appVersion."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet fetches it."""


class RayImage(ChartModel):
    """The image of Ray Pods whose spec names none (`cluster.image`), and how all their images are fetched."""

    repository: str = Field(default="drivetrain/ray", pattern=_REPOSITORY)
    """Where it lies, without tag."""
    tag: str = Field(default="", pattern=_TAG)
    """Tag, or tag@digest. Empty: the chart's appVersion."""
    pull_secrets: tuple[SecretName, ...] = Field(default=(), json_schema_extra={"uniqueItems": True})
    """Names of Secrets for the registries of Ray images, `cluster.image` included. Each must be there in every
    namespace with a run or an endpoint."""


class ServerImage(ChartModel):
    """An image of the evaluation."""

    repository: str = Field(pattern=_REPOSITORY)
    """Where it lies, without tag."""
    tag: str = Field(pattern=_TAG)
    """Its version."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet fetches it."""


class MLflow(ChartModel):
    """Where runs are recorded whose project names no tracking server."""

    url: str = Field(default="", pattern=_URL)
    """Empty: that of the evaluation if it is enabled, else none, and such runs keep a local record only."""


class ServiceAccount(ChartModel):
    """Who the operator is."""

    name: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)
    """Empty: the release's full name."""
    annotations: Labels = Field(default_factory=dict)
    """Annotations of the ServiceAccount."""


class CustomResources(ChartModel):
    """The CustomResourceDefinitions."""

    install: bool = True
    """Installs and upgrades them with the release. They stay when the release goes, and so do all objects of theirs."""


class Roles(ChartModel):
    """Rights beside those that the operator cannot do without."""

    aggregate: bool = True
    """Adds our kinds to the cluster's roles `view`, `edit` and `admin`."""
    cluster_queues: bool = False
    """Lets the operator read Kueue's ClusterQueues, so that a waiting run also says how much of its quota is in use."""


class Quantities(ChartModel):
    """An amount of each resource."""

    cpu: Quantity | None = None
    """CPUs."""
    memory: Quantity | None = None
    """Memory."""


class Resources(ChartModel):
    """Requests and limits of a container."""

    requests: Quantities = Quantities(cpu="100m", memory="192Mi")
    """What the scheduler reserves."""
    limits: Quantities = Quantities(memory="512Mi")
    """What the container may use."""


class DisruptionBudget(ChartModel):
    """How many operator Pods a drained node may take away."""

    enabled: bool = True
    """Has an effect with two replicas or more."""
    max_unavailable: int = Field(default=1, ge=1)
    """At most so many at once."""


class NetworkPolicies(ChartModel):
    """Who may talk to the operator and to the servers of the evaluation."""

    enabled: bool = True
    """Closes everything that is not listed. Needs a network plugin that enforces policies."""
    api_server_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(default=(443, 6443), min_length=1)
    """Ports on which the API server answers; policies see the port behind its Service. Those of runs and endpoints,
    which are always there, let them through too."""
    metrics_from: Objects = ()
    """Peers (of a NetworkPolicy) that may read metrics; none: all."""


class ServiceMonitor(ChartModel):
    """How Prometheus' operator finds the metrics of operator and endpoints."""

    enabled: bool = False
    """Needs the CustomResourceDefinitions of prometheus-operator."""
    interval: str = Field(default="30s", pattern=r"^[0-9]+(ms|s|m|h)$")
    """Time between scrapes."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which a Prometheus selects it."""


class PrometheusRule(ChartModel):
    """Alerts."""

    enabled: bool = False
    """Needs the CustomResourceDefinitions of prometheus-operator."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which a Prometheus selects it."""


class Dashboard(ChartModel):
    """A Grafana dashboard in a ConfigMap."""

    enabled: bool = False
    """Written for Grafana's sidecar."""
    labels: Labels = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """Labels by which the sidecar finds it."""


class Metrics(ChartModel):
    """What monitoring is told; all off unless asked."""

    service_monitor: ServiceMonitor = ServiceMonitor()
    """ServiceMonitors of the operator and of all endpoints that it looks after."""
    prometheus_rule: PrometheusRule = PrometheusRule()
    """Alerts on them."""
    dashboard: Dashboard = Dashboard()
    """A dashboard of them."""


class S3Server(ChartModel):
    """An S3 server (versitygw) on one volume."""

    image: ServerImage = ServerImage(repository="ghcr.io/versity/versitygw", tag="v1.8.0")
    """versitygw 1.8.0 or newer: older ones do not honour conditional writes."""
    root_secret_name: str = Field(default="", max_length=253)
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the administrator. Empty: one is made at install and
    kept by `helm upgrade`; whatever renders without a cluster (Argo CD) must be given one."""
    size: Quantity = "20Gi"
    """Size of the volume."""
    storage_class_name: str = ""
    """Empty: the cluster's default."""


class MLflowServer(ChartModel):
    """An MLflow server on one volume."""

    image: ServerImage = ServerImage(repository="ghcr.io/mlflow/mlflow", tag="v3.17.2")
    """MLflow 3.17."""
    size: Quantity = "5Gi"
    """Size of the volume."""
    storage_class_name: str = ""
    """Empty: the cluster's default."""


class Evaluation(ChartModel):
    """Servers to try Drivetrain with: one replica each, no backup, gone with the release."""

    enabled: bool = False
    """Installs an S3 server and MLflow, and makes that MLflow the default."""
    s3: S3Server = S3Server()
    """The S3 server."""
    mlflow: MLflowServer = MLflowServer()
    """The MLflow server."""


class Test(ChartModel):
    """What `helm test` trains with."""

    store: str = Field(default="", pattern=r"^(s3://[^ /]+(/[^ ]*)?)?$")
    """Where it writes, such as s3://bucket/prefix. Empty: a bucket of the evaluation."""
    endpoint: str = Field(default="", pattern=_URL)
    """Address of that store's S3 server; empty: the evaluation's, or that of AWS."""
    region: str = ""
    """Region of that store."""
    secret_name: str = Field(default="", max_length=253)
    """Secret in the release's namespace with that store's keys. Empty: the evaluation's."""
    minutes: int = Field(default=15, ge=1, le=120)
    """How long the run may take; `helm test` needs a `--timeout` of five minutes more."""


class Values(ChartModel):
    """All values of the chart."""

    image: Image = Image()
    """The operator's image."""
    image_pull_secrets: tuple[Mapping[str, str], ...] = ()
    """Secrets of the release's namespace for the registry of the operator's image, `- name: ...` each."""
    ray_image: RayImage = RayImage()
    """The default image of Ray Pods."""
    ray_version: str = Field(default="2.60.0", pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    """Ray's version in that image."""
    mlflow: MLflow = MLflow()
    """The default MLflow."""
    watch_namespaces: tuple[Namespace, ...] = Field(default=(), json_schema_extra={"uniqueItems": True})
    """Namespaces that the operator looks after, with a Role in each. None: all that are labelled
    `drivetrain.dev/enabled=true`, with a ClusterRole and an admission policy that confines it to them."""
    replicas: int = Field(default=2, ge=1, le=5)
    """Operator Pods; one leads, the others take over."""
    resources: Resources = Resources()
    """Of an operator Pod; see docs/operations.md for sizes."""
    node_selector: Labels = Field(default_factory=dict)
    """Of the operator Pods."""
    tolerations: Objects = ()
    """Of the operator Pods."""
    affinity: Mapping[str, object] = Field(default_factory=dict)
    """Of the operator Pods; they spread over nodes where they can in any case."""
    priority_class_name: str = ""
    """Of the operator Pods."""
    pod_annotations: Labels = Field(default_factory=dict)
    """Of the operator Pods."""
    pod_labels: Labels = Field(default_factory=dict)
    """Of the operator Pods."""
    service_account: ServiceAccount = ServiceAccount()
    """Of the operator Pods."""
    rbac: Roles = Roles()
    """Rights."""
    crds: CustomResources = CustomResources()
    """Definitions of our kinds."""
    pod_disruption_budget: DisruptionBudget = DisruptionBudget()
    """For drained nodes."""
    network_policies: NetworkPolicies = NetworkPolicies()
    """Network policies of the release's own Pods."""
    metrics: Metrics = Metrics()
    """Monitoring."""
    evaluation: Evaluation = Evaluation()
    """Servers to try it with."""
    test: Test = Test()
    """`helm test`."""
    name_override: str = Field(default="", max_length=40)
    """In place of the chart's name."""
    fullname_override: str = Field(default="", max_length=40)
    """In place of release and chart name."""
    global_: Mapping[str, object] = Field(default_factory=dict, alias="global")
    """Values of a chart that contains this one; not read."""

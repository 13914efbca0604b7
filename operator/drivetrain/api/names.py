"""Labels, annotations, environment variables, and the names of children; all derived, none random."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "drivetrain"
PROJECT_LABEL = "drivetrain.dev/project"
OWNER_UID_LABEL = "drivetrain.dev/owner-uid"
OWNER_KIND_LABEL = "drivetrain.dev/owner-kind"
OWNER_NAME_LABEL = "drivetrain.dev/owner-name"
RUN_UID_LABEL = "drivetrain.dev/run-uid"
ATTEMPT_LABEL = "drivetrain.dev/attempt"
REVISION_LABEL = "drivetrain.dev/revision"
GATEWAY_LABEL = "drivetrain.dev/gateway"
"""On a namespace, "true": its Pods may call endpoints."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
CLUSTER_LABEL = "ray.io/cluster"
NODE_TYPE_LABEL = "ray.io/node-type"

INCARNATION_ANNOTATION = "drivetrain.dev/incarnation"
"""On a run's report ConfigMap: "<n> <cluster name>", written by the operator; a driver claims its attempt with n."""
ENDPOINT_URL_ANNOTATION = "drivetrain.dev/endpoint-url"
"""On a RayService: where its endpoint answers, when that is not the Service of the Deployment's name."""
APPROVE_ANNOTATION = "drivetrain.dev/approve"
PROMOTE_ANNOTATION = "drivetrain.dev/promote"
ABORT_ANNOTATION = "drivetrain.dev/abort"
RETRY_ANNOTATION = "drivetrain.dev/retry"
RETRAIN_ANNOTATION = "drivetrain.dev/retrain"
CANCEL_ANNOTATION = "drivetrain.dev/cancel"
PAUSE_ANNOTATION = "drivetrain.dev/pause"
RENEW_IMAGE_ANNOTATION = "drivetrain.dev/renew-image"
"""On a Deployment: a token; each new one takes the operator's default image of today, as a changed spec does."""
DATA_CHANGED_ANNOTATION = "drivetrain.dev/data-changed"

SPEC_KEY = "spec.json"
LEDGER_KEY = "ledger.json"

SPEC_DIRECTORY = "/etc/drivetrain/spec"
"""Where pods find the run's `<run>-spec` ConfigMap."""
POLICIES_DIRECTORY = "/etc/drivetrain/policies"
"""Where endpoint pods find policy documents, one `<hash>.json` each."""
KEYS_DIRECTORY = "/etc/drivetrain/keys"
"""Where endpoint pods find the bearer keys, files `decide` and `outcomes`."""
SOURCES_DIRECTORY = "/etc/drivetrain/sources"
"""Where a run's head finds credentials of sources with their own Secret, one folder a source."""
WORK_DIRECTORY = "/var/lib/drivetrain"
"""Scratch space of pods: stage outputs, journals."""
SERVICE_ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"

SPEC_ENV = "DRIVETRAIN_SPEC"
NAMESPACE_ENV = "DRIVETRAIN_NAMESPACE"
REPORT_ENV = "DRIVETRAIN_REPORT"
ATTEMPT_ENV = "DRIVETRAIN_ATTEMPT"
CLUSTER_NAME_ENV = "RAY_CLUSTER_NAME"
WORK_ENV = "DRIVETRAIN_WORK"
SOURCES_ENV = "DRIVETRAIN_SOURCES"
SERVICE_ACCOUNT_ENV = "DRIVETRAIN_SERVICE_ACCOUNT"
POLICIES_ENV = "DRIVETRAIN_POLICIES"
KEYS_ENV = "DRIVETRAIN_KEYS"
STORE_ENV = "DRIVETRAIN_STORE"
"""Endpoint pods: the project's store as JSON (`Store`), without secrets."""
PROJECT_ENV = "DRIVETRAIN_PROJECT"
DEPLOYMENT_ENV = "DRIVETRAIN_DEPLOYMENT"
TRACKING_ENV = "MLFLOW_TRACKING_URI"
REVISION_ENV = "DRIVETRAIN_REVISION"
"""The Git revision that an image was built from; set by the image, not by the operator."""
NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # a Ray that must not tell anything tells its makers just that
}
"""Keeps libraries from calling their makers; each reads it when its process starts to use it."""
EXPECTED_RAY_ENV = "DRIVETRAIN_EXPECTED_RAY"
"""What the operator expects of the image, each a version as far as it matters: "2.60.0", "3.11" or "0.1"; the driver's
first step and the endpoint compare (`drivetrain.api.image`). An unset one is not compared. They are part of the Pod
template, so they are rendered from what was recorded with the image, never from the operator's own newer version."""
EXPECTED_PYTHON_ENV = "DRIVETRAIN_EXPECTED_PYTHON"
EXPECTED_VERSION_ENV = "DRIVETRAIN_EXPECTED_VERSION"

SERVE_IMPORT_PATH = "drivetrain.serving.app:build"
PIPELINE_ENTRYPOINT = "python -m drivetrain.pipelines"
UNTIL_DATA = "--until=data"
"""Argument of the driver: end when the data stages are done, so that no GPU waits for a download or a broken source."""
SUBMIT_COMMAND = ("python", "-m", "drivetrain.pipelines.submit")
"""The submitter; the driver's entrypoint follows as one argument."""
SERVE_HEALTH_PATH = "/-/healthz"
"""Readiness of a RayService's workers: the kubelet's HTTP GET of this path on the Serve port, which answers 200 while a
replica serves behind the node's proxy. It needs no token and no program in the image, where KubeRay 1.6.2 starts wget.
KubeRay's other probes are HTTP GETs of Ray's agent already (from Ray 2.53 on) and are left to it."""


def run_name(project: str, number: int) -> str:
    """The TrainingRun that the loop starts as the project's n-th."""
    return f"{project}-{number}"


def spec_name(run: str) -> str:
    """The immutable ConfigMap with a run's spec and the project facts copied at its creation."""
    return f"{run}-spec"


def ray_job_name(run: str, attempt: int, part: str = "") -> str:
    """The RayJob of one attempt, or of its part: p prepares without GPUs, t trains with them."""
    return f"{run}-a{attempt}-{part}" if part else f"{run}-a{attempt}"


def ledger_name(kind: str, name: str) -> str:
    """The ConfigMap with decisions that cannot be observed again."""
    return f"{kind.lower()}-{name}-ledger"


def report_name(kind: str, name: str) -> str:
    """The ConfigMap through which a run's driver or an endpoint's Monitor talks back."""
    return f"{kind.lower()}-{name}-report"


def account_name(kind: str, name: str) -> str:
    """ServiceAccount, Role and RoleBinding that may patch the report, and nothing else."""
    return f"{kind.lower()}-{name}"


def ray_service_name(deployment: str, revision: str) -> str:
    """The RayService of one cluster revision; `revision` is a hash of what lies below rayClusterConfig."""
    return f"{deployment}-{revision[:6]}"


def policies_name(deployment: str) -> str:
    """The ConfigMap with the policy documents that endpoint replicas may be told to load."""
    return f"{deployment}-policies"

"""Kinds of others that the command line reads with the person's rights; the operator has no business with them."""

from drivetrain.api.kinds import Kind

APPS_DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
LOCAL_QUEUE_V1BETA1 = Kind("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue")
CLUSTER_QUEUE_V1BETA1 = Kind("kueue.x-k8s.io", "v1beta1", "clusterqueues", "ClusterQueue", namespaced=False)
POLICY = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)

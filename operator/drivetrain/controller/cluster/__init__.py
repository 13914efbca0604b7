"""All I/O of the operator, behind the Cluster protocol."""

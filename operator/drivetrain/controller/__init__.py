"""The operator: observe, decide, apply. `main > handlers > cluster > core > manifests`; none imports upwards."""

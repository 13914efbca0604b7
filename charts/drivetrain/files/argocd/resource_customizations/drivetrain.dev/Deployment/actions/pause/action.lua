local annotations = obj.metadata.annotations or {}
annotations["drivetrain.dev/pause"] = "true"
obj.metadata.annotations = annotations
return obj

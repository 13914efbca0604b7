local annotations = obj.metadata.annotations or {}
annotations["drivetrain.dev/pause"] = nil
obj.metadata.annotations = annotations
return obj

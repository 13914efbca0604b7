local annotations = obj.metadata.annotations or {}
annotations["drivetrain.dev/cancel"] = "argocd-" .. obj.metadata.resourceVersion
obj.metadata.annotations = annotations
return obj

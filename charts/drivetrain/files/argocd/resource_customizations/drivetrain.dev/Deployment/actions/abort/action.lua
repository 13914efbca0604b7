-- The operator answers each value once: the resource version makes a second request a new one.
local annotations = obj.metadata.annotations or {}
annotations["drivetrain.dev/abort"] = obj.status.candidate.hash .. ":" .. obj.metadata.resourceVersion
obj.metadata.annotations = annotations
return obj

-- The operator answers each value once: the resource version makes a second request a new one.
local annotations = obj.metadata.annotations or {}
annotations["drivetrain.dev/approve"] = obj.status.awaitingApproval.digest .. ":" .. obj.metadata.resourceVersion
obj.metadata.annotations = annotations
return obj

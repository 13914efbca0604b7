-- The newest rejected policy gets one more rollout; the resource version makes a second request a new one.
local annotations = obj.metadata.annotations or {}
annotations["drivetrain.dev/retry"] = obj.status.rejected[1].hash .. ":" .. obj.metadata.resourceVersion
obj.metadata.annotations = annotations
return obj

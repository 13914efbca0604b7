local status = obj.status or {}
local paused = (obj.metadata.annotations or {})["drivetrain.dev/pause"] == "true"
local idle = status.candidate == nil
local actions = {}
actions["promote"] = { disabled = idle }
actions["abort"] = { disabled = idle }
actions["retry"] = { disabled = status.rejected == nil or #status.rejected == 0 }
actions["pause"] = { disabled = paused or idle }
actions["resume"] = { disabled = not paused }
return actions

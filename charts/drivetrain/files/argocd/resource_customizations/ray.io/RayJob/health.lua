-- KubeRay 1.6: jobDeploymentStatus says where the job stands, jobStatus how it ended.
local status = obj.status or {}
local phase = status.jobDeploymentStatus or ""
local message = phase
for _, told in ipairs({ status.reason or "", status.message or "" }) do
  if told ~= "" then
    message = message .. ": " .. told
  end
end
if phase == "Failed" or phase == "ValidationFailed" or status.jobStatus == "FAILED" or status.jobStatus == "STOPPED" then
  return { status = "Degraded", message = message }
end
if phase == "Complete" then
  return { status = "Healthy", message = message }
end
if phase == "Suspended" or (phase == "" and obj.spec.suspend) then
  return { status = "Suspended", message = "It is suspended, or waits in a queue" }
end
if phase == "" then
  return { status = "Progressing", message = "KubeRay has not seen it yet" }
end
return { status = "Progressing", message = message }

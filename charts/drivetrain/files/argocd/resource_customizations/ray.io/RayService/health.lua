-- KubeRay 1.6: conditions Ready and UpgradeInProgress; applications that Ray Serve gave up are told below the clusters.
local status = obj.status or {}
if status.conditions == nil then
  return { status = "Progressing", message = "KubeRay has not seen it yet" }
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "KubeRay has not seen this version yet" }
end
for _, part in ipairs({ "pendingServiceStatus", "activeServiceStatus" }) do
  for name, application in pairs((status[part] or {}).applicationStatuses or {}) do
    if application.status == "DEPLOY_FAILED" or application.status == "UNHEALTHY" then
      return { status = "Degraded", message = name .. " is " .. application.status .. ": " .. (application.message or "") }
    end
  end
end
local ready = nil
for _, each in ipairs(status.conditions) do
  if each.type == "UpgradeInProgress" and each.status == "True" then
    return { status = "Progressing", message = each.reason .. ": " .. (each.message or "") }
  end
  if each.type == "Ready" then
    ready = each
  end
end
if ready == nil then
  return { status = "Progressing", message = "It is not ready yet" }
end
local message = ready.reason .. ": " .. (ready.message or "")
if ready.status == "True" then
  return { status = "Healthy", message = message }
end
if ready.reason == "ValidationFailed" or ready.reason == "InitializingTimeout" then
  return { status = "Degraded", message = message }
end
return { status = "Progressing", message = message }

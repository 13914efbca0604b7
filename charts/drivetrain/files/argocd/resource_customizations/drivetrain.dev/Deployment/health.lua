-- A stable variant serves on while a candidate is rejected: Degraded then says what Git asks for and does not get.
local function condition(kind)
  for _, each in ipairs(obj.status.conditions) do
    if each.type == kind and each.status == "True" then
      return each
    end
  end
  return nil
end

local function health(status, found)
  return { status = status, message = found.reason .. ": " .. (found.message or "") }
end

if obj.status == nil or obj.status.conditions == nil then
  return { status = "Progressing", message = "The operator has not seen it yet" }
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not seen this version yet" }
end
if condition("Stalled") ~= nil then
  return health("Degraded", condition("Stalled"))
end
if condition("Degraded") ~= nil then
  return health("Degraded", condition("Degraded"))
end
local annotations = obj.metadata.annotations or {}
if obj.status.candidate ~= nil and annotations["drivetrain.dev/pause"] == "true" then
  return { status = "Suspended", message = "The rollout of " .. obj.status.candidate.hash .. " is paused" }
end
for _, kind in ipairs({ "Progressing", "Reconciling" }) do
  if condition(kind) ~= nil then
    return health("Progressing", condition(kind))
  end
end
if condition("Ready") ~= nil then
  return health("Healthy", condition("Ready"))
end
return { status = "Progressing", message = "It is not ready yet" }

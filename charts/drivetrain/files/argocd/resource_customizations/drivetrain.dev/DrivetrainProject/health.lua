-- Healthy once a version has passed its gates; Suspended while a person is asked.
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
for _, kind in ipairs({ "Stalled", "CircuitOpen" }) do
  if condition(kind) ~= nil then
    return health("Degraded", condition(kind))
  end
end
if obj.status.awaitingApproval ~= nil then
  return { status = "Suspended", message = "Version " .. obj.status.awaitingApproval.version .. " awaits approval" }
end
if condition("Reconciling") ~= nil then
  return health("Progressing", condition("Reconciling"))
end
if condition("Ready") ~= nil then
  return health("Healthy", condition("Ready"))
end
return { status = "Progressing", message = "It is not ready yet" }

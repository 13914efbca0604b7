local ended = false
for _, each in ipairs((obj.status or {}).conditions or {}) do
  if (each.type == "Complete" or each.type == "Failed") and each.status == "True" then
    ended = true
  end
end
local actions = {}
actions["cancel"] = { disabled = ended }
return actions

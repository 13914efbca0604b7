local actions = {}
actions["retrain"] = { disabled = false }
actions["approve"] = { disabled = obj.status == nil or obj.status.awaitingApproval == nil }
return actions

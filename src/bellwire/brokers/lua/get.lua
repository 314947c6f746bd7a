-- Return the replication id, and the revision and the value if there is one.

local revision, value = kept(now())
if value then
  return {replication_id(), int(revision), value}
end
return {replication_id()}

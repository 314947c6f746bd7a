-- Return the time, the replication id, and the identity of all that is kept: ARGV[1] if it had none.

redis.call('SET', KEYS[1], ARGV[1], 'NX')
return {int(now()), replication_id(), redis.call('GET', KEYS[1])}

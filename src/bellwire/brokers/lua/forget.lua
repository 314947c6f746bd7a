-- Take out the stream whose log is KEYS[1] and whose meta is KEYS[2].

return redis.call('UNLINK', KEYS[1], KEYS[2])

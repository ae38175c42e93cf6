-- Sets `now` in milliseconds: Redis' TIME, and `offset` of the test clock.
local time = redis.call('TIME')
local us = time[2] + 0
local now = time[1] * 1000 + (us - us % 1000) / 1000 + offset

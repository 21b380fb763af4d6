-- What every script shares: keys, time, and the one way a job moves. Put before each of them, after the state tables.
--
-- A job is a hash, d:j:<id>:
--   d  its public part, JSON          x  its private part, sealed where there is a key
--   p  provider                       l  "1" in the high lane
--   s  state                          n  lines of history so far
--   h  history: lines of "<ms> <state> <provider> <detail>"
-- and, where there is something to say:
--   z  useless after this ms          w  "<reason> <ms>": what it waits for, and until when
--   b  batch                          a  attempts
--   k  times taken without a claim    u  "<ms> <token>": in the hands of whoever took it, until then
--   f  token it was claimed with      o  may it be repeated when its worker dies: never, once, always, resend (once by
--                                        the caller's instruction: where no earlier try may have been taken)
--   i  "1": an earlier try may have been taken, so that it never ends as if nothing had happened
--   q  "1": its time in the outbox was renewed, and says nothing of how far the queue is
--   t  tries: lines of "<ms> <provider> <outcome> <ref>"
--   r  result, sealed                 c  price                m  provider's own reference
--   e  failure, JSON                  y  receipt              yp parts of it that were told of: "<part> ..."
--   xc card details, sealed; erased when it settles
--   ik "<ms> <hash>": its idempotency key, and how long that is kept once the job settled
--   vs, vh, vt, ve  a verification's status, code hash, tries, and the ms it expires at
--   vx its code, sealed, where we make it; erased when the verification ends
--   vb what was read before the attempt, to judge a lost answer by
--   vc "<call> <verdict>" of its last check
--   rd the job that was made of it by a redrive
--
-- Beside the jobs:
--   d:i:<provider>:<state>  sorted set of ids by the ms they came there        d:p  set of providers with jobs
--   d:o:<queue>   outbox: ids whose message is out, by the ms it was published
--   d:g:<queue>   hash of 10 s slots: the latest publishing time among the messages taken in each; slot 0 has that of
--                 all the slots that were folded into it
--   d:w:<queue>   ids that wait, by the ms they are due
--   d:l           ids that are sending, by the ms their lease ends             d:x  ids by the ms they expire at
--   d:b:<batch>   hash: jobs by state, and these, each "1":                    d:b:<batch>:j  list of its ids
--     o  open: more jobs may follow      c  cancelled: none may      e  its settling was told
--   d:f:<provider>  ids of jobs whose fate is not known yet, by the ms they are asked about or given up
--   d:y:<hash>    the job that a receipt with this reference is for           d:ye:<hash>  receipts that came before it
--   d:v           ids with a code of ours or a card, by the ms to look whether it can be erased
--   d:n:<hash>    list of a number's job ids                                   d:k:<hash>     "<id> <fingerprint>"
--   d:no          hash of those who want no more texts: number's hash to "<ms> <by>"
--   d:ni:<hash>   the ms at which somebody last wanted texts again             d:cd:<hash>    texts that were told before
--   d:cb:<id>     hash of a callback that is to be read: a account, t ms it came at, x it, sealed, k times taken
--   d:co:<account>  ids of its callbacks, by the ms they were published        d:ca           accounts with callbacks
--   d:cx          ids of callbacks that were set aside, by the ms              d:cn           what came of callbacks
--   d:cu          "<account> <hash>" of receipts that came early, by the ms they are given up
--   d:s:<account> what it cannot do until its operator mends it, as `suspend.lua` says
--   d:e           the event stream                                             d:et           the last entry trimmed
--   d:c           hash: n claims there ever were, at the last ms that is known of
--   d:er          the server's run under which history is known to be whole, d:er:<run> hash of what each worker
--                 remembered when that run began: "<was some lost, 0 or 1> <since ms> <claims> <lost claims of its own>"
--   d:cw          processes that claim, by the ms of their last pulse
--   d:fs          written so that what was written before it can be waited for
--   d:mode        "sandbox" or "live"      d:hk  what tells one hash key from another      d:a  accounts, by workers
--   d:hb, d:hb:<worker>, d:ha  heartbeats, by workers, as `dispatcher/heartbeats.py` says
-- docs/retention.md says how long each is kept, and how those without a lifetime stay small.

-- Bytes of history, and of tries, beyond which the oldest are forgotten, but for the first line.
local MOST_HISTORY, MOST_TRIES = 16384, 4096

-- What stands for the parts of a message once one of them failed.
local FAILED = 'failed'

-- After how many ms somebody asks what became of a job that ended unknown, and receipts that wait for their job at most.
local FIRST_LOOK, MOST_EARLY = 10000, 100

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua writes large numbers as 1.7e+12 unless told.
local function int(number)
  return string.format('%.0f', number)
end

-- Whose jobs this Redis holds, and with which hash key: the first to come decides. False where all is well.
local function stranger(mode, hash_key)
  local here = redis.call('MGET', 'd:mode', 'd:hk')
  if here[1] and here[1] ~= mode then return {'MODE', here[1]} end
  if here[2] and hash_key ~= '' and here[2] ~= hash_key then return {'KEY'} end
  if not here[1] then redis.call('SET', 'd:mode', mode) end
  if not here[2] and hash_key ~= '' then redis.call('SET', 'd:hk', hash_key) end
  return false
end

local function job_key(id)
  return 'd:j:' .. id
end

local function queue_of(job)
  return job.l and job.p .. '.high' or job.p
end

local function load(id)
  local v = redis.call('HMGET', job_key(id), 's', 'p', 'l', 'n', 'h', 'b', 'f', 'a', 'o', 'z', 'i', 'q', 'k', 'u', 'ik')
  if not v[1] then return nil end
  local job = {
    id = id, s = v[1], p = v[2], l = v[3], n = tonumber(v[4]), h = v[5], b = v[6], f = v[7],
    a = tonumber(v[8] or 0), o = v[9], z = tonumber(v[10]), i = v[11], q = v[12], k = tonumber(v[13] or 0), held = 0,
  }
  if v[14] then
    local held, taker = string.match(v[14], '^(%d+) (%S+)$')
    job.held, job.taker = tonumber(held), taker
  end
  if v[15] then job.key_kept, job.key = string.match(v[15], '^(%d+) (.+)$') end
  return job
end

-- Add `line` to `lines`; of too many bytes the oldest are forgotten, but for the first line.
local function added(lines, line, most)
  if not lines or lines == '' then return line end
  lines = lines .. '\n' .. line
  while #lines > most do
    local first = string.find(lines, '\n', 1, true)
    local second = first and string.find(lines, '\n', first + 1, true)
    if not second then return lines end
    lines = string.sub(lines, 1, first) .. string.sub(lines, second + 1)
  end
  return lines
end

-- Add a line to the history, under the state the job is in.
local function note(job, now, detail)
  job.n = job.n + 1
  job.h = added(job.h, int(now) .. ' ' .. job.s .. ' ' .. job.p .. ' ' .. detail, MOST_HISTORY)
  redis.call('HSET', job_key(job.id), 's', job.s, 'n', job.n, 'h', job.h)
end

local function emit(event, id, n)
  redis.call('XADD', 'd:e', '*', 't', event, 'i', id, 'n', n)
end

local function batch_key(batch)
  return 'd:b:' .. batch
end

-- Tell that a batch settled, with its counts as they are now.
local function emit_settled(batch, key)
  local stored, counts = redis.call('HGETALL', key), {}
  for i = 1, #stored, 2 do
    if SETTLED[stored[i]] and tonumber(stored[i + 1]) > 0 then
      counts[#counts + 1] = stored[i] .. ' ' .. stored[i + 1]
    end
  end
  local cancelled = redis.call('HEXISTS', key, 'c')
  redis.call('XADD', 'd:e', '*', 't', 'batch.settled', 'i', batch, 'b', table.concat(counts, ','), 'c', cancelled)
end

-- See to a batch of which something changed: once none of its jobs is busy and no more may follow, its settling is
-- told; it is kept while one is busy, and for as long as its jobs afterwards.
local function look_after(batch, keep)
  local key = batch_key(batch)
  local v = redis.call('HMGET', key, 'queued', 'sending', 'o', 'e')
  local busy, open, told = tonumber(v[1] or 0) + tonumber(v[2] or 0) > 0, v[3], v[4]
  if busy and told then
    redis.call('HDEL', key, 'e')
  elseif not (busy or open or told) then
    redis.call('HSET', key, 'e', '1')
    emit_settled(batch, key)
  end
  for _, one in ipairs({key, key .. ':j'}) do
    if busy then redis.call('PERSIST', one) else redis.call('PEXPIRE', one, keep) end
  end
end

-- The latest publishing time among the messages of a queue that were taken `after` ms ago or longer. The slots that
-- tell it are folded into slot 0, so that there are never more than a few.
local function passed(queue, now, after)
  local key, old, latest = 'd:g:' .. queue, {}, 0
  local slots = redis.call('HGETALL', key)
  for i = 1, #slots, 2 do
    -- A slot spans 10 s, so it counts from its end.
    if (tonumber(slots[i]) + 1) * 10000 <= now - after then
      latest = math.max(latest, tonumber(slots[i + 1]))
      if slots[i] ~= '0' then old[#old + 1] = slots[i] end
    end
  end
  if #old > 0 then
    redis.call('HSET', key, '0', int(latest))
    redis.call('HDEL', key, unpack(old))
  end
  return latest
end

-- Take it out of every list of jobs that wait or run; the move that follows puts it where it belongs.
local function unlist(job)
  if job.s == 'queued' then
    redis.call('ZREM', 'd:o:' .. queue_of(job), job.id)
    redis.call('ZREM', 'd:w:' .. queue_of(job), job.id)
    if job.z then redis.call('ZREM', 'd:x', job.id) end
  elseif job.s == 'sending' then
    redis.call('ZREM', 'd:l', job.id)
  end
end

-- Count a move in the job's batch.
local function count(batch, from, to, keep)
  local left = redis.call('HINCRBY', batch_key(batch), from, -1)
  redis.call('HINCRBY', batch_key(batch), to, 1)
  -- It was busy, and is.
  if not SETTLED[from] and (left > 0 or not SETTLED[to]) then return end
  look_after(batch, keep)
end

-- Keep a job's idempotency key for `ms`, or until further notice; by now it may be another job's.
local function keep_key(job, ms)
  local known = job.key and redis.call('GET', 'd:k:' .. job.key)
  if not known or string.match(known, '^%S+') ~= job.id then return end
  if ms then redis.call('PEXPIRE', 'd:k:' .. job.key, ms) else redis.call('PERSIST', 'd:k:' .. job.key) end
end

-- Move a job; answers the state it is in then, false where the state table forbids the move. A job of which an earlier
-- try may have been taken ends as that try left it. `keep` is how many ms settled jobs are kept.
local function move(job, to, now, detail, keep)
  if job.i and (to == 'failed' or to == 'expired' or to == 'cancelled') then
    to, detail = 'unknown', detail .. '; an earlier try may have been taken'
  end
  if not (MOVES[job.s] and MOVES[job.s][to]) then return false end
  unlist(job)
  redis.call('ZREM', 'd:i:' .. job.p .. ':' .. job.s, job.id)
  redis.call('ZADD', 'd:i:' .. job.p .. ':' .. to, now, job.id)
  local was = job.s
  job.s = to
  note(job, now, detail)
  redis.call('HDEL', job_key(job.id), 'w', 'u')
  if to == 'failed' or to == 'expired' or to == 'cancelled' then redis.call('HDEL', job_key(job.id), 'vx') end
  if was == 'sent' or was == 'unknown' then redis.call('ZREM', 'd:f:' .. job.p, job.id) end
  if to == 'unknown' then redis.call('ZADD', 'd:f:' .. job.p, now + FIRST_LOOK, job.id) end
  if GOOD[to] then redis.call('HDEL', job_key(job.id), 'e') end
  if SETTLED[to] then
    redis.call('HDEL', job_key(job.id), 'xc')
    redis.call('PEXPIRE', job_key(job.id), keep)
    keep_key(job, job.key_kept)
    emit('job.' .. to, job.id, job.n)
  elseif SETTLED[was] then
    redis.call('PERSIST', job_key(job.id))
    keep_key(job)
  end
  -- After the job's own event: the batch's comes when all is told.
  if job.b then count(job.b, was, to, keep) end
  if to == 'queued' and job.z then redis.call('ZADD', 'd:x', job.z, job.id) end
  return to
end

-- Let a queued job wait until `due`, for `reason`; the clock brings it back.
local function park(job, reason, due)
  -- Lifted meanwhile: whoever lets such jobs go on has been here already.
  if reason == 'suspended' and redis.call('EXISTS', 'd:s:' .. job.p) == 0 then due = math.min(due, now_ms()) end
  redis.call('ZREM', 'd:o:' .. queue_of(job), job.id)
  redis.call('ZADD', 'd:w:' .. queue_of(job), due, job.id)
  redis.call('HSET', job_key(job.id), 'w', reason .. ' ' .. int(due))
  redis.call('HDEL', job_key(job.id), 'u', 'k')
end

-- End a job without asking the provider.
local function fail(job, to, now, detail, kind, code, keep)
  if not move(job, to, now, detail, keep) then return end
  redis.call('HSET', job_key(job.id), 'e', cjson.encode({kind = kind, code = code, message = detail}))
end

-- End a text to somebody who wants none.
local function leave_alone(job, now, keep)
  fail(job, 'failed', now, 'opted_out: they asked for no more texts', 'opted_out', 'list', keep)
end

-- Let a job that came back to the queue wait until `due`; of a batch that was cancelled meanwhile it is taken back.
local function wait_again(job, reason, due, now, keep)
  if job.b and redis.call('HEXISTS', batch_key(job.b), 'c') == 1 then
    fail(job, 'cancelled', now, 'its batch was cancelled by the caller', 'refused', 'cancelled', keep)
  else
    park(job, reason, due)
  end
end

-- Take in what was told of a job afterwards: `word` has to (a state, or "" for what decides nothing), detail, part, parts,
-- and the fields to set, in turn. Answers whether it moved the job: news that came before, or leads back, does not.
local function hear(job, word, now, keep)
  local key, to, detail = job_key(job.id), word.to, word.detail
  local told = word.parts > 1 and redis.call('HGET', key, 'yp') or ' '
  if word.parts > 1 and to == 'undelivered' then
    redis.call('HSET', key, 'yp', FAILED)
  elseif told == FAILED then
    to = ''
  elseif word.parts > 1 and to == 'delivered' then
    -- Delivered is what all parts are.
    if not string.find(told, ' ' .. word.part .. ' ', 1, true) then told = told .. word.part .. ' ' end
    redis.call('HSET', key, 'yp', told)
    local _, parts = string.gsub(told, '%d+', '')
    if parts < word.parts then to, detail = '', 'part ' .. word.part .. ' of ' .. word.parts .. ': ' .. detail end
  end
  if to == '' then
    local line = ' ' .. job.p .. ' ' .. detail .. '\n'
    if SETTLED[job.s] and detail ~= '' and not string.find(job.h .. '\n', line, 1, true) then note(job, now, detail) end
    return false
  end
  if not (MOVES[job.s] and MOVES[job.s][to]) then return false end
  if to == 'failed' then
    -- That nothing was seen says nothing of a try that began after somebody looked.
    if job.s ~= 'unknown' then return false end
    -- It is known now that no try was taken.
    job.i = nil
    redis.call('HDEL', key, 'i')
  end
  if not move(job, to, now, detail, keep) then return false end
  if to == 'delivered' or to == 'undelivered' then redis.call('HSET', key, 'y', 'received') end
  if #word.fields > 0 then redis.call('HSET', key, unpack(word.fields)) end
  return true
end

-- Expect a receipt, and take in those that came before there was anybody to expect one. `hash` finds it, `look` is in how
-- many ms it is asked for, `waited` how many ms it is waited for.
local function expect(job, hash, look, waited, now, keep)
  redis.call('SET', 'd:y:' .. hash, job.id, 'PX', waited)
  redis.call('ZADD', 'd:f:' .. job.p, now + look, job.id)
  local early = 'd:ye:' .. hash
  for _, word in ipairs(redis.call('LRANGE', early, 0, -1)) do hear(job, cjson.decode(word), now, keep) end
  redis.call('DEL', early)
  redis.call('ZREM', 'd:cu', job.p .. ' ' .. hash)
end

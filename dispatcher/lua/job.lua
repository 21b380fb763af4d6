-- What every script shares: keys, time, and the one way a job moves. Put before each of them, after the state tables and
-- usage.lua.
--
-- A job is a hash, d:j:<id>:
--   d  its public part, JSON          x  its private part, sealed where there is a key
--   p  provider                       l  "1" in the high lane
--   s  state                          n  lines of history so far
--   h  history: lines of "<ms> <state> <provider> <detail>"
-- and, where there is something to say:
--   z  useless after this ms          w  "<reason> <ms>": what it waits for, and until when
--   b  batch                          a  attempts             tn tenant
--   k  times taken without a claim    u  "<ms> <token>": in the hands of whoever took it, until then
--   f  token it was claimed with      o  may it be repeated when its worker dies: never, once, always, resend (once by
--                                        the caller's instruction: where no earlier try may have been taken)
--   i  "1": an earlier try may have been taken, so that it never ends as if nothing had happened; or "sent <account>" and
--      "undelivered <account>": it was taken there, and is tried elsewhere since nothing more, or that, was told of it
--   rt how far it went along the route that its public part names: the position of the last account it came to
--   q  "1": its time in the outbox was renewed, and says nothing of how far the queue is
--   t  tries: lines of "<ms> <provider> <outcome> <ref>"
--   r  result, sealed                 c  price                m  provider's own reference
--   e  failure, JSON                  y  receipt              yp parts of it that were told of: "<part> ...";
--                                                             "yp <account>" of a try at another account,
--                                                             as gu
--   xc card details, sealed; erased when it settles
--   ik "<ms> <hash>": its idempotency key, and how long that is kept once the job settled
--   vs, vh, vt, ve  a verification's status, code hash, tries, and the ms it expires at
--   vx its code, sealed, where we make it; erased when the verification ends
--   vb what was read before the attempt, to judge a lost answer by
--   vc "<call> <verdict>" of its last check
--   rd the job that was made of it by a redrive
--   ge, gb, gu  what it uses up and costs, as `usage.lua` says
--
-- Beside the jobs:
--   d:i:<provider>:<state>  sorted set of ids by the ms they came there        d:p  set of providers with jobs
--   d:o:<queue>   outbox: ids whose message is out, by the ms it was published
--   d:g:<queue>   hash of 10 s slots: the latest publishing time among the messages taken in each; slot 0 has that of
--                 all the slots that were folded into it
--   d:w:<queue>   ids that wait, by the ms they are due
--   d:q:<queue>:<batch>:<tenant>  a line: ids that wait for their turn, by the ms they were made
--   d:qt:<queue>  tenants with lines, by the turns they had; d:qb:<queue>:<tenant> their batches, likewise
--   d:qw:<queue>  hash: n jobs that may be with the workers at once, at when that was changed
--   d:l           ids that are sending, by the ms their lease ends             d:x  ids by the ms they expire at
--   d:b:<batch>   hash: jobs by state, and these, each "1":                    d:b:<batch>:j  list of its ids
--     f  how many of them are sent, and go on unless a receipt comes
--     o  open: more jobs may follow      c  cancelled: none may      e  its settling was told
--   d:f:<provider>  ids of jobs whose fate is not known yet, by the ms they are asked about or given up
--   d:fo            ids that are sent, by the ms at which they go on to the next account unless a receipt came
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

-- Jobs of a queue that may be with its workers at once before anybody knows how fast they are.
local FIRST_OUT = 500

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
  local v = redis.call('HMGET', job_key(id), 's', 'p', 'l', 'n', 'h', 'b', 'f', 'a', 'o', 'z', 'i', 'q', 'k', 'u', 'ik', 'tn', 'rt')
  if not v[1] then return nil end
  local job = {
    id = id, s = v[1], p = v[2], l = v[3], n = tonumber(v[4]), h = v[5], b = v[6], f = v[7],
    a = tonumber(v[8] or 0), o = v[9], z = tonumber(v[10]), i = v[11], q = v[12], k = tonumber(v[13] or 0), held = 0,
    tn = v[16] or '', rt = tonumber(v[17] or 1),
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

-- Add a line to the history, under the state the job is in, and the account that has it unless another one tells.
local function note(job, now, detail, account)
  job.n = job.n + 1
  job.h = added(job.h, int(now) .. ' ' .. job.s .. ' ' .. (account or job.p) .. ' ' .. detail, MOST_HISTORY)
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
  local v = redis.call('HMGET', key, 'queued', 'sending', 'f', 'o', 'e')
  local busy, open, told = tonumber(v[1] or 0) + tonumber(v[2] or 0) + tonumber(v[3] or 0) > 0, v[4], v[5]
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

local function line_key(queue, batch, tenant)
  return 'd:q:' .. queue .. ':' .. batch .. ':' .. tenant
end

-- Let a tenant or a batch take turns: it begins where those are who had the fewest, and makes up for nothing.
local function join(key, member)
  if redis.call('ZSCORE', key, member) then return end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  redis.call('ZADD', key, first[2] or 0, member)
end

-- Put a queued job into the line of its tenant and batch, behind those that were made before it.
local function line_up(queue, id, batch, tenant, made)
  redis.call('ZADD', line_key(queue, batch, tenant), made, id)
  join('d:qb:' .. queue .. ':' .. tenant, batch)
  join('d:qt:' .. queue, tenant)
end

-- See to a line of which something was taken: an empty one takes no turns.
local function tidy_line(queue, batch, tenant)
  if redis.call('EXISTS', line_key(queue, batch, tenant)) == 1 then return end
  local batches = 'd:qb:' .. queue .. ':' .. tenant
  redis.call('ZREM', batches, batch)
  if redis.call('EXISTS', batches) == 0 then redis.call('ZREM', 'd:qt:' .. queue, tenant) end
end

-- How many jobs of a queue may be with its workers at once: as many as they take in about half a second, as `deal` finds
-- out. Those are served in order; all others take turns.
local function most_out(queue)
  return tonumber(redis.call('HGET', 'd:qw:' .. queue, 'n') or FIRST_OUT)
end

-- How many more jobs may go to the workers of a queue at once: none while others wait for their turn.
local function room_at_once(queue)
  if redis.call('EXISTS', 'd:qt:' .. queue) == 1 then return 0 end
  return most_out(queue) - redis.call('ZCARD', 'd:o:' .. queue)
end

-- Take it out of every list of jobs that wait or run; the move that follows puts it where it belongs.
local function unlist(job)
  if job.s == 'queued' then
    redis.call('ZREM', 'd:o:' .. queue_of(job), job.id)
    redis.call('ZREM', 'd:w:' .. queue_of(job), job.id)
    if redis.call('ZREM', line_key(queue_of(job), job.b or '', job.tn), job.id) == 1 then
      tidy_line(queue_of(job), job.b or '', job.tn)
    end
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

-- What a job's public part says of where it may go: the accounts in order, and how many seconds after it was sent it
-- goes on to the next one, where the caller asked for that.
local function route_of(job)
  local told, public = pcall(cjson.decode, redis.call('HGET', job_key(job.id), 'd') or '')
  if not told or type(public) ~= 'table' then return {} end
  return public.route or {}, public.failover_after
end

-- The account after the one that has a job, and its position on the route; none where the job went the whole way. What
-- came back to an account that it had left goes on from where it was.
local function following(job)
  local route, watched = route_of(job)
  local at = job.rt
  for position, account in ipairs(route) do
    if account == job.p then at = math.max(at, position) end
  end
  return route[at + 1], at + 1, watched
end

-- Whether a job is, or was, with this account.
local function came_to(job, account)
  if job.p == account then return true end
  local route = route_of(job)
  for position = 1, job.rt do
    if route[position] == account then return true end
  end
  return false
end

-- Let another account have a job, in the state it is in: what belongs to a try stays with the account that made it. One
-- that is queued is put nowhere to wait.
local function hand_over(job, account, now)
  if job.p == account then return end
  local key, from = job_key(job.id), job.p
  unlist(job)
  redis.call('ZREM', 'd:i:' .. from .. ':' .. job.s, job.id)
  redis.call('ZREM', 'd:f:' .. from, job.id)
  redis.call('HDEL', key, 'm', 'y', 'vb')
  for _, field in ipairs({'yp', 'gu'}) do
    local kept = redis.call('HMGET', key, field, field .. ' ' .. account)
    redis.call('HDEL', key, field, field .. ' ' .. account)
    if kept[1] then redis.call('HSET', key, field .. ' ' .. from, kept[1]) end
    if kept[2] then redis.call('HSET', key, field, kept[2]) end
  end
  for who, ref in string.gmatch(redis.call('HGET', key, 't') or '', '%d+ (%S+) accepted ([^\n]*)') do
    if who == account and ref ~= '' then redis.call('HSET', key, 'm', ref) end
  end
  job.p = account
  redis.call('HSET', key, 'p', account)
  redis.call('SADD', 'd:p', account)
  redis.call('ZADD', 'd:i:' .. account .. ':' .. job.s, now, job.id)
  if job.s == 'queued' and job.z then redis.call('ZADD', 'd:x', job.z, job.id) end
end

-- Let the next account of its route have a queued job.
local function go_on(job, account, position, now)
  job.rt = position
  redis.call('HSET', job_key(job.id), 'rt', position)
  hand_over(job, account, now)
end

-- Whether an earlier try is known to have been taken by this account.
local function taken_by(job, account)
  return job.i == 'sent ' .. account or job.i == 'undelivered ' .. account
end

-- Let a job that is sent, or will be with its next move, go on to the next account of its route unless a receipt comes
-- within `ms`; 0 for never. It waits for that, and so does its batch.
local function watch(job, ms, now, keep)
  if ms <= 0 then return end
  redis.call('ZADD', 'd:fo', now + ms, job.id)
  if redis.call('HSET', job_key(job.id), 'w', 'receipt ' .. int(now + ms)) == 0 or not job.b then return end
  redis.call('HINCRBY', batch_key(job.b), 'f', 1)
  look_after(job.b, keep)
end

-- Let it stay where it is; whoever calls looks after its batch.
local function unwatch(job)
  redis.call('ZREM', 'd:fo', job.id)
  if redis.call('HDEL', job_key(job.id), 'w') == 0 or not job.b then return end
  if redis.call('HINCRBY', batch_key(job.b), 'f', -1) <= 0 then redis.call('HDEL', batch_key(job.b), 'f') end
end

-- Move a job; answers the state it is in then, false where the state table forbids the move. A job of which an earlier
-- try was or may have been taken ends as that try left it. `keep` is how many ms settled jobs are kept; `job.told` has the
-- fields that are written with it, if any.
local function move(job, to, now, detail, keep)
  local taken
  if job.i and (to == 'failed' or to == 'expired' or to == 'cancelled') then
    to, taken = string.match(job.i, '^(%a+) (.+)$')
    detail = detail .. '; an earlier try ' .. (taken and 'was' or 'may have been') .. ' taken'
    to = to or 'unknown'
  end
  if not (MOVES[job.s] and MOVES[job.s][to]) then return false end
  unlist(job)
  redis.call('ZREM', 'd:i:' .. job.p .. ':' .. job.s, job.id)
  redis.call('ZADD', 'd:i:' .. job.p .. ':' .. to, now, job.id)
  local was = job.s
  job.s = to
  note(job, now, detail)
  if was == 'sent' then unwatch(job) end
  local watched = to == 'sent' and string.sub(redis.call('HGET', job_key(job.id), 'w') or '', 1, 8) == 'receipt '
  redis.call('HDEL', job_key(job.id), 'u', watched and 'u' or 'w')
  if to == 'failed' or to == 'expired' or to == 'cancelled' then redis.call('HDEL', job_key(job.id), 'vx') end
  if was == 'sent' or was == 'unknown' then redis.call('ZREM', 'd:f:' .. job.p, job.id) end
  if to == 'unknown' then redis.call('ZADD', 'd:f:' .. job.p, now + FIRST_LOOK, job.id) end
  if GOOD[to] then redis.call('HDEL', job_key(job.id), 'e') end
  if taken then
    hand_over(job, taken, now)
    redis.call('HSET', job_key(job.id), 'y', to == 'sent' and 'expected' or 'received')
    if to == 'sent' then redis.call('ZADD', 'd:f:' .. taken, now + FIRST_LOOK, job.id) end
  end
  if to == 'sent' or to == 'delivered' or to == 'undelivered' then count_taken(job, job.told or {}, now) end
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

-- Let a queued job wait until `due`, for `reason`; the clock brings it back. `lined`: in its line, for its turn.
local function park(job, reason, due, lined)
  -- Lifted meanwhile: whoever lets such jobs go on has been here already.
  if reason == 'suspended' and redis.call('EXISTS', 'd:s:' .. job.p) == 0 then due = math.min(due, now_ms()) end
  redis.call('ZREM', 'd:o:' .. queue_of(job), job.id)
  redis.call('ZREM', line_key(queue_of(job), job.b or '', job.tn), job.id)
  if lined then
    redis.call('ZREM', 'd:w:' .. queue_of(job), job.id)
    line_up(queue_of(job), job.id, job.b or '', job.tn, string.match(job.h, '^%d+'))
  else
    redis.call('ZADD', 'd:w:' .. queue_of(job), due, job.id)
  end
  redis.call('HSET', job_key(job.id), 'w', reason .. ' ' .. int(due))
  redis.call('HDEL', job_key(job.id), 'u', 'k')
end

-- End a job without asking the provider.
local function fail(job, to, now, detail, kind, code, keep)
  if not move(job, to, now, detail, keep) or GOOD[job.s] then return end
  redis.call('HSET', job_key(job.id), 'e', cjson.encode({kind = kind, code = code, message = detail}))
end

-- End a text to somebody who wants none.
local function leave_alone(job, now, keep)
  fail(job, 'failed', now, 'opted_out: they asked for no more texts', 'opted_out', 'list', keep)
end

-- End a text to a country that nobody is texted in; answers whether it did.
local function shut_out(job, country, now, keep)
  local told = country ~= '' and redis.call('HGET', 'd:kc', country)
  if not told then return false end
  local why = 'country: nobody is texted in ' .. country .. string.gsub(told, '^%d+ ?(.*)$', function(reason)
    return reason ~= '' and ' (' .. reason .. ')' or ''
  end)
  fail(job, 'failed', now, why, 'refused', 'country', keep)
  return true
end

local function batch_cancelled(job)
  return job.b and redis.call('HEXISTS', batch_key(job.b), 'c') == 1
end

-- Let a job that came back to the queue wait until `due`; of a batch that was cancelled meanwhile it is taken back, and
-- what would be tried again too late is not left waiting for that.
local function wait_again(job, reason, due, now, keep)
  if batch_cancelled(job) then
    fail(job, 'cancelled', now, 'its batch was cancelled by the caller', 'refused', 'cancelled', keep)
  elseif reason == 'retry' and job.z and job.z <= due then
    fail(job, 'expired', now, 'its time passes before it is tried again', 'expired', '', keep)
  else
    park(job, reason, due)
  end
end

-- Let a job go on to the next account though it was taken, as the caller asked: `how` says what became of it ("sent" for
-- nothing yet, "undelivered"). Answers whether it does.
local function fail_over(job, how, now, detail, keep)
  local account, position, asked = following(job)
  if not (account and asked) or (job.z and job.z <= now) or batch_cancelled(job) then return false end
  local from, words = job.p, 'moves to ' .. account .. ': ' .. detail
  if job.s == 'queued' then
    note(job, now, words)
  elseif not move(job, 'queued', now, words, keep) then
    return false
  end
  job.i = how .. ' ' .. from
  redis.call('HSET', job_key(job.id), 'i', job.i)
  go_on(job, account, position, now)
  wait_again(job, 'retry', now, now, keep)
  return true
end

-- Whether news say that the person wants no more texts: then no other account sends one.
local function wants_none(word)
  for f = 1, #word.fields, 2 do
    if word.fields[f] == 'e' and string.find(word.fields[f + 1], '"opted_out"', 1, true) then return true end
  end
  return false
end

-- What news of an account that a job has left still mean: that it was taken or is there, and nothing else.
local function late_word(job, to, account)
  if to == 'undelivered' and job.i == 'sent ' .. account then
    job.i = 'undelivered ' .. account
    redis.call('HSET', job_key(job.id), 'i', job.i)
  end
  if to == 'delivered' or (to == 'sent' and not taken_by(job, account)) then return to end
  return ''
end

-- Take in what `account` told of a job afterwards: `word` has to (a state, or "" for what decides nothing), detail, part,
-- parts, and the fields to set, in turn. Answers whether it moved the job: news that came before, or leads back, does not.
local function hear(job, word, now, keep, account)
  local key, to, detail, ours = job_key(job.id), word.to, word.detail, account == job.p
  local parts_of = ours and 'yp' or 'yp ' .. account
  local told = word.parts > 1 and redis.call('HGET', key, parts_of) or ' '
  if word.parts > 1 and to == 'undelivered' then
    redis.call('HSET', key, parts_of, FAILED)
  elseif told == FAILED then
    to = ''
  elseif word.parts > 1 and to == 'delivered' then
    -- Delivered is what all parts are.
    if not string.find(told, ' ' .. word.part .. ' ', 1, true) then told = told .. word.part .. ' ' end
    redis.call('HSET', key, parts_of, told)
    local _, parts = string.gsub(told, '%d+', '')
    if parts < word.parts then to, detail = '', 'part ' .. word.part .. ' of ' .. word.parts .. ': ' .. detail end
  end
  if not ours then to = late_word(job, to, account) end
  if to == '' then
    local line = ' ' .. account .. ' ' .. detail .. '\n'
    if SETTLED[job.s] and detail ~= '' and not string.find(job.h .. '\n', line, 1, true) then
      note(job, now, detail, account)
    end
    return false
  end
  if not (MOVES[job.s] and MOVES[job.s][to]) then return false end
  if to == 'undelivered' and not wants_none(word) and fail_over(job, to, now, detail, keep) then
    -- Its failure says why, until it is taken elsewhere.
    for f = 1, #word.fields, 2 do
      if word.fields[f] == 'e' and not GOOD[job.s] then redis.call('HSET', key, 'e', word.fields[f + 1]) end
    end
    return true
  end
  if to == 'failed' then
    -- That nothing was seen says nothing of a try that began after somebody looked.
    if job.s ~= 'unknown' then return false end
    -- It is known now that no try was taken, unless another account took one.
    if job.i == '1' then
      job.i = nil
      redis.call('HDEL', key, 'i')
    end
  end
  hand_over(job, account, now)
  job.told = word.fields
  if not move(job, to, now, detail, keep) then return false end
  if job.s ~= to then return true end
  if to == 'delivered' or to == 'undelivered' then redis.call('HSET', key, 'y', 'received') end
  if #word.fields > 0 then redis.call('HSET', key, unpack(word.fields)) end
  count_price(job, word.fields, now)
  return true
end


-- Expect a receipt of `account`, and take in those that came before there was anybody to expect one. `hash` finds it,
-- `look` is in how many ms it is asked for, `waited` how many ms it is waited for.
local function expect(job, hash, look, waited, now, keep, account)
  redis.call('SET', 'd:y:' .. hash, job.id, 'PX', waited)
  if job.p == account then redis.call('ZADD', 'd:f:' .. account, now + look, job.id) end
  local early = 'd:ye:' .. hash
  for _, word in ipairs(redis.call('LRANGE', early, 0, -1)) do hear(job, cjson.decode(word), now, keep, account) end
  redis.call('DEL', early)
  redis.call('ZREM', 'd:cu', account .. ' ' .. hash)
end

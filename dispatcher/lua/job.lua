-- What every script shares: keys, time, and the one way a job moves. Put before each of them, after the state tables,
-- writes.lua and usage.lua.
--
-- A job is a hash, d:j:<id>:
--   d  its public part, JSON          x  its private part, sealed where there is a key
--   p  provider                       l  "1" in the high lane
--   s  state                          n  lines of history so far
--   h  history: lines of "<ms> <state> <provider> <detail>"
-- and, where there is something to say:
--   z  useless after this ms          w  "<reason> <ms>": what it waits for, and until when
--   b  batch                          a  attempts             tn tenant
--   u  "<ms> <token>": in the hands of whoever took it, until then; "" once it went on
--   k  times taken without a claim, where it is not the one that `u` tells of
--   f  token it was claimed with      o  may it be repeated when its worker dies: once, always, resend (once by the
--                                        caller's instruction: where no earlier try may have been taken), or never
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
--   vl what became of the codes that its provider was asked about, as `codes.lua` says
--   vn the verification that a resend made of it, whose code is the right one since
--   vg "<hash> <ms>" of the number's prefix, where it is watched how many codes are approved, and the time of that
--   qh when the quiet hours end, or ended, that it waited for
--   rd the job that was made of it by a redrive
--   ps "1": it goes to people who want no texts, too
--   bl the hash of its number, where its account is known to block that: no more, should it get through
--   kp ms that it is kept once it settled, where others are kept for longer
--   cb who is told of it: "<endpoint>[,<endpoint>] <where, sealed> <what may be shown of each>"; "-" for nobody
--   fg the ms at which its person was forgotten: then `x` is empty, and what writes.lua names stays
--   ge, gb, gu  what it uses up and costs, as `usage.lua` says
--   lk "<hash of a number>:<account>" of a lookup that asks for others, too, as `recall.lua` says
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
--     o  open: more jobs may follow      c  cancelled: none may      e  its settling was told      cb as a job's
--   d:f:<provider>  ids of jobs whose fate is not known yet, by the ms they are asked about or given up
--   d:fo            ids that are sent, by the ms at which they go on to the next account unless a receipt came
--   d:y:<hash>    the job that a receipt with this reference is for           d:ye:<hash>  receipts that came before it
--   d:v           ids with a code of ours or a card, by the ms to look whether it can be erased
--   d:n:<day>     sorted set of "<hash of a number> <id>", all of score 0, of jobs that will be over for as long as they
--                 are kept by the end of that day            d:nd  those days, by the ms they end at
--   d:k:<hash>    "<id> <fingerprint>" of the job that an idempotency key made
--   d:no          hash of those who want no more texts: number's hash, or "<number's hash> <scope's hash>", to
--                 "<ms> <by>", and where there is a key " <what is kept of it, sealed>"; "+<ms>" for who wants them
--                 again since then, though an account blocks them
--   d:nb          hash of whom accounts block themselves: number's hash to "<account> <ms> ..."
--   d:ni:<field of d:no>  the ms at which somebody last wanted texts again
--   d:nt:<word>:<number's hash>  answers to that word in this hour
--   d:cd:<hash>   texts that were told before: "1", or the callback that is owed an answer
--   d:lk:<hash>, d:lk:<hash>:<account>  what lookups found of a number, and who asks now, as `recall.lua` says
--   d:cb:<id>     hash of a callback that is to be read: a account, t ms it came at, x it, sealed, k times taken
--   d:co:<account>  ids of its callbacks, by the ms they were published        d:ca           accounts with callbacks
--   d:cx          ids of callbacks that were set aside, by the ms              d:cn           what came of callbacks
--   d:vg:<guard>:<ms>[s]:<of>  codes of a window, as `guards.lua` says         d:vc:<hash>   those of a prefix, and approved
--   d:vx          prefixes that are closed, by the ms they are open again      d:vx:c:<hash> what is known of one
--   d:vx:t:<guard>:<of>     hash: refusals that were not told of yet, and the ms of the last that was
--   d:cu          "<account> <hash>" of receipts that came early, by the ms they are given up
--   d:s:<account> what it cannot do until its operator mends it, as `suspend.lua` says
--   d:e           the event stream                                             d:et           the last entry trimmed
--   d:t...        what consumers are to be told, as `notices.lua` says
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

-- Slices that a window of codes is counted in, where it is not kept when each was sent.
local SLICES = 60

-- Jobs of a queue that may be with its workers at once before anybody knows how fast they are.
local FIRST_OUT = 500

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
  return job.v.l and job.p .. '.high' or job.p
end

-- A job as it is by now: `v` has its fields, which `set` changes, and beside it stands what scripts ask for: sixteen at
-- most, since Lua doubles a table, and allocating the double of that is dear.
local function load(id)
  local one = read_job(id)
  local v = one and one.v
  if not (v and v.s) then return nil end
  local job = {
    id = id, v = v, s = v.s, p = v.p, n = tonumber(v.n), h = v.h, b = v.b, f = v.f, a = tonumber(v.a or 0),
    z = tonumber(v.z), i = v.i, k = tonumber(v.k or 0), held = 0, tn = v.tn or '',
  }
  if v.u and v.u ~= '' then
    local held, taker = string.match(v.u, '^(%d+) (%S+)$')
    job.held, job.taker = tonumber(held), taker
    if not v.k then job.k = 1 end
  end
  return job
end

-- When a job was made, in ms as text.
local function created(job)
  return string.match(job.h, '^%d+')
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
  set(job, 's', job.s)
  set(job, 'n', job.n)
  set(job, 'h', job.h)
end

-- Events of jobs, in the order in which they came up.
local events = {}

-- The ids of the endpoints that a callback `cb` names; "-" for nobody.
local function endpoints(callback)
  return string.match(callback, '^%S+')
end

-- `callback` is what the job has of it, if anything.
local function emit(event, id, n, callback)
  events[#events + 1] = {event, id, n, callback}
end

local function write_events()
  for _, one in ipairs(events) do
    if one[4] then
      redis.call('XADD', 'd:e', '*', 't', one[1], 'i', one[2], 'n', one[3], 'u', endpoints(one[4]))
    else
      redis.call('XADD', 'd:e', '*', 't', one[1], 'i', one[2], 'n', one[3])
    end
  end
  events = {}
end

local function batch_key(batch)
  return 'd:b:' .. batch
end

-- What this call changed of batches: by name the counts that moved, whether to look after it, and how long it is kept
-- once it settled. In the order in which they were met.
local batches, met = {}, {}

local function batch_of(name, keep)
  local batch = batches[name]
  if not batch then
    batch = {name = name, counts = {}}
    batches[name] = batch
    met[#met + 1] = batch
  end
  batch.keep = keep or batch.keep
  return batch
end

local function count_in(name, field, by)
  local batch = batch_of(name)
  batch.counts[field] = (batch.counts[field] or 0) + by
  -- Though it may have settled again when the call ends: then that is told again.
  if by > 0 and not SETTLED[field] then batch.was_busy = true end
end

-- See to a batch of which something changed, at the end of the call: once none of its jobs is busy and no more may
-- follow, its settling is told; it is kept while one is busy, and for as long as its jobs afterwards.
local function look_after(name, keep)
  batch_of(name, keep).look = true
end

-- Tell that a batch settled, with its counts as they are now.
local function emit_settled(name, key)
  local stored, counts, cancelled, callback = redis.call('HGETALL', key), {}, 0, nil
  for i = 1, #stored, 2 do
    if SETTLED[stored[i]] and tonumber(stored[i + 1]) > 0 then
      counts[#counts + 1] = stored[i] .. ' ' .. stored[i + 1]
    end
    if stored[i] == 'c' then cancelled = 1 end
    if stored[i] == 'cb' then callback = stored[i + 1] end
  end
  local told = {'t', 'batch.settled', 'i', name, 'b', table.concat(counts, ','), 'c', cancelled}
  if callback then told[9], told[10] = 'u', endpoints(callback) end
  redis.call('XADD', 'd:e', '*', unpack(told))
end

local function see_to(batch)
  local key = batch_key(batch.name)
  local v = redis.call('HMGET', key, 'queued', 'sending', 'f', 'o', 'e')
  local busy, open, told = tonumber(v[1] or 0) + tonumber(v[2] or 0) + tonumber(v[3] or 0) > 0, v[4], v[5]
  if told and (busy or batch.was_busy) then
    told = redis.call('HDEL', key, 'e') == 0
  end
  if not (busy or open or told) then
    redis.call('HSET', key, 'e', '1')
    emit_settled(batch.name, key)
  end
  for _, one in ipairs({key, key .. ':j'}) do
    if busy then redis.call('PERSIST', one) else redis.call('PEXPIRE', one, batch.keep) end
  end
end

local function write_batches()
  for _, batch in ipairs(met) do
    local key, busy = batch_key(batch.name), false
    for field, by in pairs(batch.counts) do
      local count = by ~= 0 and redis.call('HINCRBY', key, field, by) or 0
      if (field == 'queued' or field == 'sending') and count > 0 then busy = true end
      if field == 'f' and by ~= 0 and count <= 0 then redis.call('HDEL', key, 'f') end
    end
    -- Of one that was busy, and is, there is nothing to see to.
    if batch.look or (batch.settles and not busy) then see_to(batch) end
  end
  batches, met = {}, {}
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

-- See to a line that somebody `joined`, or something was taken from: it takes turns as long as somebody stands in it.
local function tidy_line(queue, batch, tenant, joined)
  local batches = 'd:qb:' .. queue .. ':' .. tenant
  if redis.call('EXISTS', line_key(queue, batch, tenant)) == 1 then
    if not joined then return end
    join(batches, batch)
    join('d:qt:' .. queue, tenant)
  else
    redis.call('ZREM', batches, batch)
    if redis.call('EXISTS', batches) == 0 then redis.call('ZREM', 'd:qt:' .. queue, tenant) end
  end
end

-- Lines that this call put somebody into, or may have taken somebody from.
local lines = {}

local function line_of(queue, batch, tenant)
  local key = line_key(queue, batch, tenant)
  lines[key] = lines[key] or {queue = queue, batch = batch, tenant = tenant}
  return key, lines[key]
end

-- Put a queued job into the line of its tenant and batch, behind those that were made before it.
local function line_up(queue, id, batch, tenant, made)
  local key, line = line_of(queue, batch, tenant)
  line.joined = true
  zadd(key, made, id)
end

local function leave_line(job)
  zrem(line_of(queue_of(job), job.b or '', job.tn), job.id)
end

-- Write all that this call has changed until now; each call does so at its end.
local function write_all()
  local left = leave_sets()
  write_jobs()
  join_sets()
  write_events()
  for key, line in pairs(lines) do
    if line.joined or (left[key] or 0) > 0 then tidy_line(line.queue, line.batch, line.tenant, line.joined) end
  end
  lines = {}
  write_usage()
  write_batches()
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
    zrem('d:o:' .. queue_of(job), job.id)
    -- What is in somebody's hands came from the outbox, and is nowhere else.
    if not job.taker then
      zrem('d:w:' .. queue_of(job), job.id)
      leave_line(job)
    end
    if job.z then zrem('d:x', job.id) end
  elseif job.s == 'sending' then
    zrem('d:l', job.id)
  end
end

-- Count a move in the job's batch.
local function count(name, from, to, keep)
  count_in(name, from, -1)
  count_in(name, to, 1)
  local batch = batch_of(name, keep)
  if SETTLED[from] then batch.look = true elseif SETTLED[to] then batch.settles = true end
end

-- Keep a job's idempotency key for as long as was asked for once the job settled, or until further notice; by now it may
-- be another job's.
local function keep_key(job, settled)
  if not job.v.ik then return end
  local ms, key = string.match(job.v.ik, '^(%d+) (.+)$')
  local known = redis.call('GET', 'd:k:' .. key)
  if not known or string.match(known, '^%S+') ~= job.id then return end
  if settled then redis.call('PEXPIRE', 'd:k:' .. key, ms) else redis.call('PERSIST', 'd:k:' .. key) end
end

-- What a job's public part says of where it may go: the accounts in order, and how many seconds after it was sent it
-- goes on to the next one, where the caller asked for that.
local function route_of(job)
  local told, public = pcall(public_of, job)
  if not told or type(public) ~= 'table' then return {} end
  return public.route or {}, public.failover_after
end

-- The position on its route of the last account that a job came to.
local function gone(job)
  return tonumber(job.v.rt or 1)
end

-- The account after the one that has a job, and its position on the route; none where the job went the whole way. What
-- came back to an account that it had left goes on from where it was.
local function following(job)
  local route, watched = route_of(job)
  local at = gone(job)
  for position, account in ipairs(route) do
    if account == job.p then at = math.max(at, position) end
  end
  return route[at + 1], at + 1, watched
end

-- Whether a job is, or was, with this account.
local function came_to(job, account)
  if job.p == account then return true end
  local route = route_of(job)
  for position = 1, gone(job) do
    if route[position] == account then return true end
  end
  return false
end

-- End the lead of a lookup that others wait for; answers these.
local function end_lead(job)
  if not job.v.lk then return {} end
  local key, followers, ids, led_by_another = 'd:lk:' .. job.v.lk, {}, {}, false
  set(job, 'lk', nil)
  local stored = redis.call('HGETALL', key)
  for i = 1, #stored, 2 do
    if stored[i] == 'l' then
      led_by_another = string.match(stored[i + 1], '^%S+') ~= job.id
    else
      ids[#ids + 1] = stored[i]
      local one = load(stored[i])
      local waits = one and one.s == 'queued' and string.sub(one.v.w or '', 1, 7) == 'lookup '
      if waits then followers[#followers + 1] = one end
    end
  end
  if led_by_another then in_portions('HDEL', key, ids, 1) else redis.call('DEL', key) end
  return followers
end

-- Let those go on that wait for what this lookup finds: they find its answer, or one of them asks.
local function let_follow(job, now)
  for _, one in ipairs(end_lead(job)) do
    zadd('d:w:' .. queue_of(one), now, one.id)
    set(one, 'w', 'lookup ' .. int(now))
  end
end

-- The accounts that block a number themselves, and since when.
local function blocks_of(number)
  local found = {}
  for account, at in string.gmatch(redis.call('HGET', 'd:nb', number) or '', '(%S+) (%d+)') do found[account] = at end
  return found
end

local function write_blocks(number, blocks)
  local words = {}
  for account, at in pairs(blocks) do words[#words + 1] = account .. ' ' .. at end
  if #words > 0 then
    redis.call('HSET', 'd:nb', number, table.concat(words, ' '))
  else
    redis.call('HDEL', 'd:nb', number)
    -- That they want texts is nothing to remember then: so does everybody who is not on the list.
    if string.sub(redis.call('HGET', 'd:no', number) or '', 1, 1) == '+' then redis.call('HDEL', 'd:no', number) end
  end
end

local function block(number, account, at)
  local blocks = blocks_of(number)
  blocks[account] = int(at)
  write_blocks(number, blocks)
end

local function unblock(number, account)
  local blocks = blocks_of(number)
  if not blocks[account] then return end
  blocks[account] = nil
  write_blocks(number, blocks)
end

-- Find out which of these texts go to somebody who wants none. Each has number (its hash) and scopes (the hashes of its
-- tenant, its sender and both), and gets `alone` where one of these is on the list, `blocked` where they want texts, and
-- accounts block them all the same.
local function ask_list(texts)
  local fields, whose = {}, {}
  local function ask(field, text)
    fields[#fields + 1], whose[#whose + 1] = field, text
  end
  for _, text in ipairs(texts) do
    ask(text.number, text)
    if text.scopes and text.scopes ~= '' then
      for scope in string.gmatch(text.scopes, '%S+') do ask(text.number .. ' ' .. scope, text) end
    end
  end
  if #fields == 0 then return end
  for i, told in ipairs(redis.call('HMGET', 'd:no', unpack(fields))) do
    if told and string.sub(told, 1, 1) == '+' then whose[i].blocked = true elseif told then whose[i].alone = true end
  end
end

-- Let another account have a job, in the state it is in: what belongs to a try stays with the account that made it. One
-- that is queued is put nowhere to wait.
local function hand_over(job, account, now)
  if job.p == account then return end
  local from, v = job.p, job.v
  let_follow(job, now)
  unlist(job)
  zrem('d:i:' .. from .. ':' .. job.s, job.id)
  zrem('d:f:' .. from, job.id)
  for _, field in ipairs({'m', 'y', 'vb', 'bl'}) do set(job, field, nil) end
  for _, field in ipairs({'yp', 'gu'}) do
    local ours, theirs = v[field], v[field .. ' ' .. account]
    set(job, field, theirs)
    set(job, field .. ' ' .. account, nil)
    if ours then set(job, field .. ' ' .. from, ours) end
  end
  for who, ref in string.gmatch(v.t or '', '%d+ (%S+) accepted ([^\n]*)') do
    if who == account and ref ~= '' then set(job, 'm', ref) end
  end
  job.p = account
  set(job, 'p', account)
  redis.call('SADD', 'd:p', account)
  zadd('d:i:' .. account .. ':' .. job.s, now, job.id)
  if job.s == 'queued' and job.z then zadd('d:x', job.z, job.id) end
end

-- Let the next account of its route have a queued job.
local function go_on(job, account, position, now)
  set(job, 'rt', position)
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
  zadd('d:fo', now + ms, job.id)
  local watched = job.v.w
  set(job, 'w', 'receipt ' .. int(now + ms))
  if watched or not job.b then return end
  count_in(job.b, 'f', 1)
  look_after(job.b, keep)
end

-- Let it stay where it is; whoever calls looks after its batch.
local function unwatch(job)
  zrem('d:fo', job.id)
  if not job.v.w then return end
  set(job, 'w', nil)
  if job.b then count_in(job.b, 'f', -1) end
end

-- Take a job out of the hands of whoever took it. To erase the field would cost a command of its own.
local function let_go(job)
  if job.taker then set(job, 'u', '') end
  job.taker, job.held = nil, 0
end

-- Whether a move shows that a text got through: it was delivered, or taken where no receipt would tell.
local function gets_through(job, to)
  if to ~= 'sent' then return to == 'delivered' end
  for f = 1, #(job.told or {}), 2 do
    if job.told[f] == 'y' then return job.told[f + 1] == 'none' end
  end
  return false
end

-- Where a moment is counted for the prefix of a verification's number; none where its codes are not watched.
local function watched_slice(job, letter, at)
  local hash, ms = string.match(job.v.vg or '', '^(%S+) (%d+)$')
  if hash then return 'd:vc:' .. hash, letter .. int(math.floor(at / (ms / SLICES))) end
end

-- That nobody typed a code says nothing where it was never sent.
local function uncount_code(job)
  local key, slice = watched_slice(job, 's', tonumber(created(job)))
  if key and tonumber(redis.call('HGET', key, slice) or 0) > 0 then redis.call('HINCRBY', key, slice, -1) end
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
  if not (MOVES[job.s] and MOVES[job.s][to]) or (to == 'queued' and job.v.fg) then return false end
  unlist(job)
  zrem('d:i:' .. job.p .. ':' .. job.s, job.id)
  zadd('d:i:' .. job.p .. ':' .. to, now, job.id)
  local was = job.s
  job.s = to
  note(job, now, detail)
  let_go(job)
  if was == 'sent' then unwatch(job) end
  local watched = to == 'sent' and string.sub(job.v.w or '', 1, 8) == 'receipt '
  if not watched then set(job, 'w', nil) end
  if to == 'failed' or to == 'expired' or to == 'cancelled' then
    set(job, 'vx', nil)
    uncount_code(job)
  end
  if was == 'sent' or was == 'unknown' then zrem('d:f:' .. job.p, job.id) end
  if to == 'unknown' then zadd('d:f:' .. job.p, now + FIRST_LOOK, job.id) end
  if GOOD[to] then set(job, 'e', nil) end
  if taken then
    hand_over(job, taken, now)
    set(job, 'y', to == 'sent' and 'expected' or 'received')
    if to == 'sent' then zadd('d:f:' .. taken, now + FIRST_LOOK, job.id) end
  end
  if to == 'sent' or to == 'delivered' or to == 'undelivered' then count_taken(job, job.told or {}, now) end
  if job.v.bl and gets_through(job, to) then
    unblock(job.v.bl, job.p)
    set(job, 'bl', nil)
  end
  if SETTLED[to] then
    let_follow(job, now)
    set(job, 'xc', nil)
    keep_job(job, job.v.kp or keep)
    keep_key(job, true)
    emit('job.' .. to, job.id, job.n, job.v.cb)
  elseif SETTLED[was] then
    keep_job(job)
    keep_key(job, false)
  end
  if job.b then count(job.b, was, to, keep) end
  if to == 'queued' and job.z then zadd('d:x', job.z, job.id) end
  return to
end

local function park_one(job, reason, due, lined)
  -- Lifted meanwhile: whoever lets such jobs go on has been here already.
  if reason == 'suspended' and redis.call('EXISTS', 'd:s:' .. job.p) == 0 then due = math.min(due, now_ms()) end
  zrem('d:o:' .. queue_of(job), job.id)
  if lined then
    zrem('d:w:' .. queue_of(job), job.id)
    line_up(queue_of(job), job.id, job.b or '', job.tn, created(job))
  else
    leave_line(job)
    zadd('d:w:' .. queue_of(job), due, job.id)
  end
  set(job, 'w', reason .. ' ' .. int(due))
  if reason == 'quiet_hours' then set(job, 'qh', int(due)) end
  set(job, 'u', nil)
  set(job, 'k', nil)
  job.taker, job.held = nil, 0
end

-- Let a queued job wait until `due`, for `reason`; the clock brings it back. `lined`: in its line, for its turn. Those
-- that waited for what it finds wait as it does.
local function park(job, reason, due, lined)
  park_one(job, reason, due, lined)
  for _, one in ipairs(end_lead(job)) do park_one(one, reason, due, lined) end
end

-- End a job without asking the provider.
local function fail(job, to, now, detail, kind, code, keep)
  if not move(job, to, now, detail, keep) or GOOD[job.s] then return end
  set(job, 'e', cjson.encode({kind = kind, code = code, message = detail}))
end

-- End a text that is useless before the quiet hours end.
local function expire_quiet(job, now, why, keep)
  fail(job, 'expired', now, why .. '; its time passes before that', 'expired', 'quiet_hours', keep)
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

-- Whether it is a verification that needs no code any more: it was approved, or taken back.
local function code_is_over(job)
  return job.v.vs and job.v.vs ~= 'pending'
end

-- Let a job go on to the next account though it was taken, as the caller asked: `how` says what became of it ("sent" for
-- nothing yet, "undelivered"). Answers whether it does.
local function fail_over(job, how, now, detail, keep)
  local account, position, asked = following(job)
  if not (account and asked) or (job.z and job.z <= now) or batch_cancelled(job) or code_is_over(job) then return false end
  local from, words = job.p, 'moves to ' .. account .. ': ' .. detail
  if job.s == 'queued' then
    note(job, now, words)
  elseif not move(job, 'queued', now, words, keep) then
    return false
  end
  job.i = how .. ' ' .. from
  set(job, 'i', job.i)
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
    set(job, 'i', job.i)
  end
  if to == 'delivered' or (to == 'sent' and not taken_by(job, account)) then return to end
  return ''
end

-- Take in what `account` told of a job afterwards: `word` has to (a state, or "" for what decides nothing), detail, part,
-- parts, and the fields to set, in turn. Answers whether it moved the job: news that came before, or leads back, does not.
local function hear(job, word, now, keep, account)
  local to, detail, ours = word.to, word.detail, account == job.p
  local parts_of = ours and 'yp' or 'yp ' .. account
  local told = word.parts > 1 and job.v[parts_of] or ' '
  if word.parts > 1 and to == 'undelivered' then
    set(job, parts_of, FAILED)
  elseif told == FAILED then
    to = ''
  elseif word.parts > 1 and to == 'delivered' then
    -- Delivered is what all parts are.
    if not string.find(told, ' ' .. word.part .. ' ', 1, true) then told = told .. word.part .. ' ' end
    set(job, parts_of, told)
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
      if word.fields[f] == 'e' and not GOOD[job.s] then set(job, 'e', word.fields[f + 1]) end
    end
    return true
  end
  if to == 'failed' then
    -- That nothing was seen says nothing of a try that began after somebody looked.
    if job.s ~= 'unknown' then return false end
    -- It is known now that no try was taken, unless another account took one.
    if job.i == '1' then
      job.i = nil
      set(job, 'i', nil)
    end
  end
  hand_over(job, account, now)
  job.told = word.fields
  if not move(job, to, now, detail, keep) then return false end
  if job.s ~= to then return true end
  if to == 'delivered' or to == 'undelivered' then set(job, 'y', 'received') end
  set_all(job, word.fields)
  count_price(job, word.fields, now)
  return true
end

-- References that no receipt came for before there was anybody to expect one, as far as this call knows.
local not_early = {}

-- Ask at once for all of these; there are hardly ever any.
local function look_for_early(hashes)
  local keys = {}
  for i, hash in ipairs(hashes) do keys[i] = 'd:ye:' .. hash end
  if #keys == 0 or redis.call('EXISTS', unpack(keys)) > 0 then return end
  for _, hash in ipairs(hashes) do not_early[hash] = true end
end

-- Expect a receipt of `account`, and take in those that came before there was anybody to expect one. `hash` finds it,
-- `look` is in how many ms it is asked for, `waited` how many ms it is waited for.
local function expect(job, hash, look, waited, now, keep, account)
  redis.call('SET', 'd:y:' .. hash, job.id, 'PX', waited)
  if job.p == account then zadd('d:f:' .. account, now + look, job.id) end
  if not_early[hash] then return end
  local early = 'd:ye:' .. hash
  for _, word in ipairs(redis.call('LRANGE', early, 0, -1)) do hear(job, cjson.decode(word), now, keep, account) end
  redis.call('DEL', early)
  redis.call('ZREM', 'd:cu', account .. ' ' .. hash)
end

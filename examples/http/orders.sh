#!/bin/sh
# A service that knows HTTP and nothing else: tell a customer, and follow what became of it until it is settled.
#
#   API=http://127.0.0.1:8480 TOKEN=disp_... sh examples/http/orders.sh 17 +447700900001
set -eu
order=$1 to=$2

# One of an object's fields, for a shell without jq.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1; }

ask() { curl -sS --fail-with-body -H "Authorization: Bearer $TOKEN" "$@"; }

# News from here on: no event of this job can be missed.
cursor=$(ask "$API/v1/events" | field cursor)

# The same key again, after an answer that got lost, is the same text.
job=$(ask "$API/v1/messages" -H "Idempotency-Key: \"order-$order-shipped\"" \
  --json "{\"to\": \"$to\", \"text\": \"Order $order is on its way\", \"provider\": \"textgoto\", \"reference\": \"order-$order\"}") ||
  { printf '%s\n' "$job" >&2; exit 1; }
id=$(printf '%s' "$job" | field id)

# Its latest state, which is the last of its history: of a repeated request it may be the end already.
while state=$(printf '%s' "$job" | field state) && { [ "$state" = queued ] || [ "$state" = sending ]; }; do
  page=$(ask "$API/v1/events?after=$cursor&wait=20&types=job.*")
  cursor=$(printf '%s' "$page" | field cursor)
  case $page in *"\"id\":\"$id\""*) job=$(ask "$API/v1/jobs/$id") ;; esac
done
printf 'order %s: %s\n' "$order" "$state"

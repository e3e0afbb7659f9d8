#!/usr/bin/env bash
# What README.md walks through, by API: a conflict through the front door, a node that goes away and is suspected,
# hints, its return and their replay, the merge. Every step checks what it sees; the first that does not see it
# ends with 1.
#
#   compose/scenario.sh [FRONT NODE…]     http://127.0.0.1:8080 and the six published nodes, if none is named
#
# FRONT is where clients go (nginx, or any node), NODE… are all nodes. Between buckets and keys of its own it touches
# nothing. It needs bash, curl and jq. How a node goes and comes is set from outside; the node's id is added:
#
#   STOP='docker compose -f compose/compose.yaml stop'      START='docker compose -f compose/compose.yaml start'
#   JAEGER=http://127.0.0.1:16686    also find the replay in Jaeger, linked to the write; left out: not looked at
#   PATIENCE=90                      seconds until something that is waited for must have happened
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$here/..
STOP=${STOP:-docker compose -f $here/compose.yaml stop}
START=${START:-docker compose -f $here/compose.yaml start}
PATIENCE=${PATIENCE:-90}
if [ $# -eq 0 ]; then
    set -- http://127.0.0.1:8080 http://127.0.0.1:707{1,2,3,4,5,6}
fi
[ $# -ge 5 ] || { echo "usage: scenario.sh FRONT NODE NODE NODE NODE… (with N=3, a hint needs a fourth node)" >&2; exit 2; }
front=$1
shift
nodes=("$@")

answer=$(mktemp -d)
stopped=
finish() {
    local status=$?
    # A scenario that failed does not leave a node away.
    if [ -n "$stopped" ]; then
        $START "$stopped" >&2 || true
    fi
    rm -rf "$answer"
    exit "$status"
}
trap finish EXIT

# --- small things ------------------------------------------------------------------------------------------

step() { printf '\n%s\n' "$*"; }
seen() { printf '  ✓ %s\n' "$*"; }
fail() {
    printf '  ✗ %s\n' "$*" >&2
    if [ -s "$answer/body" ]; then
        printf '    the last answer: %s %s\n' "$status" "$(head -c 600 "$answer/body")" >&2
    fi
    exit 1
}

# ask METHOD URL [curl's further arguments]; sets `status`, keeps head and body.
status=000
ask() {
    local method=$1 url=$2
    shift 2
    : >"$answer/body"
    : >"$answer/head"
    status=$(curl -s -m 15 -X "$method" -D "$answer/head" -o "$answer/body" -w '%{http_code}' "$url" "$@") || true
}
header() { tr -d '\r' <"$answer/head" | sed -n "s/^$1: //Ip" | tail -n 1; }
body() { jq -r "$@" <"$answer/body"; }
wants() { [[ " $1 " == *" $status "* ]] || fail "$2: expected $1, got $status"; }

# until_true WHAT COMMAND…: asks again until it holds.
until_true() {
    local what=$1 deadline=$((SECONDS + PATIENCE))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what: not within $PATIENCE s"
        sleep 0.5
    done
    seen "$what"
}

# Sum of the samples of a node's page that match; a page without any counts 0.
metric() { # URL PATTERN
    curl -s -m 10 "$1/metrics" | { grep -E "^$2" || true; } | awk '{ sum += $NF } END { print sum + 0 }'
}

declare -A id_of url_of
others() {
    local url
    for url in "${nodes[@]}"; do
        [ "${id_of[$url]}" = "$away" ] || echo "$url"
    done
}

is_ready() { ask GET "$1/health/ready" && [ "$status" = 200 ]; }
all_alive() {
    local url
    for url in "${nodes[@]}"; do
        ask GET "$url/v1/cluster"
        [ "$status" = 200 ] && [ "$(body '[.members[] | select(.state == "alive")] | length')" -eq "${#nodes[@]}" ] || return 1
    done
}
seen_as() { # STATE: by all others
    local url
    for url in $(others); do
        ask GET "$url/v1/cluster"
        [ "$(body --arg id "$away" '.members[] | select(.node_id == $id) | .state')" = "$1" ] || return 1
    done
}
pending() {
    local url sum=0
    for url in $(others); do
        ask GET "$url/v1/cluster/handoff"
        sum=$((sum + $(body --arg id "$away" '[.hints[] | select(.target == $id) | .count] | add // 0')))
    done
    echo "$sum"
}
hints_wait() { [ "$(pending)" -gt 0 ]; }
no_hints() { [ "$(pending)" -eq 0 ]; }
delivered() {
    local url sum=0
    for url in $(others); do
        sum=$((sum + $(metric "$url" 'sibyl_hints_total\{result="delivered"\}')))
    done
    echo "$sum"
}
more_delivered() { [ "$(delivered)" -gt "$1" ]; }
owners_agree() {
    ask GET "$key?explain=true"
    [ "$status" = 200 ] || return 1
    [ "$(body '[.preference_list[] | select(.role == "primary") | .object_digest] | length == 3 and (unique | length) == 1 and .[0] != null')" = true ]
}

# --- the scenario ------------------------------------------------------------------------------------------

step "0 The cluster is there"
for url in "${nodes[@]}"; do
    until_true "$url is ready" is_ready "$url"
    ask GET "$url/v1/cluster"
    id=$(body .node_id)
    id_of[$url]=$id
    url_of[$id]=$url
done
until_true "$front serves" is_ready "$front"
until_true "all ${#nodes[@]} nodes see each other alive" all_alive

run=$(date +%s)-$$
bucket=$front/v1/buckets/scenario-$run
key=$bucket/keys/cart
ask PUT "$bucket" -H 'Content-Type: application/json' -d '{}'
wants "200 201 204" "a bucket of its own"
coordinators=$(for _ in $(seq 24); do
    ask GET "$front/v1/cluster"
    body .node_id
done | sort | uniq -c | awk '{ printf "%s %s  ", $2, $1 }')
echo "  24 requests went to: $coordinators"

step "1 Two clients read the same and write without knowing of each other"
ask PUT "$key" -H 'Content-Type: application/json' -H "Idempotency-Key: first-$run" -d '{"items":{"book":1}}'
wants 204 "the first write"
ask GET "$key"
wants 200 "the read"
context=$(header sibyl-context)
ask PUT "$key" -H "Sibyl-Context: $context" -H "Idempotency-Key: more-$run" -d '{"items":{"book":2}}'
wants 204 "one write"
seen "one took two books: $(header sibyl-acks), coordinator $(header sibyl-coordinator), trace $(header sibyl-trace-id)"
ask PUT "$key" -H "Sibyl-Context: $context" -H "Idempotency-Key: lamp-$run" -d '{"items":{"book":1,"lamp":1}}'
wants 204 "the other write"
seen "the other a lamp: $(header sibyl-acks), coordinator $(header sibyl-coordinator), trace $(header sibyl-trace-id)"
ask GET "$key"
wants 300 "a read of a conflict without a resolver"
[ "$(body '.siblings | length')" -eq 2 ] || fail "two siblings"
seen "a read shows both (300), neither is lost"
ask PUT "$key" -H "Sibyl-Context: $context" -H "Idempotency-Key: lamp-$run" -d '{"items":{"book":1,"lamp":1}}'
wants 204 "a repeated write"
[ "$(header sibyl-repeated)" = true ] || fail "the repeated write is recognised"
seen "a write sent again is recognised, and nothing new"

step "2 An owner of the key goes away"
ask GET "$key?explain=true"
wants 200 "explain"
away=$(body '[.preference_list[] | select(.role == "primary")][2].node_id')
stopped=$away
$STOP "$away" >&2 || fail "cannot stop $away with: $STOP"
seen "$away was stopped"
until_true "the others suspect $away" seen_as suspect
witness=$(others)
witness=${witness%%$'\n'*}
[ "$(metric "$witness" 'sibyl_gossip_members\{state="suspect"\}')" -ge 1 ] || fail "sibyl_gossip_members of $witness shows it"
seen "so does sibyl_gossip_members{state=\"suspect\"} of ${id_of[$witness]}"

step "3 Writes go on; what it misses is kept as hints"
before=$(delivered)
ask GET "$key"
wants 300 "a read while $away is away"
context=$(header sibyl-context)
ask PUT "$key" -H "Sibyl-Context: $(header sibyl-context)" -H "Idempotency-Key: pen-$run" -d '{"items":{"book":2,"lamp":1,"pen":1}}'
wants 204 "a write while $away is away"
traces=$(header sibyl-trace-id)
seen "one takes a pen: $(header sibyl-acks), trace $traces"
ask PUT "$key" -H "Sibyl-Context: $context" -H "Idempotency-Key: mug-$run" -d '{"items":{"book":2,"lamp":1,"mug":1}}'
wants 204 "a second write while $away is away"
traces+=" $(header sibyl-trace-id)"
seen "the other a mug: $(header sibyl-acks), trace ${traces#* }"
until_true "hints wait for $away" hints_wait
for url in $(others); do
    ask GET "$url/v1/cluster/handoff"
    body --arg id "$away" --arg by "${id_of[$url]}" '.hints[] | select(.target == $id and .count > 0) | "  \($by) keeps \(.count) (\(.bytes) bytes)"'
done

step "4 It comes back, and is given what it missed"
$START "$away" >&2 || fail "cannot start $away with: $START"
stopped=
until_true "$away is ready" is_ready "${url_of[$away]}"
until_true "all nodes see each other alive" all_alive
until_true "hints were delivered" more_delivered "$before"
until_true "no hint waits for $away any more" no_hints
until_true "all three owners hold the same" owners_agree
if [ -n "${JAEGER:-}" ]; then
    replay_linked() {
        ask GET "$JAEGER/api/traces?service=sibyl&operation=hint.replay&limit=50"
        [ "$(body --arg traces "$traces" '[.data[].spans[] | select(.operationName == "hint.replay") | .references[]? | .traceID | select(. as $id | $traces | contains($id))] | length')" -ge 1 ]
    }
    until_true "Jaeger shows the replay, linked to one of these writes" replay_linked
else
    echo "  (JAEGER is not set: the replay's link was not looked for)"
fi

step "5 A resolver merges, on every node, and stores nothing"
module=$repository/resolvers/prebuilt/cart.wasm
ask PUT "$front/v1/resolvers/cart" -H 'Content-Type: application/wasm' --data-binary "@$module" -m 60
wants "200 201 202" "the resolver"
digest=sha256:$(sha256sum "$module" | cut -d ' ' -f 1)
bound() {
    ask GET "$bucket"
    ask PUT "$bucket" -H 'Content-Type: application/json' -H "If-Match: $(header etag)" \
        -d "{\"resolver\":{\"name\":\"cart\",\"version\":\"$digest\"}}"
    [[ " 200 201 204 " == *" $status "* ]]
}
until_true "cart is bound to the bucket" bound
merged_by() {
    ask GET "$1/v1/buckets/scenario-$run/keys/cart"
    [ "$status" = 200 ] && [[ "$(header sibyl-resolver)" == *"outcome=merged"* ]]
}
for url in "${nodes[@]}"; do
    until_true "${id_of[$url]} merges" merged_by "$url"
    [ "$(body -S -c .items)" = '{"book":2,"lamp":1,"mug":1,"pen":1}' ] || fail "${id_of[$url]} has both edits"
done
ask GET "$key?siblings=true"
[ "$(body '.siblings | length')" -eq 2 ] || fail "what is stored are still two siblings"
seen "what is stored are still two siblings"

step "6 A client writes the merged cart back"
ask GET "$key"
wants 200 "the merged read"
merged=$(cat "$answer/body")
ask PUT "$key" -H "Sibyl-Context: $(header sibyl-context)" -H "Idempotency-Key: back-$run" -H 'Content-Type: application/json' -d "$merged"
wants 204 "the write back"
one_sibling() { ask GET "$key" && [ "$status" = 200 ] && [ "$(header sibyl-siblings)" = 1 ]; }
until_true "one value again" one_sibling

printf '\nAll of it was seen: a conflict, a node away, its hints and their replay, and the merge on %d nodes\n' "${#nodes[@]}"

# Asks a running mailgrant for a token over and over: MAILGRANT, WORK, RIG.
set -e
m() { "$MAILGRANT" --config "$WORK/mailgrant.yaml" "$@"; }
m app set app --mailbox app@rig.example.com >/dev/null
grant=$(m grant list --json | sed -n 's/.*"id": *"\(gra_[^"]*\)".*/\1/p' | head -n 1)
"$RIG" rest -method GET -url "http://127.0.0.1:18025/v1/grants/$grant/token" -header "Authorization: Bearer $(cat "$WORK/key")" -ctl "" -conns 32 -n 50000

# Makes registration, mailbox, app and key in a running mailgrant. The mailbox
# has no provider's limits: what the product can do is measured, not its manners.
set -e
m() { "$MAILGRANT" --config "$WORK/mailgrant.yaml" "$@"; }
n=0
until m health >/dev/null 2>&1; do
	n=$((n + 1))
	[ $n -lt 200 ] || { echo "mailgrant does not answer" >&2; exit 1; }
	sleep 0.05
done
m registration add rig --template generic --client-id rig \
	--override authorization_endpoint=https://localhost:2443/authorize --override token_endpoint=https://localhost:2443/token \
	--override smtp_host=localhost --override smtp_port=2587 --override sasl=XOAUTH2
printf 'rig-secret' | m registration credential add rig --kind secret
m grant begin app@rig.example.com --registration rig --app --capability smtp
m mailbox set app@rig.example.com --connections -1 --per-minute -1 --recipients-per-day -1
m app add app --sender app@rig.example.com
m app key issue app --scope send --scope token --json | sed -n 's/.*"secret": *"\([^"]*\)".*/\1/p' > "$WORK/key"

# Lays out a private mailgrant under $WORK. DATABASE is a postgres:// address, or
# empty for SQLite.
set -e
mkdir -p "$WORK/data"
cat > "$WORK/mailgrant.yaml" <<YAML
dir: $WORK/data
database: "$DATABASE"
public_url: http://localhost:18025
listen: ["http+insecure://127.0.0.1:18025", "submission+insecure://127.0.0.1:18525"]
hostname: relay.rig.example.com
egress:
  ca_file: $CERTS/ca.pem
  allow: ["localhost:2443", "localhost:2587"]
log: {level: error, format: text}
limits: {message_bytes: 62914560}
YAML

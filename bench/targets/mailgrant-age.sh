# Fills the database of a running mailgrant with the past: 10,000 mailboxes with
# their grants, and 1,000,000 delivered submissions with their attempts.
set -e
"$MAILGRANT" --config "$WORK/mailgrant.yaml" send --from app@rig.example.com --to user@rcpt.example.com --subject past --text past --wait >/dev/null
python3 - "$WORK/data/mailgrant.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
def columns(table):
    return [r[1] for r in db.execute(f"PRAGMA table_info({table})")]
def copies(table, count, change, where):
    cols = columns(table)
    select = ", ".join(change.get(c, c) for c in cols)
    for first in range(0, count, 20000):
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"""WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {min(first + 20000, count)})
            INSERT INTO {table} ({", ".join(cols)}) SELECT {select} FROM (SELECT * FROM {table} WHERE {where} LIMIT 1) one, n""")
        db.execute("COMMIT")
msg = "'msg_00' || printf('%024d', i)"
copies("grants", 10000, {"id": "'gra_00' || printf('%024d', i)"}, "1")
copies("mailboxes", 10000, {"id": "'mbx_00' || printf('%024d', i)", "address": "'old' || i || '@rig.example.com'"}, "1")
copies("submissions", 1000000, {"id": msg, "mailbox": "'mbx_00' || printf('%024d', i % 10000)"}, "state = 3")
copies("attempts", 1000000, {"submission": msg}, "1")
print(db.execute("SELECT COUNT(*) FROM submissions").fetchone()[0], "submissions")
PY

bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as=
if [ "$(id -u)" = 0 ]; then as="setpriv --reuid nobody --clear-groups"; fi
exec $as "$bin/postgres" -D "$WORK/pg/data"

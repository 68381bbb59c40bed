# Makes a private PostgreSQL cluster under $WORK/pg. It waits for the disk, as a
# real one does; its data belongs to nobody when run as root, who may not run it.
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
mkdir -p "$WORK/pg"
as=
if [ "$(id -u)" = 0 ]; then chown nobody "$WORK/pg"; chmod 755 "$WORK"; as="setpriv --reuid nobody --clear-groups"; fi
$as "$bin/initdb" -D "$WORK/pg/data" -U postgres -A trust -E UTF8 --locale=C >/dev/null
printf "port=15432\nlisten_addresses='127.0.0.1'\nunix_socket_directories='%s'\nshared_buffers=128MB\n" "$WORK/pg" >> "$WORK/pg/data/postgresql.conf"

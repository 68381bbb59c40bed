bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
n=0
until "$bin/pg_isready" -q -h 127.0.0.1 -p 15432; do
	n=$((n + 1))
	[ $n -lt 400 ] || exit 1
	sleep 0.02
done

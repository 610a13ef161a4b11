#!/bin/sh
# Can a user of the guest without any privilege make the replicas differ?  The work of `truncate`, as nobody:
#   drbd-harness run --guest-script testcases/examples/unprivileged.sh
set -eu
mkdir "$DRBD_DIRECTORY/of-nobody"
chown 65534:65534 "$DRBD_DIRECTORY/of-nobody"
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    /usr/lib/drbd-harness/mapstorm --file "$DRBD_DIRECTORY/of-nobody/mapped" --mebibytes 8 --threads 2 \
    --seconds "$DRBD_SECONDS" --cut-every 2500 --seed "${DRBD_SEED:-1}"

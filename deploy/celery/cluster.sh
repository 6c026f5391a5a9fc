#!/usr/bin/env bash
# Starts and stops the processes of a deployment on this machine. See docs/how-to/cluster.md.
#
#   cluster.sh run   SERVICE [NAME]   in the foreground, for systemd
#   cluster.sh start SERVICE [NAME]   in the background
#   cluster.sh stop  SERVICE [NAME]   waits for the run that a worker has
#
# SERVICE is codeserver, webserver, daemon or worker. NAME tells several workers of a machine
# apart. CLUSTER_ENV names the file of settings, CLUSTER_STATE the folder of logs and pid files,
# CLUSTER_BIN the folder of the programs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
usage() { sed -n '4,6s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

[ $# -ge 2 ] || usage
action=$1 service=$2 name=${3:-$2}
state=${CLUSTER_STATE:-$repository/var/cluster}
bin=${CLUSTER_BIN:-$repository/.venv/bin}
pid_file=$state/$name.pid

if [ -n "${CLUSTER_ENV:-}" ]; then
    set -a
    # shellcheck source=/dev/null
    . "$CLUSTER_ENV"
    set +a
fi
export DAGSTER_HOME=${DAGSTER_HOME:-$here}
export PYTHONPATH=$here:$repository${PYTHONPATH:+:$PYTHONPATH}

export CLUSTER_CODE_HOST=${CLUSTER_CODE_HOST:-127.0.0.1} CLUSTER_CODE_PORT=${CLUSTER_CODE_PORT:-4000}

case $service in
codeserver)
    command=("$bin/dagster" code-server start --module-name pipelines.definitions
        --working-directory "$repository" --location-name cohortlake
        --host "$CLUSTER_CODE_HOST" --port "$CLUSTER_CODE_PORT") ;;
webserver)
    command=("$bin/dagster-webserver" --workspace "$here/workspace.yaml"
        --host "${CLUSTER_HOST:-127.0.0.1}" --port "${CLUSTER_PORT:-3000}") ;;
daemon)
    command=("$bin/dagster-daemon" run --workspace "$here/workspace.yaml") ;;
worker)
    command=("$bin/celery" --app dagster_celery.app worker --queues dagster
        --hostname "$name@%h" --loglevel info) ;;
*) usage ;;
esac

is_alive() { [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }

case $action in
run)
    cd "$repository"
    exec "${command[@]}" ;;
start)
    mkdir -p "$state"
    if is_alive; then echo "$name runs already, see $pid_file" >&2; exit 1; fi
    cd "$repository"
    # Children of a shell in the background ignore interrupts, and Dagster would keep that.
    setsid env --default-signal=INT,TERM "${command[@]}" >>"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$pid_file" ;;
stop)
    is_alive || { rm -f "$pid_file"; exit 0; }
    pid=$(cat "$pid_file")
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    rm -f "$pid_file" ;;
*) usage ;;
esac

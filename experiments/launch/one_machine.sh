#!/bin/bash
# Several processes on this machine. One process sees all accelerators of a machine, and needs no
# launcher; several are for trying out what a cluster will do:
#
#     experiments/launch/one_machine.sh 2 --config=configs/smoke.py
#
# On a machine without accelerators each process is given JAX_NUM_CPU_DEVICES virtual devices. The
# exit code is that of the first process that failed, 75 if the run was told to leave (SIGTERM).
set -u
processes=$1
shift
coordinator="127.0.0.1:${PORT:-12321}"
pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < processes; i++)); do
  python -m experiments.pretrain "$@" \
    --coordinator="$coordinator" --processes="$processes" --process="$i" &
  pids+=($!)
done
code=0
for pid in "${pids[@]}"; do
  wait "$pid"
  ended=$?
  while kill -0 "$pid" 2>/dev/null; do # the wait was interrupted by the signal
    wait "$pid"
    ended=$?
  done
  if [ "$code" -eq 0 ]; then code=$ended; fi
done
exit "$code"

#!/bin/bash
# Open MPI. Call it with what mpirun needs, then "--", then what the run needs:
#
#     experiments/launch/mpirun.sh -n 16 --hostfile hosts -- \
#         --config=configs/clip_vit_b16.py --workdir=/shared/runs/clip_vit_b16
#
# JAX reads from the variables of mpirun which process is which, and takes one accelerator a process
# (those of Open MPI 5 from JAX 0.12 on, with the package mpi4py). MPI itself carries no data.
#
# On SIGTERM mpirun hands it on to the processes, which save and end with 75; it gives them three
# minutes, where by default it would kill them after a second. The same command then goes on.
set -u
mpi=()
while [ "$1" != "--" ]; do
  mpi+=("$1")
  shift
done
shift
exec mpirun --mca odls_base_sigkill_timeout 180 "${mpi[@]}" python -m experiments.pretrain "$@"

#!/bin/bash
# Slurm. Submit from the root of the repository, with as many tasks as there are accelerators:
#
#     sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 experiments/launch/slurm.sh \
#         --config=configs/clip_vit_b16.py --workdir=/shared/runs/clip_vit_b16
#     tail -f mmjax-<job>.log
#
# JAX reads from the variables of srun which process is which, and takes one accelerator a task. The
# work folder has to be on a file system that all nodes mount.
#
# A run that is told to leave (SIGTERM: time is nearly up, preempted, requeued) saves and exits with
# 75; then this script puts the job back into the queue, and it goes on where it was. Anything else
# that ends it, an error too, is left to you. A cluster with RequeueExit=75 does the same by itself.
#SBATCH --job-name=mmjax
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@180

# The others are given a minute to end when one has: enough to say why, or to finish a checkpoint.
srun --wait=60 --kill-on-bad-exit=0 python -m experiments.pretrain "$@"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

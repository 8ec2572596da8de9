#!/bin/bash
# A TPU pod slice (Cloud TPU VMs): the same command on every host of the slice.
#
#     gcloud compute tpus tpu-vm scp --recurse --worker=all . "$TPU":mmjax
#     gcloud compute tpus tpu-vm ssh "$TPU" --worker=all --command="pip install -e 'mmjax[tpu]'"
#     experiments/launch/tpu_pod.sh "$TPU" --config=configs/siglip_vit_b16.py --workdir=/shared/b16
#
# JAX finds the hosts through the metadata of the slice. The work folder has to be on a file system
# that all hosts mount (Filestore, or a bucket through gcsfuse). A host that is about to be taken away
# gets SIGTERM: the run saves on all hosts and ends with 75. On the next slice the same command goes on.
set -u
tpu=$1
shift
exec gcloud compute tpus tpu-vm ssh "$tpu" --worker=all \
  --command="cd mmjax && python -m experiments.pretrain $(printf '%q ' "$@")"

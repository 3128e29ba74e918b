#!/bin/bash
# Trains on TPUs in Google Kubernetes Engine with XPK: one process a TPU host.
#
#   CLUSTER=tpus ZONE=us-east5-a IMAGE=MY-REGISTRY/nfnet examples/launch/gke-xpk.sh \
#       --recipe imagenet --data /shared/imagenet --out /shared/runs/f0
#
# IMAGE holds nfnet_eqx with its extra `train` and `jax[tpu]`. /shared is a file system that all hosts see, attached to the
# cluster with `xpk storage attach ... --auto-mount=true`.
set -euo pipefail

out=
for ((i = 1; i < $#; i++)); do
    if [[ ${!i} == --out ]]; then next=$((i + 1)) out=${!next}; fi
done
: "${out:?give --out DIR}" "${CLUSTER:?}" "${ZONE:?}" "${IMAGE:?}"

# A shell does not pass SIGTERM on by itself. When it comes (the node is taken away) the run saves and exits with 0, which
# Kubernetes would take for the end of the job; so it is the run's checkpoint that tells.
command="trap 'kill -TERM \$run' TERM; nfnet-eqx train$(printf ' %q' "$@") & run=\$!;"
command+=" while kill -0 \$run 2> /dev/null; do wait \$run; done; test -d $(printf %q "$out")/checkpoint"

xpk workload create \
    --cluster "$CLUSTER" \
    --zone "$ZONE" \
    --workload "${WORKLOAD:-nfnet}" \
    --tpu-type "${TPU_TYPE:-v5litepod-16}" \
    --num-slices "${SLICES:-1}" \
    --docker-image "$IMAGE" \
    --max-restarts "${MAX_RESTARTS:-20}" \
    --command "$command"

#!/bin/bash
# Trains under Slurm: one process a node, which takes all of the node's GPUs.
#
#   sbatch examples/launch/slurm.sh --recipe imagenet --data /shared/imagenet --out /shared/runs/f0
#
# --out must be seen by all nodes. Five minutes before the time is up every process gets SIGTERM, saves, and ends; the job
# then queues itself again and goes on from there, until the run is done. A run that fails is not queued again.
#SBATCH --job-name=nfnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nfnet-%j.log
set -euo pipefail

out=
for ((i = 1; i < $#; i++)); do
    if [[ ${!i} == --out ]]; then next=$((i + 1)) out=${!next}; fi
done
: "${out:?give --out DIR}"

# Since Slurm 22.05 srun does not take over --cpus-per-task; without it the pictures are decoded on one core.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-64}" nfnet-eqx train "$@"

if [[ ! -d $out/checkpoint ]]; then scontrol requeue "$SLURM_JOB_ID"; fi

#!/bin/bash
# Train under SLURM, from a checkout on a file system that all nodes share, with its Python environment active. The same
# line again resumes:
#
#     sbatch examples/cluster/slurm.sh pair --arm C00 C11
#
# The first argument is the name of the run folder, the rest are flags of the training.
#SBATCH --job-name=purecc4
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
# With GPUs, one task for each: --ntasks-per-node=4 --gpus-per-node=4

set -eu
name=$1
shift
resume=
if [ -e "runs/$name/state.eqx" ]; then resume=--resume; fi
# a device for each core; GPUs ignore it
export XLA_FLAGS="--xla_force_host_platform_device_count=$SLURM_CPUS_PER_TASK"
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" python algos/ippo.py --distributed --name "$name" $resume "$@"

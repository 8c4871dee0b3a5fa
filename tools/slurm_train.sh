#!/usr/bin/env bash
# Train on a Slurm cluster (arguments and variables of OpenMMLab):
#   [GPUS=4 GPUS_PER_NODE=4 CPUS_PER_TASK=5 SRUN_ARGS=""] tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py]
set -eu
[ $# -ge 3 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
partition=$1 job=$2 config=$3
shift 3
gpus=${GPUS:-4}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 20000))} # two jobs on one machine do not conflict
# SRUN_ARGS is a list of words, so it is not quoted
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job" --gres=gpu:"$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"

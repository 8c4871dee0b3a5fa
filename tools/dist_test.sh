#!/usr/bin/env bash
# Test with several processes on one machine, or on several machines (arguments and variables of OpenMMLab):
#   [NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=29500] tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
# Without CUDA, GPUS is the number of CPU processes.
set -eu
[ $# -ge 3 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
nodes=${NNODES:-1}
if [ "$nodes" -gt 1 ]; then
    port=${PORT:-29500}
else # a free port, so that two runs on one machine do not conflict
    port=${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
fi
exec python -m torch.distributed.run \
    --nnodes="$nodes" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"

#!/usr/bin/env bash
# Train on generated data: supervised on the labeled images, then AllSpark with the unlabeled images. Compare both.
#   tools/demo.sh [OUT_DIR] [SEED]
# Two processes with one thread each are faster on 2 cores than one process with two threads.
set -eu
cd "$(dirname "$0")/.."
out=${1:-work_dirs/demo} seed=${2:-0}
start=$SECONDS
python tools/dataset_converters/make_demo_data.py data/demo --overwrite
rm -rf "${out:?}"
OMP_NUM_THREADS=1 tools/dist_train.sh configs/allspark/demo.py 2 --work-dir "$out" --cfg-options \
    "randomness.seed=$seed" train_dataloader.batch_size=8 train_dataloader.sampler.{labeled,unlabeled}=4
python tools/report.py "$out" --sheet "$out/contact_sheet.png"
python tools/show_summary.py "$out"
echo "Supervised training with the masks of all 1000 images for 2000 iterations reaches 56.3 mIoU (docs/results.md)."
awk "BEGIN { printf \"The demo took %.1f minutes. Checkpoints, logs and summary.json: %s\\n\", ($SECONDS - $start) / 60, \"$out\" }"

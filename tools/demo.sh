#!/usr/bin/env bash
# Train supervised-only and AllSpark on the same generated data and compare their predictions.
#   tools/demo.sh [OUT_DIR]
set -eu
cd "$(dirname "$0")/.."
out=${1:-work_dirs/demo}
python tools/dataset_converters/make_demo_data.py data/demo
declare -A minutes
for method in supervised allspark; do
    rm -rf "${out:?}/$method"
    start=$SECONDS
    python tools/train.py "configs/$method/demo.py" --work-dir "$out/$method"
    minutes[$method]=$(awk "BEGIN { printf \"%.1f\", ($SECONDS - $start) / 60 }")
done
last() { cat "$out/$1/last_checkpoint"; }
python tools/contact_sheet.py "$out/contact_sheet.png" \
    "Supervised=configs/supervised/demo.py,$(last supervised),${minutes[supervised]}" \
    "AllSpark=configs/allspark/demo.py,$(last allspark),${minutes[allspark]}"
echo "Checkpoints, logs and pseudo-label images: $out"

#!/usr/bin/env bash
# ssd256-tiny from scratch on the 292 images of BCCD's trainval, scored on the 72 of its test split, for each seed.
#   benchmarks/bccd.sh DATA [OUT [MINUTES [SEEDS]]]
# The test split is also scored every eighth epoch, for the curve alone. The result is always that of the last file, and
# no value of the recipe was chosen on the test split.
set -euo pipefail
data=$1 out=${2:-runs/bccd} minutes=${3:-9.7} seeds=${4:-0 1 2}
multibox=$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/multibox

for seed in $seeds; do
    "$multibox" train "$data" --model ssd256-tiny --recipe modern --train-split trainval --val-split test \
        --validate-every 8 --minutes "$minutes" --seed "$seed" --out "$out/seed-$seed"
    "$multibox" evaluate "$data" --split test --model "$out/seed-$seed/last.safetensors" \
        --json "$out/seed-$seed/test.json"
done

#!/usr/bin/env bash
# Measures a machine with a GPU, by commands of at most ten minutes each:
#   benchmarks/gpu.sh training|inference|profile [MODEL]  beside torchvision, bf16; MODEL is one of three presets
#   benchmarks/gpu.sh compile                             the compiled step beside the eager one
#   benchmarks/gpu.sh tests                               the tests marked `gpu`
#   benchmarks/gpu.sh ranks DATA                          two processes that share one device
#   benchmarks/gpu.sh voc DATA [MINUTES]                  ssd300-vgg16 from scratch by `modern`; call it again to go on
#   benchmarks/gpu.sh voc-score DATA                      its average precision on the test split
# (VGG-16 has no BatchNorm: these two trainings have a lower rate than the 0.004 of the recipe for their batches.)
# DATA holds VOC 2007 (VOCdevkit/VOC2007, trainval and test: docs/data.md). Numbers are left in OUT, by default runs/gpu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python} out=${OUT:-runs/gpu} task=${1:-} cores=$(nproc)
mkdir -p "$out"

bench() {  # PART NAME [OPTION ...]
    "$python" -m benchmarks "$1" --threads "$cores" --json "$out/$2.json" "${@:3}" | tee "$out/$2.md"
}

case $task in
training | inference | profile)
    bench "gpu-$task" "$task${2:+-$2}" ${2:+--model "$2"}
    ;;
compile)
    bench gpu-training compile --compile --batch-size 32
    ;;
tests)
    "$python" -m pytest -m gpu --numprocesses 0
    ;;
ranks)
    # NCCL wants a device for each rank, so this pair talks by gloo
    rm -rf "$out/ranks"
    "$python" -m torch.distributed.run --standalone --nproc-per-node 2 -m multibox train "$2" --model ssd300-vgg16 \
        --recipe modern --train-split trainval --val-split none --steps 200 --batch-size 32 --learning-rate 5e-4 \
        --device cuda:0 --out "$out/ranks"
    ;;
voc)
    # the schedule is that of all MINUTES; what ten minutes do not finish is saved, and the next call goes on from it
    again=$(test -e "$out/voc/last.pt" && echo --resume || true)
    timeout --signal INT 585 "$python" -m multibox train "$2" --model ssd300-vgg16 --recipe modern \
        --train-split trainval --val-split none --batch-size 32 --learning-rate 5e-4 --clip-norm 10 \
        --minutes "${3:-27}" --validate-every 10 --out "$out/voc" $again || {
        code=$?
        test $code -eq 124 || exit $code
        echo "Not at the end yet; go on with: benchmarks/gpu.sh voc $2 ${3:-27}"
    }
    ;;
voc-score)
    "$python" -m multibox evaluate "$2" --split test --rule voc2007 --model "$out/voc/last.safetensors" |
        tee "$out/voc.md"
    ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac

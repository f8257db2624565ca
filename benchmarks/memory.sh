#!/usr/bin/env bash
# Measures the memory of a training run over time: benchmarks/memory.sh OUT MINUTES -- ARGUMENTS OF `multibox train`
# Writes one line a minute to OUT/memory.csv: resident MiB of the process, and of all processes that read images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1 minutes=$2
shift 3
"${PYTHON:-.venv/bin/python}" -m multibox train "$@" --minutes "$minutes" --out "$out" &
run=$!
trap 'kill $run 2>/dev/null' EXIT
resident() { ps -o rss= "$@" 2>/dev/null | awk '{ sum += $1 } END { printf "%.0f", sum / 1024 }'; }
mkdir -p "$out"
echo "minute,process,readers" | tee "$out/memory.csv"
for ((minute = 1; minute < minutes; minute++)); do
    sleep 60
    kill -0 $run 2>/dev/null || break
    echo "$minute,$(resident -p $run),$(resident --ppid $run)" | tee -a "$out/memory.csv"
done
trap - EXIT
wait $run

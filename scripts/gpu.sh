#!/bin/sh
# Half an hour on a borrowed GPU, where Python, torch, timm and safetensors are all there is, and no network.
#
# Before, here:  python -m scripts.pack_tiny_imagenet data .parts      three archives of less than 48 MiB, in a folder outside git
# There, in the repository's root, each within ten minutes; SPACED_KD_COMMIT says which commit's files they are:
#
#   sh scripts/gpu.sh data .parts/part-1.tar.gz   once per archive, as they arrive
#   sh scripts/gpu.sh bench                       four minutes; benchmarks/recorded/cuda.json
#   python3 -m scripts.train_many STUDY.yaml    many small runs; `spaced-kd collect STUDY.yaml`, and rows.csv and
#                                                    runs.json of results/STUDY are what comes back
#   sh scripts/gpu.sh train 0                     w/o KD of seed 0, then online KD and Spaced KD side by side. When its
#                                                    time is up it has written its states, and the same command goes on
#   sh scripts/gpu.sh pack OUT baseline           a finished run, in pieces of 15 MiB; online_kd-0, online_kd-1.5
#
# Here again:  cat OUT/baseline.* | tar -xz             makes results/runs/..., and `spaced-kd collect` the rows
# Next time another seed; then RECIPE with interval=0.5 and 2.0, method=self_kd, protocol=released.
set -eu
export PYTHONPATH=src PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
dataset=${DATASET:-dataset=tiny_imagenet}
recipe=${RECIPE:-precision=bf16}
seconds=${SECONDS_EACH:-540} # of `train`, less than what a command may take

run() { # a training, within the time that is left
    left=$((deadline - $(date +%s)))
    [ "$left" -gt 40 ] || return 75
    # shellcheck disable=SC2086 (words)
    $python -m spaced_kd train $dataset network=resnet18 $recipe "$@" --device "$device" --time-limit "$left" --margin 20
}

case ${1:-} in
data)
    mkdir -p data
    tar -xf "$2" -C data
    ;;
bench)
    $python -m benchmarks --device "$device" --only steps deterministic memory states start
    ;;
train)
    deadline=$(($(date +%s) + seconds))
    # shellcheck disable=SC2086 (words)
    [ -d results/data ] || $python -m spaced_kd prepare $dataset
    run method=baseline seed="$2" --save-states-for "method=online_kd interval=1.5"
    run method=online_kd seed="$2" &
    online=$!
    status=0
    run method=online_kd interval=1.5 seed="$2" || status=$?
    wait "$online" || status=$?
    [ "$status" -ne 0 ] || $python -m benchmarks --device "$device" --only tab01
    exit "$status"
    ;;
pack)
    mkdir -p "$2"
    tar -cz results/runs/*"-$3-"* | split -b 15m - "$2/$3."
    cp benchmarks/recorded/*.json "$2"
    ;;
*)
    echo "$0: data ARCHIVE, bench, train SEED, or pack FOLDER ARM" >&2
    exit 2
    ;;
esac

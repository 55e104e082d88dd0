#!/bin/sh
# Half an hour on a borrowed GPU, where Python, torch, timm and safetensors are all there is, and no network.
#
# Before, here:  python -m benchmarks.parts data .parts      (three archives of less than 48 MiB; .parts is ignored by git)
# There, in the repository's root, one step after the other, each within ten minutes:
#
#   sh benchmarks/gpu.sh data .parts/part-1.tar.gz      once per archive, as they arrive
#   sh benchmarks/gpu.sh bench                          four minutes: benchmarks/recorded/cuda.json
#   sh benchmarks/gpu.sh train 0                        w/o KD of seed 0, then online KD and Spaced KD side by side; when its
#                                                       time is up it has written its state, and the same command goes on
#   sh benchmarks/gpu.sh pack 0 OUT                     rows, descriptions and predictions for OUT, no weights and no states
#
# Next time: another seed; then interval=0.5 and 2.0, self KD, protocol=released.
set -eu
export PYTHONPATH=src PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
seconds=${SECONDS_EACH:-540} # of a step, less than what a command may take
device=${DEVICE:-cuda}
dataset=${DATASET:-dataset=tiny_imagenet}
recipe=${RECIPE:-precision=bf16 eval_every=10 threads=4}

run() { # a training as words, within the time that is left
    left=$((deadline - $(date +%s)))
    [ "$left" -gt 40 ] || exit 75
    $python -m spaced_kd train $dataset network=resnet18 $recipe "$@" --device "$device" --time-limit "$left" --margin 20
}

case $1 in
data)
    mkdir -p data
    tar -xf "$2" -C data
    ;;
bench)
    $python -m benchmarks --device "$device" --only steps memory states trace start
    ;;
train)
    deadline=$(($(date +%s) + seconds))
    [ -n "$(ls results/data 2>/dev/null)" ] || $python -m spaced_kd prepare $dataset
    run method=baseline seed="$2" --leave "method=online_kd interval=1.5"
    run method=online_kd seed="$2" &
    run method=online_kd interval=1.5 seed="$2" &
    one=$!
    status=0
    wait "$one" || status=$?
    wait || status=$?
    $python -m benchmarks --device "$device" --only tab01
    exit "$status"
    ;;
pack)
    mkdir -p "$3"
    tar -czf "$3/runs.tar.gz" --exclude=weights.safetensors results/runs
    cp benchmarks/recorded/*.json "$3"
    ;;
*)
    echo "$0: data ARCHIVE, bench, train SEED or pack SEED FOLDER" >&2
    exit 2
    ;;
esac

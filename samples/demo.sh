#!/usr/bin/env bash
# The main job on a real model: silero-vad, a voice activity detector, compiled ahead of time for
# seven targets, then looked at, chosen from and run. `make demo` sets up what this needs and calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

model=$(python -m samples.real_models silero_vad_16k_sequence)
package=build-output/vad.aotpack
mkdir -p "$(dirname "$package")"

# Prints a command as a user would type it, then runs it.
step() {
    printf '\n$ %s\n' "${*/#"$model"/$(basename "$model")}"
    "$@"
}

# A blob of one instruction set does not load on another, nor one NPU generation's on an older one:
# a package holds one variant for each. The plain ONNX comes along as the last resort.
# Not every computer can compile for all of these: what this one cannot has a row that says why.
step aotpack build "$model" -o "$package" --shape input=1,576 --keep-going \
    --target ort-cpu --target openvino-cpu-avx512 --target openvino-cpu-avx2 \
    --target qnn-htp-v73 --target qnn-htp-v75 --target qnn-htp-v79 --target tensorrt-rtx-sm89

# What is in it: nothing but the manifest is read.
step aotpack inspect "$package"

# Which variants fit this machine, the best one first, and why the others do not.
step aotpack select "$package"

# The best one, loaded by ONNX Runtime and run.
step aotpack run "$package"

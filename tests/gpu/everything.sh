#!/usr/bin/env bash
# Everything that wants a GPU, in at most eight minutes and without a network: `tests/gpu/everything.sh [RESULTS.json]`.
# From a clone with the package installed: `pip install -e '.[test,bench]'` (bench: torchcam and grad-cam; without them
# their rows say so). The parts and their limits stand in everything.py; results are written after each. Then
#   python tests/gpu/table.py RESULTS.json > docs/gpu.md
# Without a CUDA device, shapes are tiny and nothing counts as measured; WSOLNB_TINY=0 or 1 decides otherwise.
set -euo pipefail
results=$(realpath -m "${1:-docs/gpu.json}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
WSOLNB_CACHE=$(mktemp -d) # nothing was trained or compiled before
trap 'rm -rf "$WSOLNB_CACHE"' EXIT
export WSOLNB_CACHE TMPDIR=$WSOLNB_CACHE WSOLNB_HEADLESS=1 HF_HUB_OFFLINE=1 TORCHINDUCTOR_CACHE_DIR=$WSOLNB_CACHE/inductor
export PYTHONPATH=$PWD/tests/helpers${PYTHONPATH:+:$PYTHONPATH}
python tests/gpu/everything.py "$results"

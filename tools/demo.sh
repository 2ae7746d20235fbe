#!/usr/bin/env bash
# Pretrain the tiny model on real photographs for a few minutes on a CPU, and draw what it reconstructs.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh

CONFIG=configs/convmae/convmae_convvit-tiny-p16_1xb16-coslr-8e_demo-128px.py
WORK_DIR=work_dirs/demo

make_environment .venv without requirements/runtime.txt requirements/demo.txt
.venv/bin/pip install -q --no-deps --no-build-isolation --force-reinstall .

if [ ! -d data/demo ]; then
    step 'Cutting crops out of photographs'
    .venv/bin/python tools/dataset_converters/skimage_photos.py data/demo
fi

step 'Pretraining (at most 5 minutes on two cores)'
rm -rf "$WORK_DIR"
.venv/bin/mim train mmpretrain "$CONFIG" --gpus 0 --work-dir "$WORK_DIR"

step 'Reconstructing held-out crops'
.venv/bin/python tools/visualize_reconstruction.py data/demo/val/0000[0-5].png --config "$CONFIG" \
    --checkpoint "$(cat "$WORK_DIR/last_checkpoint")" --out "$WORK_DIR/reconstruction.png"
.venv/bin/python - "$WORK_DIR" <<'PY'
import json
import sys
from pathlib import Path

log = next(Path(sys.argv[1]).glob('*/vis_data/scalars.json'))
losses = [json.loads(line)['loss'] for line in log.read_text().splitlines()]
print(f'First loss {losses[0]:.4f}, last loss {losses[-1]:.4f}.')
PY
echo "$WORK_DIR/reconstruction.png"

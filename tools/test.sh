#!/usr/bin/env bash
# Make an environment with mmcv's compiled ops, check the style and run every test. Arguments go to pytest.
#
# FAMILY=original takes the original OpenMMLab libraries, TORCH=2.4.1 another PyTorch, OPS=without an mmcv without
# compiled ops, for which the tests of detection and segmentation are skipped: see tools/environment.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh

VENV=.venv-test
[ "$FAMILY $TORCH ${OPS:=with}" = 'onedl 2.10.0 with' ] || VENV=.venv-test-$FAMILY-$TORCH-$OPS
make_environment "$VENV" "$OPS" requirements/{runtime,deployment,tests}.txt
"$VENV/bin/pip" install -q --no-deps --no-build-isolation -e .

step 'Style'
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
step 'Tests'
"$VENV/bin/python" -m pytest "$@"

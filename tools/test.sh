#!/usr/bin/env bash
# Make the environment with mmcv's compiled ops, check the style and run every test. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh

make_environment .venv-test with requirements/mminstall.txt requirements/runtime.txt requirements/optional.txt \
    requirements/tests.txt
.venv-test/bin/pip install -q --no-deps --no-build-isolation -e .

step 'Style'
.venv-test/bin/ruff check .
.venv-test/bin/ruff format --check .
step 'Tests'
.venv-test/bin/python -m pytest "$@"

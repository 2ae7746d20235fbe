#!/usr/bin/env bash
# Build the documentation site into site/, in an environment of its own (a minute the first time). Arguments go to
# mkdocs, such as --site-dir FOLDER.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv-docs
stamp=$(cksum <requirements/docs.txt)
if [ "$(cat $VENV/stamp 2>/dev/null)" != "$stamp" ]; then
    rm -rf $VENV
    "${PYTHON:-python3}" -m venv $VENV
    $VENV/bin/pip install -q --disable-pip-version-check -r requirements/docs.txt
    echo "$stamp" >$VENV/stamp
fi
NO_MKDOCS_2_WARNING=1 $VENV/bin/mkdocs build --strict "$@"

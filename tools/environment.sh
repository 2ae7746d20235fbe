# Make a virtual environment with everything mmconvmae needs. To be sourced; used by demo.sh and test.sh.

# pip with the cache off for mmcv: a build without compiled ops and one with them have the same key in it.
MMCV=$(grep '^onedl-mmcv==' requirements/mminstall.txt)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mmconvmae

step() { printf '\n==> %s\n' "$*"; }

# install_mmcv_without_ops BIN: an isolated build finds no torch and compiles nothing.
install_mmcv_without_ops() {
    "$1/pip" install -q --no-cache-dir --no-deps --force-reinstall "$MMCV"
}

# install_mmcv_with_ops BIN: 15 to 22 minutes on two cores the first time; the wheel is kept for the next.
install_mmcv_with_ops() {
    local tag wheels
    tag=$("$1/python" -c 'import platform, sys, torch
print(f"cp{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}-{platform.machine()}")')
    wheels=$CACHE/${MMCV//==/-}-$tag
    if ! ls "$wheels"/*.whl >/dev/null 2>&1; then
        echo 'Compiling mmcv; this takes 15 to 22 minutes on two cores.'
        mkdir -p "$CACHE"
        rm -rf "$wheels.part"
        PATH=$1:$PATH MAX_JOBS=${MAX_JOBS:-$(nproc)} "$1/pip" wheel -q --no-build-isolation --no-cache-dir --no-deps \
            -w "$wheels.part" "$MMCV"
        rm -rf "$wheels"
        mv "$wheels.part" "$wheels"
    fi
    "$1/pip" install -q --no-cache-dir --no-deps --force-reinstall "$wheels"/*.whl
}

# make_environment FOLDER with|without REQUIREMENTS_FILE...: with or without mmcv's compiled ops.
make_environment() {
    local folder=$1 ops=$2 stamp bin=$1/bin
    shift 2
    stamp=$(cat tools/environment.sh "$@" | cksum)
    if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
        step "The environment $folder is there already"
        return
    fi
    step "Making the environment $folder"
    rm -rf "$folder"
    "${PYTHON:-python3}" -m venv "$folder"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$bin/pip" install -q -r requirements/build.txt
    step 'Installing PyTorch (3 GB, a few minutes)'
    "$bin/pip" install -q -r requirements/torch.txt
    step "Installing mmcv $ops compiled ops"
    "install_mmcv_${ops}_ops" "$bin"
    step 'Installing the other packages'
    local files=()
    for file in "$@"; do files+=(-r "$file"); done
    "$bin/pip" install -q "${files[@]}"
    echo "$stamp" >"$folder/stamp"
}

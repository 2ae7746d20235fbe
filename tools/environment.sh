# Make a virtual environment with everything mmconvmae needs. To be sourced; used by demo.sh and test.sh.
#
#   FAMILY=onedl|original  the OpenMMLab libraries: the maintained OneDL distributions, or the original ones
#   TORCH=2.10.0           version of PyTorch; of the original family 2.1.2, for which mmcv has prebuilt wheels
#   PYTHON=python3         the interpreter; 3.11 for PyTorch 2.1
FAMILY=${FAMILY:-onedl}
case $FAMILY in
    onedl)
        TORCH=${TORCH:-2.10.0} MIM=onedl-mim
        SUFFIX='' CONSTRAINTS=()
        ;;
    original)
        TORCH=${TORCH:-2.1.2} MIM=openmim
        SUFFIX=-original CONSTRAINTS=(-c requirements/constraints-original.txt)
        ;;
    *)
        echo "FAMILY is $FAMILY; set it to onedl or original." >&2
        exit 2
        ;;
esac
MMINSTALL=requirements/mminstall$SUFFIX.txt
MMCV=$(grep -E '^(onedl-)?mmcv==' "$MMINSTALL")
MMCV_WITHOUT_OPS=${MMCV/#mmcv/mmcv-lite}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mmconvmae

step() { printf '\n==> %s\n' "$*"; }

# torch_requirements: PyTorch, and the torchvision that was released with it.
torch_requirements() {
    local minor patch
    IFS=. read -r _ minor patch <<<"$TORCH"
    echo "torch==$TORCH" "torchvision==0.$((minor + 15)).${patch:-0}"
}

# install_mmcv_without_ops BIN: enough for pretraining and classification, in seconds. An isolated build finds no torch
# and compiles nothing; of the original mmcv there is a distribution of its own.
install_mmcv_without_ops() {
    "$1/pip" install -q --no-cache-dir --no-deps --force-reinstall "$MMCV_WITHOUT_OPS"
}

# install_mmcv_with_ops BIN: a prebuilt wheel if mim knows one (a minute); else 12 to 22 minutes of compiling on two
# cores the first time, after which the wheel is kept. pip's cache is left out: a build without ops has the same key.
install_mmcv_with_ops() {
    local tag wheels
    if "$1/mim" install -q --only-binary :all: --no-deps --no-cache-dir --retries 0 --timeout 15 "$MMCV" >/dev/null 2>&1 &&
        "$1/python" -c 'import mmcv.ops' >/dev/null 2>&1; then
        echo "$MMCV was there as a prebuilt wheel."
        return
    fi
    tag=$("$1/python" -c 'import platform, sys, torch
print(f"cp{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}-{platform.machine()}")')
    wheels=$CACHE/${MMCV//==/-}-$tag
    if ! ls "$wheels"/*.whl >/dev/null 2>&1; then
        echo "There is no prebuilt wheel of $MMCV for this PyTorch. Compiling takes 12 to 22 minutes on two cores."
        rm -rf "$wheels.part"
        mkdir -p "$wheels.part"
        local source=$MMCV minor
        IFS=. read -r _ minor _ <<<"$TORCH"
        if [ "$minor" -ge 14 ]; then
            # PyTorch 2.14 asks for C++20; mmcv asks for C++17, and compiles as C++20 too.
            "$1/pip" download -q --no-deps --no-binary :all: --no-build-isolation -d "$wheels.part" "$MMCV"
            tar -xzf "$wheels.part"/*.tar.gz -C "$wheels.part"
            rm "$wheels.part"/*.tar.gz
            source=$(echo "$wheels.part"/*/)
            sed -i 's/-std=c++17/-std=c++20/' "$source/setup.py"
        fi
        PATH=$1:$PATH MAX_JOBS=${MAX_JOBS:-$(nproc)} MMCV_WITH_OPS=1 "$1/pip" wheel -q --no-build-isolation \
            --no-cache-dir --no-deps -w "$wheels.part" "$source"
        rm -rf "$wheels" "$wheels.part"/*/
        mv "$wheels.part" "$wheels"
    fi
    "$1/pip" install -q --no-cache-dir --no-deps --force-reinstall "$wheels"/*.whl
}

# make_environment FOLDER with|without REQUIREMENTS_FILE...: the libraries of the family, mmcv with or without its
# compiled ops (and with them mmdet and mmseg), and what the files name.
make_environment() {
    local folder=$1 ops=$2 stamp bin=$1/bin
    shift 2
    [ "$ops" = without ] || set -- "$@" requirements/{detection,segmentation}$SUFFIX.txt
    stamp=$(cat tools/environment.sh requirements/build.txt "$MMINSTALL" "$@" <(echo "$FAMILY $TORCH") | cksum)
    if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
        step "The environment $folder is there already"
        return
    fi
    step "Making the environment $folder: $FAMILY OpenMMLab, PyTorch $TORCH"
    rm -rf "$folder"
    "${PYTHON:-python3}" -m venv "$folder"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$bin/pip" install -q "${CONSTRAINTS[@]}" -r requirements/build.txt
    step 'Installing PyTorch (3 to 5 GB, a few minutes)'
    "$bin/pip" install -q "${CONSTRAINTS[@]}" $(torch_requirements)
    step "Installing mmcv $ops compiled ops"
    "$bin/pip" install -q "${CONSTRAINTS[@]}" "$(grep "^$MIM==" "$MMINSTALL")"
    "install_mmcv_${ops}_ops" "$bin"
    step 'Installing the other packages'
    local files=() mmcv=$MMCV
    [ "$ops" = with ] || mmcv=$MMCV_WITHOUT_OPS
    for file in "$@"; do files+=(-r "$file"); done
    # mmcv is there already; named again, it brings what it needs.
    "$bin/pip" install -q "${CONSTRAINTS[@]}" "$mmcv" $(grep -v -e '^#' -e "^$MMCV" "$MMINSTALL") "${files[@]}"
    echo "$stamp" >"$folder/stamp"
}

# mmconvmae on a GPU, mmcv's ops compiled for CUDA (20 to 40 minutes the first time):
#     docker build -t mmconvmae .
#     docker run --gpus all --shm-size 8g -v "$PWD/data:/mmconvmae/data" -v "$PWD/work_dirs:/mmconvmae/work_dirs" -it mmconvmae
# The CUDA here is that of PyTorch's wheel on PyPI, as the compiler of mmcv's ops has to be.
FROM nvidia/cuda:12.8.1-devel-ubuntu22.04

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential git libgl1 libglib2.0-0 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmconvmae
ENV PATH=/opt/mmconvmae/bin:$PATH FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="8.0;8.6;9.0"
# The environment first, so that a change of the code does not make it anew.
COPY requirements requirements
COPY tools/environment.sh tools/environment.sh
RUN bash -c 'set -euo pipefail; source tools/environment.sh; \
        make_environment /opt/mmconvmae with requirements/{runtime,deployment}.txt; rm -rf "$CACHE"'
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .
CMD ["bash"]

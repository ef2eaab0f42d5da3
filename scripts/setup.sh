#!/bin/sh
# Sets up the virtual environment: scripts/setup.sh run|test|test-trt
#   run   what the live recogniser needs
#   test  that, and what training, the tests and the checks need, at the versions of constraints.txt
#   test-trt  that, and TensorRT-RTX (300 MB more)
# Environment: PYTHON (a Python 3.10-3.12; found if not given), VENV (.venv).
set -eu
cd "$(dirname "$0")/.."
purpose=${1:?run, test or test-trt}
venv=${VENV:-.venv}

say() { printf '%s\n' "$*" >&2; }

suitable() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    without_venv=
    # 3.11 first: it is the version that the measurements were made with.
    for candidate in ${PYTHON:-python3.11 python3.12 python3.10 python3 python}; do
        suitable "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
        without_venv=$candidate
    done
    if [ -n "$without_venv" ]; then
        say "error: $without_venv cannot make virtual environments. On Debian and Ubuntu:" \
            "sudo apt-get install $("$without_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    elif [ -n "${PYTHON:-}" ]; then
        say "error: PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12"
    else
        say "error: no Python 3.10, 3.11 or 3.12 found (python3 is" \
            "$(python3 -V 2>/dev/null || echo missing)). Install one, or name it: make PYTHON=/path/to/python3.11 ..."
    fi
    return 1
}

# A .venv that is half made, or whose Python has gone or does not fit, is made anew.
if ! suitable "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "setting up $venv with $python ($("$python" -V))"
    "$python" -m venv --clear "$venv"
fi

say "installing (the first time this downloads a few hundred megabytes)"
case $purpose in
run) "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --editable . ;;
test) "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[train,dev]' ;;
test-trt) "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[train,dev,trt-rtx]' ;;
*) say "error: scripts/setup.sh run|test|test-trt" && exit 2 ;;
esac

# The wheels leave a few libraries to the system; a bare container or server has none of them.
if ! "$venv/bin/python" -c '
import av, cv2, numba, onnxruntime
from mediapipe.tasks.python.core import mediapipe_c_bindings
mediapipe_c_bindings.load_raw_library([])'; then
    say "error: a system library is missing (see the last line above). On Debian and Ubuntu:"
    say "    sudo apt-get install libegl1 libgles2 libgl1 libglib2.0-0 libsm6 libxext6"
    exit 1
fi

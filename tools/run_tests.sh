#!/usr/bin/env bash
# Run the tests in .venv, which is created the first time and then reused.
# Usage: bash tools/run_tests.sh [pytest arguments; paths from the root of the repository]
# Example: bash tools/run_tests.sh tests/test_models -k cwd
# PYTHON names the interpreter that creates .venv.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null

python=.venv/bin/python
if ! "$python" -c '' 2>/dev/null; then
    "${PYTHON:-python3}" -m venv --clear .venv
fi

# pip runs only if the files that it reads have changed, or the folder has moved.
stamp=.venv/installed-for-tests
wanted=$(pwd && cat setup.py requirements.txt constraints.txt)
if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
    echo 'Installing into .venv: a few minutes the first time.'
    "$python" -m pip install --quiet --disable-pip-version-check \
        -c constraints.txt -e '.[tests]'
    echo "$wanted" >"$stamp"
fi

# Two processes with one thread each: the models are too small for more threads to help.
OMP_NUM_THREADS=1 exec "$python" -m pytest -n 2 --dist loadfile "$@"

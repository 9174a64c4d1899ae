#!/usr/bin/env bash
# Run the long tests: thousands of fuzzed files and configs, and a run that is killed 25 times.
# About half an hour on two cores; prints the number of cases of each fuzz test, and every kill.
# Usage: bash tools/soak.sh
# PYTHON names the interpreter that creates .venv; SOAK_SEED=N repeats the kills of a run.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null

bash tools/run_tests.sh -q -n 0 --hypothesis-profile=soak --hypothesis-show-statistics \
    $(git ls-files 'tests/*fuzz.py')
bash tools/run_tests.sh -q -n 0 -s tests/soak

#!/usr/bin/env bash
# From a fresh clone to a distilled detector: install, draw a dataset, train a student with a teacher
# and without it, compare. Ten minutes on two CPU cores with the install, no GPU.
# Usage: bash tools/quickstart.sh
# PYTHON names the interpreter that creates .venv, 3.9 to 3.13.
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null

out=work_dirs/quickstart
python=.venv/bin/python
teacher=configs/drawn/rtmdet_teacher_drawn.py
student=configs/drawn/rtmdet_student_drawn.py
distilled=configs/drawn/kd_student_rtmdet_teacher_drawn.py
weights=configs/drawn/rtmdet_teacher_drawn-dbefc97e.pth
steps=7
step=0

elapsed() {
    printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60))
}

# step TITLE COMMAND...: run one command, its output in a log and its progress on the screen.
step() {
    local title=$1 log started=$SECONDS
    shift
    step=$((step + 1))
    log=$out/logs/$step.log
    printf '\n[%d/%d, %s] %s\n' "$step" "$steps" "$(elapsed)" "$title"
    printf '$'
    printf ' %q' "$@"
    printf '\n'
    if ! "$@" 2>&1 | tee "$log" | progress; then
        printf '\nThat failed. The end of %s:\n' "$log" >&2
        tail -n 25 "$log" >&2
        exit 1
    fi
    printf '%s\t%d\n' "$title" $((SECONDS - started)) >>"$out/logs/seconds.tsv"
}

# Show the progress lines of MMEngine's log, without their preamble, and the results.
progress() {
    local line
    # Not awk: some versions read a pipe in blocks, and then a minute's lines arrive at once.
    while IFS= read -r line; do
        if [[ $line == *'Epoch('* ]]; then
            sed -E 's/.* - INFO - /  /
                s/(base_lr|lr|data_time|coco\/bbox_mAP_[a-z0-9]+): [^ ]+ *//g' <<<"$line"
        elif [[ $line =~ ^(error:|student written|report written) ]]; then
            printf '  %s\n' "$line"
        fi
    done
}

# both COMMAND...: train both students at once, each on half of the cores.
both() {
    ("$@" "$student" --work-dir "$out/plain" 2>&1 | named 'plain      ') &
    ("$@" "$distilled" --work-dir "$out/distilled" 2>&1 | named 'distilled  ')
    wait $!
}

# named NAME: put a name into the lines of MMEngine's log.
named() {
    local line
    while IFS= read -r line; do
        printf '%s\n' "${line/ - INFO - / - INFO - $1}"
    done
}

# last_checkpoint RUN: the newest one that the run saved.
last_checkpoint() {
    echo "$out/$1/$(basename "$(cat "$out/$1/last_checkpoint")")"
}

printf 'Repeat any of these commands in %s\n' "$PWD"
rm -rf "$out"
mkdir -p "$out/logs"

if ! "$python" -c '' 2>/dev/null; then
    printf '$ %q -m venv --clear .venv\n' "${PYTHON:-python3}"
    "${PYTHON:-python3}" -m venv --clear .venv
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 14))'; then
    echo "error: .venv has $("$python" --version), and 3.9 to 3.13 are supported; remove .venv" \
        'and set PYTHON to another interpreter' >&2
    exit 2
fi
# Two trainings share the cores, and threads that wait for each other leave theirs.
threads=$((($(getconf _NPROCESSORS_ONLN) + 1) / 2))
printf '$ export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=%d\n' "$threads"
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$threads

# pip runs only if the files that it reads have changed, or the folder has moved.
stamp=.venv/installed-for-quickstart
wanted=$(pwd && cat setup.py requirements.txt constraints.txt)
install=("$python" -m pip install --disable-pip-version-check -c constraints.txt -e .)
if [[ "$(cat "$stamp" 2>/dev/null)" == "$wanted" ]]; then
    install=(echo 'installed already:' "${install[@]}")
fi
step 'Install into .venv, a minute or two the first time' "${install[@]}"
echo "$wanted" >"$stamp"
step 'Draw the data; train the student with the teacher and without, side by side' \
    both "$python" -W ignore tools/train.py
step 'Convert the distilled student into a plain checkpoint' \
    "$python" -W ignore tools/model_converters/convert_kd_ckpt_to_student.py \
    "$(last_checkpoint distilled)" --out-path "$out/distilled"
step 'Test the teacher' \
    "$python" -W ignore tools/test.py "$teacher" "$weights" --work-dir "$out/teacher_test"
step 'Test the student alone' \
    "$python" -W ignore tools/test.py "$student" "$(last_checkpoint plain)" \
    --work-dir "$out/plain_test"
step 'Test the distilled student as a plain detector' \
    "$python" -W ignore tools/test.py "$student" "$(ls "$out"/distilled/*_student.pth)" \
    --work-dir "$out/distilled_test"
step 'Report' "$python" -W ignore tools/analysis_tools/quickstart_report.py "$out"

printf '\n[%s] Done. Results:\n' "$(elapsed)"
printf '  %s\n' "$out/report.html" "$out/report.md"
printf '\n'
cat "$out/report.md"

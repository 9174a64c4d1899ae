"""Each command and snippet of the docs is run here or by the test that RUN_BY names.

``python tests/test_docs.py`` prints that test for each of them.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import mmyolo
import pytest
from helpers import ROOT, batch, build_a_copy_alone, make_options, run_tool
from mmengine.registry import HOOKS, VISBACKENDS
from packaging.requirements import Requirement

from rtm_kd.engine.hooks import DistillationLossDetachHook
from rtm_kd.utils import load_config

DOCS = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])
MMYOLO = Path(mmyolo.__path__[0], '.mim')

# Start of a command -> what runs it: a test as file::name, which mostly runs the same tool with
# the same options on tiny data, or a script that installs. Commands that take hours or need a
# network also have their arguments parsed, see below.
RUN_BY = {
    r'python3 -m venv|source \.venv|pip install (-c constraints\.txt )?-e': 'tools/run_tests.sh',
    r'pip install "': 'test_docs.py::test_versions_in_the_docs_fit_the_requirements',
    r'pip install \.$': 'test_packaging.py::installed',
    r'python -m rtm_kd\.compat enable': 'test_compat/test_main.py::'
    'test_mmdet_can_be_imported_without_rtm_kd_in_an_opted_in_environment',
    r'mim train rtm_kd': 'test_packaging.py::test_mim_finds_each_config_by_its_name_alone',
    r'bash tools/(quickstart|run_tests|soak)\.sh': 'test_docs.py::'
    'test_a_script_calls_existing_tools_with_valid_arguments',
    r'\.venv/bin/ruff': 'test_docs.py::test_ruff_finds_nothing',
    r'python "\$\(python -c': 'test_docs.py::'
    'test_mmyolos_download_script_accepts_the_command_in_the_docs',
    r'mkdir |for file in|curl |done$': 'test_docs.py::test_bash_can_parse_the_commands',
    r'(config|work_dir|checkpoint)=': 'test_docs.py::test_bash_can_parse_the_commands',
    r'GPUS=\d+ bash tools/slurm_train\.sh': 'test_docs.py::'
    'test_slurm_train_passes_a_valid_command_to_srun',
    r'bash tools/dist_(train|test)\.sh': 'test_tools/test_distributed.py::'
    'test_a_run_is_terminated_killed_and_resumed',
    r'cp -r configs|python tools/(train|check|analysis_tools/report)\.py '
    r'(configs/mine|work_dirs)/(rtmdet_teacher|kd_student_teacher)': 'test_docs.py::'
    'test_own_data_by_hand',
    r'python tools/check\.py': 'test_tools/test_check.py::'
    'test_reports_data_teacher_step_and_hours_of_a_run',
    r'python tools/analysis_tools/report\.py': 'test_tools/test_report.py::'
    'test_has_every_curve_and_picture',
    r'python tools/train\.py .*--resume': 'test_tools/test_train_and_test.py::'
    'test_train_resume_test_convert',
    r'python tools/train\.py .*--amp': 'test_engine/test_cpu_amp_optim_wrapper.py::'
    'test_a_run_changes_to_bfloat16_and_back',
    r'python tools/train\.py .*--cfg-options max_epochs': 'test_configs.py::'
    'test_coco_options_reach_head_assigner_schedule_and_detach',
    r'python tools/(train|test)\.py': 'test_tools/test_train_and_test.py::'
    'test_train_resume_test_convert',
    r'python tools/model_converters/convert_kd_ckpt_to_student\.py': 'test_tools/'
    'test_train_and_test.py::test_train_resume_test_convert',
    r'python tools/distill\.py': 'test_tools/test_distill.py::'
    'test_one_command_trains_a_teacher_and_a_student',
    r'python tools/compare\.py': 'test_tools/test_compare.py::compared',
    r'python tools/export\.py .*--format onnx': 'test_tools/test_export.py::'
    'test_the_examples_run_without_our_packages',
    r'python examples/infer_': 'test_tools/test_export.py::'
    'test_the_examples_run_without_our_packages',
    r'python tools/export\.py': 'test_tools/test_export.py::'
    'test_the_tool_accepts_the_config_of_the_distillation',
    r'python tools/benchmark\.py .*--exported': 'test_tools/test_benchmark.py::'
    'test_every_format_of_a_detector_is_timed',
    r'python tools/benchmark\.py .*--error': 'test_tools/test_benchmark.py::'
    'test_the_fast_paths_are_compared_with_the_reference',
    r'python tools/benchmark\.py': 'test_tools/test_benchmark.py::'
    'test_the_tool_prints_a_table_and_writes_the_figures',
    r'(?s).*_base_ = ': 'test_docs.py::test_a_config_in_the_docs_can_be_built',
}
# Words that start a command within a sentence.
PROGRAMS = 'python|python3|bash|pip|mim|cp|git|curl|source'


def names(path):
    return path.relative_to(ROOT).as_posix()


def fences(doc, language):
    return re.findall(rf'```{language}\n(.*?)```', doc.read_text(encoding='utf-8'), flags=re.S)


def spans(doc):
    """Inline code, which may span lines."""
    text = re.sub(r'```.*?```', '', doc.read_text(encoding='utf-8'), flags=re.S)
    return [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', text)]


def commands():
    """Yield every command of the docs as (doc, line), in order."""
    for doc in DOCS:
        text = doc.read_text(encoding='utf-8')
        for language, block, span in re.findall(r'(?s)```(\w*)\n(.*?)```|`([^`]+)`', text):
            span = ' '.join(span.split())
            if language == 'bash':
                lines = re.sub(r'\\\n\s*', '', block).splitlines()
                # Without trailing comments.
                lines = (re.sub(r'(^|\s+)#.*', '', line).strip() for line in lines)
                yield from ((names(doc), line) for line in lines if line)
            elif language == 'python':
                yield names(doc), block
            elif re.match(rf'({PROGRAMS}|GPUS=\d+|\.venv/\S+) ', span):
                yield names(doc), span


def runner_of(command):
    return next((by for start, by in RUN_BY.items() if re.match(start, command)), None)


def test_every_command_in_the_docs_is_run_by_a_test():
    everything = list(commands())
    assert len(everything) > 40
    assert [command for _, command in everything if runner_of(command) is None] == []
    used = {runner_of(command) for _, command in everything}
    for by in set(RUN_BY.values()):
        assert by in used, f'no command of the docs is run by {by} any more'
        path, _, function = by.partition('::')
        if function:
            assert f'def {function}(' in (ROOT / 'tests' / path).read_text(), by
        else:
            assert (ROOT / path).is_file(), by


def parse(tool, words):
    """Return a tool's parsed arguments."""
    with pytest.MonkeyPatch.context() as patched:
        # Some placeholders of the docs have to be a number, or one of several choices.
        words = [re.sub(r'^(SIZE|SEED)$', '64', word).split('|')[0] for word in words]
        patched.setattr(sys, 'argv', [str(tool), *words])
        return runpy.run_path(str(ROOT / tool))['parse_args']()


TOOLS = sorted({c for c in commands() if re.match(r'python tools/', c[1])})


@pytest.mark.parametrize('doc, command', TOOLS, ids=[command[:60] for _, command in TOOLS])
def test_a_tool_accepts_the_arguments_in_the_docs(doc, command):
    tool, *words = shlex.split(command)[1:]
    parse(tool, words)


def test_options_within_a_sentence_exist():
    sources = ''.join(path.read_text() for path in (ROOT / 'tools').rglob('*.py'))
    for doc in DOCS:
        for span in spans(doc):
            if re.match('--[a-z]', span) and span != '--no-deps':  # pip's own
                assert f"'{span.split()[0].split('=')[0]}'" in sources, f'{names(doc)}: {span}'


@pytest.mark.parametrize(
    'tool',
    [
        names(path)
        for folder in ('tools', 'examples')
        for path in sorted((ROOT / folder).rglob('*.*'))
        if path.suffix in ('.py', '.sh') and path.parent.name != 'benchmarks'
    ],
)
def test_every_tool_has_a_help_with_an_example(tool, capsys, monkeypatch):
    if tool.endswith('.sh'):
        help_text = subprocess.check_output(['bash', ROOT / tool, '--help'], text=True)
    else:
        monkeypatch.setattr(sys, 'argv', [tool, '--help'])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / tool), run_name='__main__')
        assert ended.value.code == 0
        help_text = capsys.readouterr().out
    assert re.search(rf'(python|bash) {re.escape(tool)}', help_text), f'{tool}: {help_text}'


@pytest.mark.parametrize('doc', DOCS, ids=names)
def test_bash_can_parse_the_commands(doc):
    for block in fences(doc, 'bash'):
        subprocess.run(['bash', '-n', '-c', block], check=True)


def test_own_data_by_hand(data_root, tmp_path, monkeypatch):
    """The steps in docs/own_data.md, on a dataset of twelve images."""
    by_hand = [c for _, c in commands() if runner_of(c).endswith('test_own_data_by_hand')]
    for name in ('configs', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    # Values at the top of the config are edited in the file, as a user does.
    options = {k: v for k, v in make_options(data_root).items() if '.' not in k}
    options.update(
        max_epochs=2, val_interval=1, teacher_ckpt='work_dirs/rtmdet_teacher/epoch_2.pth'
    )
    done = []
    for command in by_hand:
        program, *words = shlex.split(command)
        if program == 'cp':
            subprocess.run([program, *words], check=True)
            for config in Path(words[-1]).glob('*.py'):
                text = config.read_text()
                for name, value in options.items():
                    value = tuple(value) if isinstance(value, list) else value
                    text = re.sub(rf'^{name} = .*', f'{name} = {value!r}', text, flags=re.M)
                # An epoch of three iterations would never be logged.
                config.write_text(
                    text.replace('logger=dict(interval=10)', 'logger=dict(interval=1)')
                )
        else:
            done.append(Path(words[0]).stem)
            run_tool(Path(words[0]).relative_to('tools'), *words[1:])
    assert sorted(done) == ['check', 'report', 'train', 'train']
    assert Path('work_dirs/kd_student_teacher/report.html').is_file()


# Replaces the Python of .venv: records its arguments and creates the files that a tool would.
# A shell script, because a shebang line cannot hold a path with a space.
PYTHON = """#!/bin/sh
exec "{python}" - "$@" <<'END'
import json, sys
from pathlib import Path
words = sys.argv[1:]
with open('calls', 'a') as calls:
    calls.write(json.dumps(words) + chr(10))
def given(option):
    return Path(words[words.index(option) + 1]) if option in words else None
if given('--work-dir'):
    given('--work-dir').mkdir(parents=True)
    (given('--work-dir') / 'last_checkpoint').write_text('epoch_1.pth')
if given('--out-path'):
    (given('--out-path') / 'epoch_1_student.pth').touch()
if 'quickstart_report.py' in ' '.join(words):
    Path(words[-1], 'report.md').touch()
END
"""


@pytest.mark.parametrize(
    'script, expected',
    [
        (
            'quickstart.sh',
            ['pip', 'train', 'train', 'convert_kd_ckpt_to_student', 'test', 'test', 'test']
            + ['quickstart_report'],
        ),
        ('run_tests.sh', ['pip', 'pytest']),
        ('soak.sh', ['pip', 'pytest', 'pytest']),
    ],
)
def test_a_script_calls_existing_tools_with_valid_arguments(script, expected, tmp_path):
    """The script runs with a fake Python; the arguments of its commands are parsed."""
    shutil.copytree(ROOT / 'tools', tmp_path / 'tools')
    for name in ('setup.py', 'requirements.txt', 'constraints.txt'):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    subprocess.run(['bash', f'tools/{script}'], cwd=tmp_path, check=True, capture_output=True)
    calls = [json.loads(line) for line in (tmp_path / 'calls').read_text().splitlines()]
    called = []
    for words in calls:
        while words[0] in ('-W', '-m'):
            words = words[2:] if words[0] == '-W' else words[1:]
        if words[0].endswith('.py'):
            for word in words[1:]:
                assert not word.startswith('configs/') or (ROOT / word).is_file(), word
            parse(*words[:1], words[1:])
        if words[0] != '-c':
            called.append(Path(words[0]).stem)
    assert called == expected


def test_slurm_train_passes_a_valid_command_to_srun(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"')
    srun.chmod(0o755)
    (command,) = {c for _, c in commands() if 'slurm' in c}
    done = subprocess.run(
        ['bash', '-c', f'config=some.py; {command} --amp'],
        cwd=ROOT,
        env=dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}'),
        check=True,
        capture_output=True,
        text=True,
    )
    words = done.stdout.split()
    assert {'-p', 'PARTITION', '--job-name=JOB', '--ntasks=16'} < set(words)
    at = words.index('tools/train.py')
    args = parse(words[at], words[at + 1 :])
    assert (args.config, args.work_dir, args.launcher, args.amp) == (
        'some.py',
        'WORK_DIR',
        'slurm',
        True,
    )


def test_mmyolos_download_script_accepts_the_command_in_the_docs(monkeypatch):
    (command,) = (c for _, c in commands() if 'download_dataset' in c)
    path, words = re.search(r'\.mim/(\S+)" (.*)', command).groups()
    script = MMYOLO / path
    monkeypatch.setattr(sys, 'argv', [str(script), *words.split()])
    args = runpy.run_path(str(script))['parse_args']()
    assert (args.dataset_name, args.save_dir, args.unzip) == ('coco2017', 'data/coco', True)


def test_versions_in_the_docs_fit_the_requirements():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    needed = {r.name: r for line in lines if line and line[0] != '#' for r in [Requirement(line)]}
    for _, command in commands():
        if command.startswith('pip install "'):
            for word in shlex.split(command)[2:]:
                if not word.startswith(('-', '.')):
                    asked = Requirement(word)
                    for wanted in asked.specifier:
                        if wanted.operator == '==':
                            assert needed[asked.name].specifier.contains(wanted.version), word


def test_ruff_finds_nothing():
    for words in (['check'], ['format', '--check']):
        subprocess.run([sys.executable, '-m', 'ruff', *words, str(ROOT)], check=True)


CONFIGS = [
    (names(doc), block) for doc in DOCS for block in fences(doc, 'python') if '_base_ = ' in block
]


@pytest.mark.parametrize('doc, text', CONFIGS, ids=[doc for doc, _ in CONFIGS])
def test_a_config_in_the_docs_can_be_built(doc, text, tmp_path):
    path = tmp_path / 'own.py'
    # Our bases as paths in the checkout; test_packaging tests the installed ones.
    text = re.sub(r"'rtm_kd::rtmdet/", f"'{ROOT}/configs/", text)
    path.write_text(re.sub(r"'rtm_kd::", f"'{ROOT}/configs/", text))
    cfg = load_config(str(path))
    for hook in cfg.custom_hooks:
        if hook['type'].startswith('rtm_kd.'):
            HOOKS.build(hook)
    for backend in cfg.get('visualizer', {}).get('vis_backends', []):
        assert VISBACKENDS.get(backend['type']), backend


def test_a_config_of_mmyolo_runs_after_the_changes_of_the_table(tmp_path):
    table = (ROOT / 'docs/migration.md').read_text().split('| --- | --- |')[1].split('\n\n')[0]
    changes = [re.findall(r'`(.+?)`', row) for row in table.strip().splitlines()]
    name = 'rtmdet/distillation/kd_tiny_rtmdet_s_neck_300e_coco.py'
    text = (MMYOLO / 'configs' / name).read_text()
    for change in changes:
        if len(change) == 1:
            text = f'{change[0]}\n{text}'
        else:
            assert change[0] in text
            text = text.replace(*change)
    path = tmp_path / 'moved.py'
    path.write_text(text)
    (tmp_path / 'copy').mkdir()
    cfg, model = build_a_copy_alone(path, tmp_path / 'copy')
    total, logged = model.parse_losses(model.loss(*batch()))
    assert total.isfinite() and sum('distill.loss_fpn' in name for name in logged) == 3
    assert type(HOOKS.build(cfg.custom_hooks[-1])) is DistillationLossDetachHook


def anchors(doc):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r'^#+ (.+)$', doc.read_text(encoding='utf-8'), flags=re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('doc', DOCS, ids=names)
def test_links_and_anchors_exist(doc):
    for link in re.findall(r'\]\(([^)]+)\)', doc.read_text(encoding='utf-8')):
        if '://' not in link:
            path, _, anchor = link.partition('#')
            target = doc.parent / path if path else doc
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('doc', DOCS, ids=names)
def test_tests_and_files_that_are_named_exist(doc):
    text = doc.read_text(encoding='utf-8')
    sources = ''.join(
        path.read_text(encoding='utf-8') for path in (ROOT / 'tests').rglob('test_*.py')
    )
    for test in re.findall(r'`(test_\w+_\w+)`', text):
        assert f'def {test}(' in sources, test
    for path in re.findall(r'`((?:configs|rtm_kd|tests|docs)/[\w/.-]+\.\w+)`', text):
        assert (ROOT / path).exists() or path.startswith('configs/mine'), path


# Patterns that read as translated, and what to write instead.
NOT_ENGLISH = {
    r"one's own": 'your own',
    r'whoever|nobody|somebody': 'name the subject',
    r'by (itself|themselves)': 'automatically, alone',
    r'go(es|ing|ne)? on (from|with|where|in)': 'resume, continue',
    r'no numbers': 'NaN or Inf',
    r'(is|are) no (folder|file|path|number|list|square|code|submodule)': 'is not a ...',
    r'(brings?|mends?) ': 'ships with, fixes',
    r'lies (in|beside|below|at)': 'is in ...',
    r'of [\w-]+ say': 'for example',
    r'strangers?': 'untrusted',
    r'(said|says) (of|so of)': 'reports',
    r'for want of': 'for lack of',
}
WRITTEN = DOCS + [
    path
    for place in ('tools', 'configs', 'examples', 'rtm_kd', 'tests')
    for path in sorted((ROOT / place).rglob('*'))
    if path.suffix in ('.py', '.sh') and path != Path(__file__)
]


def test_prose_avoids_patterns_that_read_as_translated():
    found = []
    for path in WRITTEN:
        text = path.read_text(encoding='utf-8')
        # A phrase may span lines, also in a comment, or be the name of a test.
        text = ' '.join(re.sub(r'\n\s*#?|_', ' ', text).split())
        for pattern, better in NOT_ENGLISH.items():
            for match in re.finditer(rf'\b({pattern})', text, flags=re.I):
                words = text[max(match.start() - 30, 0) : match.end() + 30]
                found.append(f'{names(path)}: "...{words}...", write: {better}')
    assert not found, '\n'.join(found)


if __name__ == '__main__':
    print('| Doc | What is typed | Run by |\n| --- | --- | --- |')
    for doc, command in dict.fromkeys(commands()):
        first = command.strip().splitlines()[0]
        print(f'| {doc} | `{first}` | {runner_of(command)} |')

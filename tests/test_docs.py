"""What the docs name exists: files, tools, their options, tests."""

import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT

DOCS = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])


def names(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize('doc', DOCS, ids=names)
def test_links_lead_somewhere(doc):
    for link in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', doc.read_text(encoding='utf-8')):
        if '://' not in link:
            assert (doc.parent / link).exists(), link


def commands():
    """Every command that runs one of our tools, as (doc, words)."""
    for doc in DOCS:
        text = doc.read_text(encoding='utf-8').replace('\\\n', ' ')
        # Inline code may run over the end of a line.
        spans = re.findall(r'`([^`]+)`', re.sub(r'```.*?```', '', text, flags=re.S))
        blocks = re.findall(r'```bash\n(.*?)```', text, flags=re.S)
        lines = [' '.join(span.split()) for span in spans]
        lines += [line for block in blocks for line in block.splitlines()]
        for line in lines:
            if re.match(r'(GPUS=\d+ )?(python|bash) tools/', line):
                yield names(doc), shlex.split(line, comments=True)


def test_the_docs_have_commands():
    assert len(list(commands())) > 20


@pytest.fixture(scope='module')
def options_of():
    """The options that a tool's --help names."""
    known = {}

    def of(tool):
        if tool not in known:
            done = subprocess.run(
                [sys.executable, '-W', 'ignore', str(ROOT / tool), '--help'],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert 'python tools/' in done.stdout, f'{tool} --help has no example'
            known[tool] = set(re.findall(r'--[a-z][a-z-]*', done.stdout))
        return known[tool]

    return of


def test_commands_name_tools_and_options_that_exist(options_of):
    for doc, words in commands():
        at = next(i for i, word in enumerate(words) if word.startswith('tools/'))
        tool = words[at]
        assert (ROOT / tool).is_file(), f'{doc}: {tool}'
        if tool.endswith('.py'):
            given = {word.split('=')[0] for word in words[at:] if re.match('--[a-z]', word)}
            assert given <= options_of(tool), f'{doc}: {shlex.join(words)}'


def test_every_tool_has_a_help_with_an_example(options_of):
    for tool in (ROOT / 'tools').rglob('*.py'):
        options_of(names(tool))


@pytest.mark.parametrize('doc', DOCS, ids=names)
def test_tests_and_files_that_are_named_exist(doc):
    text = doc.read_text(encoding='utf-8')
    sources = ''.join(
        path.read_text(encoding='utf-8') for path in (ROOT / 'tests').rglob('test_*.py')
    )
    for test in re.findall(r'`(test_\w+)`', text):
        assert f'def {test}(' in sources, test
    for path in re.findall(r'`((?:configs|rtm_kd|tests|docs)/[\w/.-]+\.\w+)`', text):
        assert (ROOT / path).exists() or path.startswith('configs/mine'), path

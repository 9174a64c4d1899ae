"""Error messages as single printable lines."""

import io
import sys

import pytest

from rtm_kd.utils.errors import RunError, UsageError, printable, report_usage_errors

ODD = '\x1b[2J\x1b]0;owned\x07 a\nb\r\0 \udc80\ud800 \u202etxt'


def test_untrusted_text_becomes_one_line_without_escape_sequences():
    assert printable('größe 大きさ') == 'größe 大きさ'
    line = printable(ODD)
    assert line.isprintable()
    assert line.startswith('\\x1b[2J\\x1b]0;owned\\x07 a\\nb\\r\\x00 \\udc80\\ud800 \\u202etxt')
    assert printable(line) == line


@pytest.mark.parametrize('character', ['a', '\x1b', '\udc80', '\U000e0001'])
def test_a_very_long_text_keeps_both_ends(character):
    line = printable('the beginning ' + 3_000_000 * character + ' and the remedy')
    assert len(line) <= 2000 and line.isprintable()
    assert line.startswith('the beginning ') and line.endswith(' and the remedy')
    assert printable(line) == line


@pytest.mark.parametrize('kind', [UsageError, RunError])
def test_every_user_error_is_one_printable_line(kind, capsys):
    with pytest.raises(SystemExit) as ended, report_usage_errors():
        raise kind(f'{ODD} is no class; rename it')
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'error: {printable(ODD)} is no class; rename it'
    assert len(str(kind(5_000_000 * 'a'))) <= 2000


def test_a_full_disk_is_named_in_one_printable_line(capsys):
    with pytest.raises(SystemExit), report_usage_errors():
        raise OSError(28, 'No space left on device', '/data/' + ODD)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'error: /data/{printable(ODD)}: No space left on device'


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8'])
def test_characters_that_an_output_cannot_encode_are_escaped(monkeypatch, encoding):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(bytes_, encoding=encoding))
    with report_usage_errors():
        print('größe \udc80')
        sys.stdout.flush()
    expected = 'gr\\xf6\\xdfe \\udc80' if encoding == 'ascii' else 'größe \\udc80'
    assert bytes_.getvalue().decode() == f'{expected}\n'

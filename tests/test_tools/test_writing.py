"""Files that can't be written: one line with the path, and nothing half-written."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
from helpers import KD_CONFIG, as_arguments, run_tool

from rtm_kd.utils import report_usage_errors
from rtm_kd.utils.files import atomic_write


@pytest.fixture
def refused(capsys):
    def refused(program):
        with pytest.raises(SystemExit) as ended:
            program()
        assert ended.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    return refused


def test_a_full_disk_keeps_the_old_file_and_is_named(tmp_path, monkeypatch, refused):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def full(self, *_, **__):
        Path.touch(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_text', full)

    def program():
        with report_usage_errors(), atomic_write(path) as part:
            part.write_text('new')

    assert refused(program) == f'error: {path}: No space left on device'
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == 'old'


def test_a_full_disk_without_a_known_file_is_not_reported_as_none(refused):
    def program():
        with report_usage_errors():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert refused(program) == 'error: a file that was being written: No space left on device'


def test_converting_onto_a_folder_is_refused(distilled, tmp_path, refused):
    (tmp_path / 'epoch_1_student.pth').mkdir()
    arguments = [distilled / 'epoch_1.pth', '--out-path', tmp_path]
    said = refused(lambda: run_tool('model_converters/convert_kd_ckpt_to_student.py', *arguments))
    assert str(tmp_path / 'epoch_1_student.pth') in said
    assert len([*tmp_path.iterdir()]) == 1


def test_converting_below_a_file_is_refused(distilled, tmp_path, refused):
    (tmp_path / 'file').touch()
    arguments = [distilled / 'epoch_1.pth', '--out-path', tmp_path / 'file/out']
    said = refused(lambda: run_tool('model_converters/convert_kd_ckpt_to_student.py', *arguments))
    assert said.startswith('error: ') and str(tmp_path / 'file') in said


def test_predictions_are_refused_before_the_test(distilled, options, tmp_path, refused):
    (tmp_path / 'out.pkl').mkdir()
    arguments = [KD_CONFIG, distilled / 'epoch_3.pth', '--work-dir', tmp_path / 'test']
    arguments += ['--out', tmp_path / 'out.pkl', '--cfg-options', *as_arguments(options)]
    assert 'out.pkl is a folder' in refused(lambda: run_tool('test.py', *arguments))
    assert not (tmp_path / 'test').exists()


@pytest.fixture
def _full_disk(monkeypatch):
    replaced = os.replace

    def full(source, target):
        if str(target).endswith(('.py', '.pth')):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        replaced(source, target)

    monkeypatch.setattr(os, 'replace', full)


@pytest.mark.usefixtures('_full_disk')
def test_an_export_on_a_full_disk(distilled, options, tmp_path, refused):
    arguments = [KD_CONFIG, distilled / 'epoch_1.pth', '--format', 'pth', '--out-path', tmp_path]
    arguments += ['--cfg-options', *as_arguments(options)]
    said = refused(lambda: run_tool('export.py', *arguments))
    name = r'kd_student_teacher-\w{8}\.pth'
    assert re.fullmatch(rf'error: {tmp_path}/{name}: No space left on device', said)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures('_full_disk')
def test_configs_on_a_full_disk_are_whole_or_not_there(data_root, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    arguments = ['--data-root', data_root, '--student', 'tiny', '--teacher', 's', '--train-teacher']
    arguments += ['--img-size', 64, '--num-workers', 0, '--name', 'mine', '--dry-run']
    said = refused(lambda: run_tool('distill.py', *arguments))
    assert said.startswith('error: configs/mine/') and said.endswith('No space left on device')
    assert not [path for path in Path('configs').rglob('*') if path.is_file()]
    shutil.rmtree('configs')


@pytest.mark.usefixtures('_full_disk')
def test_a_comparisons_configs_on_a_full_disk(options, tmp_path, monkeypatch, refused):
    monkeypatch.setattr('rtm_kd.comparison.compare._RUN', 'no_such_module')
    arguments = [KD_CONFIG, '--work-dir', tmp_path, '--cfg-options', *as_arguments(options)]
    said = refused(lambda: run_tool('compare.py', *arguments))
    assert re.fullmatch(rf'error: {tmp_path}/\w+\.py: No space left on device', said)
    assert [path.name for path in tmp_path.iterdir()] == ['lock']

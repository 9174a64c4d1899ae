"""Untrusted text in configs: it stays the same however often it is written and read."""

from pathlib import Path

import pytest
from mmengine.config import Config

from rtm_kd.compat.config_text import inert
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.config import read_dumped_config

# MMEngine executed or changed each of these when it read them.
NAMES = (
    '{{$X:.*}}',
    "}}'+str(__import__('os').system('touch OWNED')),)#",
    '{{ fileBasename }}',
    '{{ _base_.data_root }}',
    '{{{{$X:a}}}}',
    'a "quote", it\'s\\ {{ fileDirname }}\\',
)


@pytest.mark.parametrize('read', [Config.fromfile, load_config, read_dumped_config])
def test_a_dumped_config_reads_back_with_the_same_values(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    values = dict(
        names=NAMES,
        listed=[*NAMES, dict(name=NAMES)],
        dataset=dict(data_root=NAMES[5], metainfo=dict(classes=NAMES)),
        mapped={'not an identifier': NAMES[0], 'nested': {'1': {}}, 2: -1.5},
        nothing=None,
    )
    cfg = Config(values)
    for _ in range(2):
        cfg.dump('dumped.py')
        cfg = read('dumped.py')
        assert cfg.to_dict() == values
    assert not (tmp_path / 'OWNED').exists()


@pytest.mark.parametrize('suffix', ['json', 'yaml', 'yml'])
def test_a_config_in_json_or_yaml_reads_back_with_the_same_values(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    values = dict(names=[*NAMES, 'ä {{$X:a}}'], mapped={NAMES[0]: {NAMES[2] * 99: None}}, number=1)
    Path(f'mine.{suffix}').touch()
    cfg = Config(values, filename=f'mine.{suffix}')
    for _ in range(2):
        text = cfg.dump()
        cfg.dump(f'dumped.{suffix}')
        assert Path(f'dumped.{suffix}').read_text(encoding='utf-8') == text and '{{' not in text
        cfg = load_config(f'dumped.{suffix}')
        assert cfg.to_dict() == values
    assert not (tmp_path / 'OWNED').exists()


@pytest.mark.parametrize('name', [*NAMES, "'+str(__import__('os').system('touch OWNED'))+'"])
def test_the_name_of_a_configs_folder_is_not_executed(tmp_path, monkeypatch, name):
    folder = tmp_path / name.replace('/', '_')
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for quote in ("'", '"', '"""'):
        (folder / 'c.py').write_text(
            f'a = {quote}{{{{ fileDirname }}}}/{{{{fileBasename}}}}{quote}'
        )
        assert Config.fromfile(str(folder / 'c.py')).a == f'{folder}/c.py'
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_mmengines_own_placeholders_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv('HERE', 'there')
    (tmp_path / 'base.py').write_text('x = [1]')
    (tmp_path / 'c.py').write_text(
        "_base_ = './base.py'\na = '{{ fileBasenameNoExtension }}{{fileExtname}}'\n"
        "b = '{{$HERE:here}}'\nc = {{_base_.x}}\n"
    )
    cfg = load_config(str(tmp_path / 'c.py'))
    assert (cfg.a, cfg.b, cfg.c) == ('c.py', 'there', [1])


def test_source_that_is_made_inert_has_the_same_values():
    for value in (NAMES, '\\{{', '\n{{{', b'{{', ['{', '{{'], {'{{': '}}'}):
        assert '{{' not in inert(repr(value)) and eval(inert(repr(value))) == value


@pytest.mark.parametrize(
    'text',
    [
        "__import__('os').system('touch OWNED')",
        "a = __import__('os').system('touch OWNED')",
        "a = dict(b=[dict(**open('OWNED', 'w'))])",
        "a = dict({'b': dict(c=open('OWNED', 'w'))})",
        'from os import system as a',
        'a = b = 1',
        'a = dict(1, 2)',
        'a.b = 1',
        "filename = 'reserved'",
        'a = ' + '(' * 5000,
        'a = <class X>',
    ],
)
def test_a_work_dirs_config_is_read_and_not_run(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(text)
    with pytest.raises(UsageError, match=r'^config\.py is not a config that MMEngine dumped'):
        read_dumped_config('config.py')
    assert not (tmp_path / 'OWNED').exists()

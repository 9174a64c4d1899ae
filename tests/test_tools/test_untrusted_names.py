"""Class names, file names and paths that a config's text could execute or replace."""

import importlib
import json
import os
import shutil

import pytest
import yaml
from helpers import ROOT, make_options
from mmengine.config import Config

from rtm_kd.apis.distill import distill
from rtm_kd.apis.train import train
from rtm_kd.comparison.sides import paired_configs
from rtm_kd.reports.work_dir import WorkDir
from rtm_kd.utils import load_config, say

FIRST, SECOND = '{{$X:.*}}', "}}'+str(__import__('os').system('touch OWNED')),)#"
NAMES = (FIRST, SECOND)


def make_coco(root):
    for split in ('train', 'val'):
        path = root / 'annotations' / f'{split}.json'
        content = json.loads(path.read_text())
        for category, name in zip(content['categories'], NAMES):
            category['name'] = name
        path.write_text(json.dumps(content))


def make_yolo(root):
    shutil.rmtree(root / 'annotations')
    (root / 'labels').mkdir()
    for image in (root / 'images').iterdir():
        label = int(image.stem) % 2
        (root / 'labels' / f'{image.stem}.txt').write_text(f'{label} 0.5 0.5 0.5 0.5\n')
    content = dict(names=list(NAMES), train='images', val='images')
    (root / 'data.yaml').write_text(yaml.safe_dump(content))


def make_voc(root):
    shutil.rmtree(root / 'annotations')
    (root / 'images').rename(root / 'JPEGImages')
    (root / 'Annotations').mkdir()
    (root / 'ImageSets/Main').mkdir(parents=True)
    stems = [image.stem for image in (root / 'JPEGImages').iterdir()]
    for split in ('train', 'val'):
        (root / f'ImageSets/Main/{split}.txt').write_text('\n'.join(stems))
    for stem in stems:
        (root / f'Annotations/{stem}.xml').write_text(
            f'<annotation><filename>{stem}.png</filename>'
            '<size><width>64</width><height>64</height></size>'
            f'<object><name>{NAMES[int(stem) % 2]}</name><bndbox><xmin>4</xmin><ymin>4</ymin>'
            '<xmax>40</xmax><ymax>44</ymax></bndbox></object></annotation>'
        )


@pytest.mark.parametrize('make', [make_coco, make_yolo, make_voc])
@pytest.mark.parametrize('folder', ['data', '{{$X:a}} "b\\', '{{ fileBasename }}'])
def test_written_configs_have_the_class_names_of_the_data(
    data_root, tmp_path, monkeypatch, capsys, make, folder
):
    monkeypatch.chdir(tmp_path)
    # Only the text of the configs is tested, not the models.
    module = importlib.import_module('rtm_kd.apis.distill')
    monkeypatch.setattr(module, '_check_configs', lambda *args, **kwargs: None)
    shutil.copytree(data_root, folder)
    make(tmp_path / folder)
    given = {}
    if make is make_coco:
        for split, name in (('train', '{{ fileBasename }}.json'), ('val', SECOND.replace('/', ''))):
            given[f'{split}_ann'] = f'annotations/{name}.json'
            os.rename(f'{folder}/annotations/{split}.json', f'{folder}/{given[f"{split}_ann"]}')
    result = distill(
        say,
        data_root=folder,
        **given,
        student='tiny',
        teacher='s',
        templates=str(ROOT / 'configs/custom_dataset'),
        train_teacher=True,
        work_dir=f'{folder}/runs {{{{$Y:.}}}}',
        dry_run=True,
    )
    cfg = load_config(str(result.configs.distillation))
    names = tuple(sorted(NAMES)) if make is make_voc else NAMES
    assert cfg.class_names == names and cfg.train_dataloader.dataset.metainfo.classes == names
    assert os.path.samefile(cfg.data_root, folder)
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert os.path.isfile(os.path.join(dataset.data_root, dataset.ann_file))
        assert make is not make_coco or dataset.ann_file.endswith(given[f'{split}_ann'])
    assert cfg.teacher_ckpt == f'{folder}/runs {{{{$Y:.}}}}/{result.configs.teacher.stem}/best.pth'
    assert os.path.samefile(cfg.teacher, result.configs.teacher)
    # As compare writes it for its runs.
    for arm, arm_cfg in paired_configs(cfg).items():
        arm_cfg.dump(f'{arm}.py')
        read = load_config(f'{arm}.py')
        assert read.train_dataloader.dataset.metainfo.classes == names
        assert read.to_dict() == arm_cfg.to_dict()
    assert not (tmp_path / 'OWNED').exists()


def test_odd_names_are_printed_without_escape_sequences(data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module('rtm_kd.apis.distill')
    monkeypatch.setattr(module, '_check_configs', lambda *args, **kwargs: None)
    shutil.copytree(data_root, 'data')
    names = '\x1b[2J\n\0\udc80', 100_000 * 'b'
    for split in ('train', 'val'):
        path = tmp_path / 'data/annotations' / f'{split}.json'
        content = json.loads(path.read_text())
        for category, name in zip(content['categories'], names):
            category['name'] = name
        content['annotations'] = [
            each for each in content['annotations'] if not each['category_id']
        ]
        path.write_text(json.dumps(content))
    result = distill(
        say,
        data_root='data',
        student='tiny',
        teacher='s',
        templates=str(ROOT / 'configs/custom_dataset'),
        train_teacher=True,
        dry_run=True,
    )
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith('warning: no box of bbb') for line in printed)
    assert all(line.isprintable() and len(line) <= 2000 for line in printed)
    assert load_config(str(result.configs.distillation)).class_names == names


def test_classes_with_braces_are_trained_and_evaluated(
    data_root, tmp_path, monkeypatch, plain_config
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_root, 'data')
    make_coco(tmp_path / 'data')
    options = dict(make_options('data'), class_names=list(NAMES), max_epochs=1, val_interval=1)
    del options['teacher_ckpt']
    train(plain_config, work_dir='run', cfg_options=options)

    work_dir = WorkDir('run')
    dumped = next((tmp_path / 'run').glob('*.py'))
    for cfg in (work_dir.cfg, Config.fromfile(str(dumped))):
        assert tuple(cfg.class_names) == NAMES
        assert tuple(cfg.val_dataloader.dataset.metainfo.classes) == NAMES
    meta = work_dir.read_checkpoint()[0]['meta']
    assert tuple(meta['dataset_meta']['classes']) == NAMES
    saved = Config.fromstring(meta['cfg'], '.py')
    assert tuple(saved.class_names) == NAMES
    assert not (tmp_path / 'OWNED').exists()

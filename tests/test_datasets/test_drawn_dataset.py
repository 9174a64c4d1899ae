import json
import multiprocessing
import os
import signal
import time

import cv2
import pytest

from rtm_kd.datasets import drawn_dataset
from rtm_kd.datasets.drawn_dataset import DrawnDataset, draw_dataset
from rtm_kd.registry import DATASETS

SMALL = dict(num_train=12, num_val=6)


def read(root, split):
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    draw_dataset(tmp_path / 'a', **SMALL)
    draw_dataset(tmp_path / 'b', **SMALL)
    draw_dataset(tmp_path / 'c', seed=1, **SMALL)
    a, b, c = (contents(tmp_path / name) for name in 'abc')
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)


def test_train_and_val_share_no_image(tmp_path):
    draw_dataset(tmp_path / 'data', num_train=6, num_val=6)
    files = contents(tmp_path / 'data')
    assert len(set(files.values())) == len(files) == 14


@pytest.mark.parametrize('split, num_images', [('train', 40), ('val', 20)])
def test_annotations_are_valid_coco(tmp_path, split, num_images):
    root = tmp_path / 'data'
    draw_dataset(root, num_train=40, num_val=20)
    content = read(root, split)
    assert [image['id'] for image in content['images']] == list(range(num_images))
    for image in content['images']:
        picture = cv2.imread(str(root / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3) == (128, 128, 3)
    ids = [annotation['id'] for annotation in content['annotations']]
    assert len(set(ids)) == len(ids)
    assert 0 not in ids  # pycocotools takes 0 for "no match"
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        assert w > 0 and h > 0
        assert x >= 0 and y >= 0 and x + w <= 128 and y + h <= 128
        assert 0 < annotation['area'] <= w * h
        assert 0 <= annotation['image_id'] < num_images
    categories = {category['id']: category['name'] for category in content['categories']}
    assert tuple(categories.values()) == drawn_dataset.CLASSES
    assert {a['category_id'] for a in content['annotations']} == set(categories)


def test_image_does_not_depend_on_how_many_there_are(tmp_path):
    draw_dataset(tmp_path / 'few', num_train=2, num_val=1)
    draw_dataset(tmp_path / 'more', num_train=4, num_val=1)
    few, more = contents(tmp_path / 'few'), contents(tmp_path / 'more')
    assert few['train/00001.jpg'] == more['train/00001.jpg']


def build(root, **kwargs):
    return DATASETS.build(
        dict(
            type='rtm_kd.DrawnDataset',
            data_root=str(root),
            ann_file='annotations/val.json',
            data_prefix=dict(img='val/'),
            pipeline=[],
            **kwargs,
        )
    )


@pytest.fixture
def small(monkeypatch):
    def draw_few(root):
        draw_dataset(root, **SMALL)

    monkeypatch.setattr(drawn_dataset, 'draw_dataset', draw_few)


def test_drawn_on_first_use(tmp_path, small):
    root = tmp_path / 'some' / 'where'
    dataset = build(root)
    assert isinstance(dataset, DrawnDataset)
    assert len(dataset) == 6
    assert dataset.metainfo['classes'] == drawn_dataset.CLASSES
    assert names(root.parent) == ['where']
    info = dataset.get_data_info(0)
    assert os.path.isfile(info['img_path'])
    assert info['instances'][0]['bbox_label'] in range(6)


def test_lazy_init_draws_nothing(tmp_path, small):
    dataset = build(tmp_path / 'data', lazy_init=True)
    assert names(tmp_path) == []
    dataset.full_init()
    assert len(dataset) == 6


def test_not_drawn_again(tmp_path):
    root = tmp_path / 'data'
    draw_dataset(root, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    draw_dataset(root, num_train=1, num_val=1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / 'data').mkdir()
    draw_dataset(tmp_path / 'data', **SMALL)
    assert names(tmp_path / 'data') == ['annotations', 'train', 'val']


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mine.txt').write_text('mine')
    with pytest.raises(ValueError, match=r'data exists and is not the drawn dataset; remove it'):
        draw_dataset(tmp_path / 'data', num_train=1, num_val=1)
    assert contents(tmp_path) == {'data/mine.txt': b'mine'}


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='set data_root to a folder that can be written'):
        draw_dataset(tmp_path / 'file' / 'data', **SMALL)


def test_data_root_is_required():
    with pytest.raises(ValueError, match='DrawnDataset needs data_root'):
        build('')


def _draw_when_all_are_ready(root, barrier):
    barrier.wait()
    draw_dataset(root, **SMALL)


def test_processes_at_once_leave_one_whole_dataset(tmp_path):
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(2)
    root = tmp_path / 'data'
    processes = [
        context.Process(target=_draw_when_all_are_ready, args=(root, barrier)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert names(tmp_path) == ['data']
    draw_dataset(tmp_path / 'alone', **SMALL)
    assert contents(root) == contents(tmp_path / 'alone')


def test_killed_half_way_leaves_nothing_that_looks_whole(tmp_path):
    root = tmp_path / 'data'
    process = multiprocessing.get_context('fork').Process(
        target=draw_dataset, args=(root,), kwargs=dict(num_train=100_000)
    )
    process.start()
    while not list(tmp_path.glob('.data-*/train/*.jpg')):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not root.exists()
    draw_dataset(root, **SMALL)
    assert len(read(root, 'train')['images']) == 12

import random

import pytest

from rtm_kd.datasets.split import split_coco


def make(tmp_path, names_and_classes):
    """COCO annotations for the given file names, with a box of each given class."""
    images, annotations = [], []
    for name, classes in names_and_classes:
        path = tmp_path / name
        if not path.exists():
            path.write_bytes(name.encode())
        images.append(dict(id=len(images) + 7, file_name=name, width=9, height=9))
        for label in classes:
            annotations.append(
                dict(id=len(annotations), image_id=images[-1]['id'], category_id=label)
            )
    labels = {label for _, classes in names_and_classes for label in classes}
    categories = [dict(id=label, name=str(label)) for label in sorted(labels)]
    return dict(images=images, annotations=annotations, categories=categories)


def names(content):
    return {image['file_name'] for image in content['images']}


def labels(content):
    return {annotation['category_id'] for annotation in content['annotations']}


def test_a_split_keeps_every_image_and_the_requested_fraction(tmp_path):
    whole = make(tmp_path, [(f'{i:03}.jpg', [i % 2, 2][: 1 + (i % 3 == 0)]) for i in range(100)])
    train, val = split_coco(whole, tmp_path, 0.2)
    assert names(train) | names(val) == names(whole)
    assert not names(train) & names(val)
    assert 18 <= len(val['images']) <= 22
    assert len(train['annotations']) + len(val['annotations']) == len(whole['annotations'])
    for part in (train, val):
        ids = {image['id'] for image in part['images']}
        assert {annotation['image_id'] for annotation in part['annotations']} <= ids
        assert part['categories'] == whole['categories']
    for label in range(3):
        share = sum(a['category_id'] == label for a in val['annotations']) / sum(
            a['category_id'] == label for a in whole['annotations']
        )
        assert 0.12 <= share <= 0.28


def test_the_same_seed_gives_the_same_split_in_whatever_order(tmp_path):
    files = [(f'{i}.jpg', [0]) for i in range(30)]
    first = split_coco(make(tmp_path, files), tmp_path, 0.3, seed=3)
    random.Random(0).shuffle(files)
    again = split_coco(make(tmp_path, files), tmp_path, 0.3, seed=3)
    other = split_coco(make(tmp_path, files), tmp_path, 0.3, seed=4)
    assert names(first[1]) == names(again[1]) != names(other[1])


@pytest.mark.parametrize('seed', range(5))
def test_copies_of_an_image_stay_on_one_side(tmp_path, seed):
    copies = [f'{i}_jpg.rf.{digest}.jpg' for i in range(10) for digest in ('aa1', 'bb2', 'cc3')]
    # The bytes of the third copy are those of another name altogether.
    for i in range(10):
        (tmp_path / f'{i}_jpg.rf.cc3.jpg').write_bytes(b'same bytes, %d' % i)
        (tmp_path / f'export {i}.jpg').write_bytes(b'same bytes, %d' % i)
        copies.append(f'export {i}.jpg')
    train, val = split_coco(make(tmp_path, [(name, [0]) for name in copies]), tmp_path, 0.3, seed)
    assert len(val['images']) == 12
    for i in range(10):
        group = {name for name in copies if name.startswith(f'{i}_') or name == f'export {i}.jpg'}
        assert len(group) == 4
        assert group <= names(train) or group <= names(val)


@pytest.mark.parametrize('seed', range(5))
def test_a_rare_class_is_on_both_sides(tmp_path, seed):
    files = [(f'{i}.jpg', [0]) for i in range(40)]
    files += [('rare 1.jpg', [0, 1]), ('rare 2.jpg', [1]), ('unique.jpg', [2])]
    train, val = split_coco(make(tmp_path, files), tmp_path, 0.1, seed)
    assert labels(train) == {0, 1, 2}
    assert labels(val) == {0, 1}


def test_even_a_tiny_dataset_has_images_on_both_sides(tmp_path):
    train, val = split_coco(make(tmp_path, [('a.jpg', [0]), ('b.jpg', [1])]), tmp_path, 0.1)
    assert len(train['images']) == len(val['images']) == 1
    background = [(f'{i}.jpg', []) for i in range(10)] + [('a.jpg', [0]), ('b.jpg', [0])]
    train, val = split_coco(make(tmp_path, background), tmp_path, 0.25)
    assert len(val['images']) == 3
    assert labels(train) == labels(val) == {0}


@pytest.mark.parametrize('fraction', [0, 1, -0.2, 1.5])
def test_a_fraction_that_leaves_a_side_empty_is_refused(tmp_path, fraction):
    with pytest.raises(ValueError, match='between 0 and 1'):
        split_coco(make(tmp_path, [('a.jpg', [0]), ('b.jpg', [0])]), tmp_path, fraction)


def test_a_seed_below_0_is_refused(tmp_path):
    with pytest.raises(ValueError, match='--seed must be 0 or above, got -1'):
        split_coco(make(tmp_path, [('a.jpg', [0]), ('b.jpg', [0])]), tmp_path, 0.5, seed=-1)


def test_a_dataset_of_copies_alone_is_refused(tmp_path):
    whole = make(tmp_path, [('a_jpg.rf.1a.jpg', [0]), ('a_jpg.rf.2b.jpg', [0])])
    with pytest.raises(ValueError, match='2 images are 1 without their copies'):
        split_coco(whole, tmp_path, 0.5)

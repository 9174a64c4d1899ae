"""Conversion of YOLO txt and Pascal VOC XML to COCO JSON; dropped labels are reported."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from helpers import CLASSES, run_tool
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rtm_kd.datasets.converters import CocoWriter, convert_dataset, open_annotations
from rtm_kd.datasets.prepare import DataSource, prepare_data
from rtm_kd.utils.image_size import image_size


def prepare(data_root, out_dir, *args, **options):
    prepared = prepare_data(DataSource(str(data_root), *args, **options), str(out_dir))
    return SimpleNamespace(**{**prepared.values, **vars(prepared)})


def read(path):
    return json.loads(path.read_text())


def boxes(content):
    """Sorted boxes as (file name, class, x, y, width, height)."""
    names = {category['id']: category['name'] for category in content['categories']}
    files = {image['id']: os.path.basename(image['file_name']) for image in content['images']}
    return sorted(
        (files[a['image_id']], names[a['category_id']], *a['bbox']) for a in content['annotations']
    )


def draw(path, width=64, height=48, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (width, height)).save(path, **kwargs)
    return path


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines), encoding='utf-8')
    return path


def yolo_line(annotation):
    x, y, w, h = annotation['bbox']
    shares = ((x + w / 2) / 64, (y + h / 2) / 64, w / 64, h / 64)
    return ' '.join(f'{value:.6f}' for value in (annotation['category_id'], *shares))


def xml(filename, objects, size=(64, 48)):
    entries = ''.join(
        f'<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>'
        f'<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>'
        '</bndbox></object>'
        for name, box, difficult in objects
    )
    return (
        f'<annotation><filename>{filename}</filename><size><width>{size[0]}</width>'
        f'<height>{size[1]}</height></size>{entries}</annotation>'
    )


def voc_xml(image, annotations):
    def corners(x, y, w, h):
        return x + 1, y + 1, x + w, y + h

    objects = [(CLASSES[a['category_id']], corners(*a['bbox']), 0) for a in annotations]
    return xml(image['file_name'], objects, (64, 64))


@pytest.fixture(scope='module')
def coco(data_root):
    return read(data_root / 'annotations/train.json')


@pytest.fixture(scope='module')
def yolo_root(data_root, coco, tmp_path_factory):
    root = tmp_path_factory.mktemp('Daten für YOLO')
    for split in ('train', 'val'):
        shutil.copytree(data_root / 'images', root / 'images' / split)
        for image in coco['images']:
            own = [a for a in coco['annotations'] if a['image_id'] == image['id']]
            write(root / f'labels/{split}/{image["id"]}.txt', *map(yolo_line, own))
    names = '\n'.join(f'  {label}: {name}' for label, name in enumerate(CLASSES))
    write(root / 'data.yaml', 'train: images/train', 'val: images/val', f'names:\n{names}')
    return root


@pytest.fixture(scope='module')
def voc_root(data_root, coco, tmp_path_factory):
    root = tmp_path_factory.mktemp('VOC')
    shutil.copytree(data_root / 'images', root / 'JPEGImages')
    for image in coco['images']:
        own = [a for a in coco['annotations'] if a['image_id'] == image['id']]
        write(root / f'Annotations/{image["id"]}.xml', voc_xml(image, own))
    for split, ids in (('train', range(8)), ('val', range(8, 12))):
        write(root / f'ImageSets/Main/{split}.txt', *map(str, ids))
    return root


@pytest.mark.parametrize('path', ['', 'data.yaml', 'images/train', 'labels/train'])
def test_yolo_gives_the_boxes_of_coco(yolo_root, coco, path):
    annotations = open_annotations(yolo_root / path, yolo_root)
    assert annotations.format == 'YOLO'
    assert annotations.classes == list(CLASSES)
    converted = annotations.convert(annotations.split_for('train'))
    assert converted.summary() == ['images: 12, boxes: 12 (disc 6, square 6)']
    assert boxes(converted.content) == boxes(coco)
    assert all(
        (converted.image_folder / i['file_name']).is_file() for i in converted.content['images']
    )


@pytest.mark.parametrize('path', ['', 'ImageSets/Main/train.txt'])
def test_voc_gives_the_boxes_of_coco(voc_root, coco, path):
    annotations = open_annotations(voc_root / path, voc_root)
    assert annotations.format == 'VOC'
    assert annotations.classes == sorted(CLASSES)
    converted = annotations.convert(annotations.split_for('train'))
    assert boxes(converted.content) == [box for box in boxes(coco) if int(box[0].split('.')[0]) < 8]


def test_coco_stays_where_it_is(data_root, coco, tmp_path):
    prepared = prepare(data_root, tmp_path / 'out')
    assert prepared.data_root == f'{data_root}/'
    assert (prepared.train_ann_file, prepared.val_ann_file) == (
        'annotations/train.json',
        'annotations/val.json',
    )
    assert prepared.train_data_prefix == prepared.val_data_prefix == 'images/'
    assert prepared.class_names == list(CLASSES)
    assert prepared.num_train_images == 12
    assert not (tmp_path / 'out').exists()


def test_the_tools_convert_every_split(yolo_root, voc_root, tmp_path):
    for name, root, count in (('yolo2coco.py', yolo_root, 12), ('voc2coco.py', voc_root, 8)):
        said = run_tool(f'dataset_converters/{name}', root, tmp_path / name)
        assert f'train: images: {count}, boxes: {count}' in said
        assert len(read(tmp_path / name / 'train.json')['images']) == count
        assert read(tmp_path / name / 'val.json')['annotations']
    assert sorted(path.name for path in yolo_root.iterdir()) == ['data.yaml', 'images', 'labels']


@pytest.mark.parametrize('terminal', [True, False])
def test_a_terminal_shows_the_remaining_time(yolo_root, tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal)
    run_tool('dataset_converters/yolo2coco.py', yolo_root, tmp_path / 'out')
    assert ('ETA' in capsys.readouterr().err) == terminal


def test_dropped_yolo_labels_are_counted_with_their_places(tmp_path):
    draw(tmp_path / 'images/a.jpg')
    draw(tmp_path / 'images/background.jpg')
    write(tmp_path / 'images/broken.jpg', 'no image')
    write(tmp_path / 'classes.txt', 'red cell', 'white cell')
    write(
        tmp_path / 'labels/a.txt',
        '0 0.5 0.5 0.25 0.25',
        '1 0.1 0.1 0.1 0.5 0.3 0.25',  # a polygon: its bounding box
        '0 0.5 0.5 0.25 0.25',
        '7 0.5 0.5 0.25 0.25',
        '0 0.5 0.5 0 0.25',
        '0 0.5 0.5 -0.25 0.25',
        '0 1.5 0.5 0.25 0.25',
        '0 320 240 50 50',
        '0 0.5 0.5 0.25',
        'zero 0.5 0.5 0.25 0.25',
        '0 nan 0.5 0.25 0.25',
        '0 1.0 0.5 0.25 0.25',  # half of it is outside
    )
    write(tmp_path / 'labels/orphan.txt', '0 0.5 0.5 0.25 0.25')
    converted = open_annotations(tmp_path, tmp_path).convert('all')
    assert boxes(converted.content) == [
        ('a.jpg', 'red cell', 24, 18, 16, 12),
        ('a.jpg', 'red cell', 56, 18, 8, 12),
        ('a.jpg', 'white cell', 6.4, 4.8, 12.8, 19.2),
    ]
    assert converted.summary() == [
        'images: 2 (1 without boxes), boxes: 3 (red cell 2, white cell 1)',
        'dropped boxes given twice: 1 (labels/a.txt:3)',
        'dropped boxes of other classes: 1 (labels/a.txt:4: 7)',
        'dropped boxes of no size, under a pixel: 2 (labels/a.txt:5, labels/a.txt:6)',
        'dropped boxes outside their image: 1 (labels/a.txt:7)',
        'dropped boxes in pixels, not in shares of the image: 1 (labels/a.txt:8)',
        'dropped lines that are not a box: 3 (labels/a.txt:9, labels/a.txt:10, labels/a.txt:11)',
        "dropped images that can't be read: 1 (images/broken.jpg)",
        'dropped label files without an image: 1 (labels/orphan.txt)',
        'without a label file: 1 (images/background.jpg)',
    ]


def test_dropped_voc_objects_are_counted_with_their_places(tmp_path):
    for name in ('a', 'turned', 'b'):
        draw(tmp_path / f'JPEGImages/{name}.JPG')
    write(
        tmp_path / 'Annotations/a.xml',
        xml(
            'renamed-since.jpg',
            [
                ('cat', (1, 1, 64, 48), 0),
                ('cat', (5, 5, 10, 10), 1),
                ('cat', (5, 5, 5, 10), 0),
                ('dog', (70, 5, 80, 10), 0),
                ('dog', ('', 5, 80, 10), 0),
            ],
        ),
    )
    write(tmp_path / 'Annotations/turned.xml', xml('turned.JPG', [], (48, 64)))
    write(tmp_path / 'Annotations/gone.xml', xml('gone.jpg', [('dog', (1, 1, 9, 9), 0)]))
    write(tmp_path / 'Annotations/b.xml', '<annotation><object>')
    converted = open_annotations(tmp_path, tmp_path).convert('all')
    assert boxes(converted.content) == [
        ('a.JPG', 'cat', 0, 0, 64, 48),
        ('a.JPG', 'cat', 4, 4, 6, 6),
    ]
    assert [a['iscrowd'] for a in converted.content['annotations']] == [0, 1]
    assert converted.summary() == [
        'images: 1, boxes: 2 (cat 2, dog 0)',
        'dropped boxes of no size, under a pixel: 1 (Annotations/a.xml, object 3)',
        'dropped boxes outside their image: 1 (Annotations/a.xml, object 4)',
        'dropped objects without a name or a box: 1 (Annotations/a.xml, object 5)',
        "dropped annotation files that can't be read: 1 (Annotations/b.xml)",
        'dropped images without a file: 1 (gone.jpg of Annotations/gone.xml)',
        'dropped images of another size than annotated: 1 (JPEGImages/turned.JPG: 48x64, not '
        '64x48)',
    ]


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b'</rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', [*range(1, 10), 'in XMP'])
def test_the_size_is_that_of_the_image_as_training_reads_it(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(xmp=XMP) if orientation == 'in XMP' else dict(exif=exif)
    path = draw(tmp_path / f'a.{suffix}', **options)
    image = mmcv.imfrombytes(path.read_bytes())
    assert image_size(path) == (image.shape[1], image.shape[0])


def roboflow_yolo(root):
    for split in ('train', 'valid'):
        draw(root / split / 'images/a.jpg', width=64 if split == 'train' else 32)
        write(root / split / 'labels/a.txt', '0 0.5 0.5 0.5 0.5')
    # Roboflow's paths start one folder too high.
    write(
        root / 'data.yaml',
        'train: ../train/images',
        'val: ../valid/images',
        'nc: 1',
        "names: ['a']",
    )


def roboflow_yolo_below(root):
    roboflow_yolo(root / 'export')


def capital_yolo(root):
    for split in ('train', 'val'):
        draw(root / 'Images' / split / f'{split}.jpg')
        write(root / 'Labels' / split / f'{split}.txt', BOX)
    write(root / 'classes.txt', 'a')


def lists_of_paths(root):
    for name in 'ab':
        draw(root / f'images/{name}.jpg')
        write(root / f'labels/{name}.txt', '0 0.5 0.5 0.5 0.5')
    write(root / 'obj.names', 'a')
    write(root / 'train.txt', './images/a.jpg')
    write(root / 'val.txt', 'images/b.jpg')


def roboflow_voc(root):
    for split in ('train', 'valid'):
        draw(root / split / 'a.jpg')
        write(root / split / 'a.xml', xml('a.jpg', [('a', (1, 1, 9, 9), 0)]))


def nested_voc(root):
    for name in ('train', 'val'):
        draw(root / f'VOC2012/JPEGImages/{name}.jpg')
        boxed = xml(f'{name}.jpg', [('a', (1, 1, 9, 9), 0)])
        write(root / f'VOC2012/Annotations/{name}.xml', boxed)
        write(root / f'VOC2012/ImageSets/Main/{name}.txt', name)
        write(root / f'VOC2012/ImageSets/Main/a_{name}.txt', f'{name}  1')


def roboflow_coco(root):
    for split in ('train', 'valid'):
        draw(root / split / 'a.jpg')
        content = dict(
            images=[dict(id=0, file_name='a.jpg', width=64, height=48)],
            annotations=[
                dict(id=1, image_id=0, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
            ],
            categories=[
                dict(id=0, name='project', supercategory='none'),
                dict(id=1, name='a', supercategory='project'),
            ],
        )
        write(root / split / '_annotations.coco.json', json.dumps(content))


@pytest.mark.parametrize(
    'layout, name',
    [
        (roboflow_yolo, 'YOLO'),
        (roboflow_yolo_below, 'YOLO'),
        (lists_of_paths, 'YOLO'),
        (roboflow_voc, 'VOC'),
        (capital_yolo, 'YOLO'),
        (nested_voc, 'VOC'),
        (roboflow_coco, 'COCO'),
    ],
)
def test_layouts_of_common_tools_are_found(tmp_path, layout, name):
    layout(tmp_path)
    annotations = open_annotations(tmp_path, tmp_path)
    assert annotations.format == name
    assert sorted(annotations.splits) == ['train', 'val']
    assert annotations.classes == ['a']
    for split in annotations.splits:
        converted = annotations.convert(split)
        assert len(converted.content['images']) == len(converted.content['annotations']) == 1
        file_name = converted.content['images'][0]['file_name']
        assert (converted.image_folder / file_name).is_file()


BOX = '0 0.5 0.5 0.5 0.5'


def one_coco_file(file, name):
    content = dict(
        images=[dict(id=0, file_name=name, width=64, height=48)],
        annotations=[dict(id=1, image_id=0, category_id=0, bbox=[1, 1, 9, 9], area=81, iscrowd=0)],
        categories=[dict(id=0, name='a', supercategory='')],
    )
    write(file, json.dumps(content))


def cvat_coco(root):
    draw(root / 'images/default/a.jpg')
    one_coco_file(root / 'annotations/instances_default.json', 'a.jpg')


def cvat_yolo(root):
    draw(root / 'obj_train_data/a.jpg')
    write(root / 'obj_train_data/a.txt', BOX)
    write(root / 'obj.names', 'a')
    write(root / 'obj.data', 'classes = 1', 'train = data/train.txt', 'names = data/obj.names')
    write(root / 'train.txt', 'data/obj_train_data/a.jpg')


def cvat_ultralytics(root):
    draw(root / 'images/train/a.jpg')
    write(root / 'labels/train/a.txt', BOX)
    write(root / 'train.txt', 'data/images/train/a.jpg')
    write(root / 'data.yaml', 'path: .', 'train: train.txt', 'names:', '  0: a')


def cvat_voc(root):
    draw(root / 'JPEGImages/a.jpg')
    write(root / 'Annotations/a.xml', xml('a.jpg', [('a', (1, 1, 9, 9), 0)]))
    write(root / 'ImageSets/Main/default.txt', 'a')
    write(root / 'labelmap.txt', '# label:color_rgb:parts:actions', 'a:1,2,3::')


def label_studio_coco(root):
    draw(root / 'images/1b2c-a.jpg')
    one_coco_file(root / 'result.json', 'images/1b2c-a.jpg')


def label_studio_yolo(root):
    draw(root / 'images/1b2c-a.jpg')
    write(root / 'labels/1b2c-a.txt', BOX)
    write(root / 'classes.txt', 'a')
    write(root / 'notes.json', json.dumps(dict(categories=[dict(id=0, name='a')], info={})))


def label_studio_voc(root):
    draw(root / 'images/1b2c-a.jpg')
    write(root / 'Annotations/1b2c-a.xml', xml('1b2c-a.jpg', [('a', (1, 1, 9, 9), 0)]))


def labelimg_voc(root):
    draw(root / 'a.jpg')
    write(root / 'a.xml', xml('a.jpg', [('a', (1, 1, 9, 9), 0)]))


def labelimg_yolo(root):
    draw(root / 'a.jpg')
    write(root / 'a.txt', BOX)
    write(root / 'classes.txt', 'a')


@pytest.mark.parametrize(
    'layout',
    [cvat_coco, cvat_yolo, cvat_ultralytics, cvat_voc, label_studio_coco, label_studio_yolo]
    + [label_studio_voc, labelimg_voc, labelimg_yolo],
)
def test_exports_without_a_validation_split_are_read(tmp_path, layout):
    layout(tmp_path)
    annotations = open_annotations(tmp_path, tmp_path)
    assert annotations.format.lower() in layout.__name__.replace('ultralytics', 'yolo')
    assert annotations.classes == ['a']
    # --val-fraction splits these images.
    converted = annotations.convert(annotations.split_for('train'))
    assert converted.dropped == {}
    assert len(converted.content['images']) == len(converted.content['annotations']) == 1
    file_name = converted.content['images'][0]['file_name']
    assert (converted.image_folder / file_name).is_file()


def one_yolo_image(root, classes=('a',)):
    draw(root / 'images/a.jpg')
    write(root / 'labels/a.txt', '0 0.5 0.5 0.5 0.5')
    write(root / 'classes.txt', *classes)


def test_classes_may_be_chosen_and_put_in_order(data_root, coco, tmp_path):
    prepared = prepare(data_root, tmp_path, classes=['square', 'disc'])
    assert prepared.class_names == ['square', 'disc']
    # MMDetection numbers classes in the file's order, regardless of the config.
    written = read(tmp_path / 'train.json')
    assert [category['name'] for category in written['categories']] == ['square', 'disc']
    assert boxes(written) == boxes(coco)
    only = prepare(data_root, tmp_path / 'only', classes=['disc'])
    assert only.num_train_images == 6
    assert 'dropped boxes of other classes: 6 (1.png, id 2: square' in '\n'.join(only.messages)


def test_annotations_to_evaluate_on_follow_the_order_of_those_to_train_on(
    data_root, coco, tmp_path
):
    turned = {**coco, 'categories': coco['categories'][::-1]}
    val = write(tmp_path / 'turned.json', json.dumps(turned))
    prepared = prepare(data_root, tmp_path, 'annotations/train.json', str(val), val_img='images')
    assert prepared.data_root == ''
    assert prepared.train_ann_file == str(data_root / 'annotations/train.json')
    written = read(tmp_path / 'val.json')
    assert [category['name'] for category in written['categories']] == list(CLASSES)
    assert boxes(written) == boxes(coco)
    assert 'trained on as well' in prepared.warnings[0]


@pytest.mark.parametrize('root', ['.', 'Bilder für KI', 'Bilder für KI/'])
def test_relative_paths_stay_relative(data_root, tmp_path, monkeypatch, root):
    shutil.copytree(data_root, tmp_path / root, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    prepared = prepare(root, 'out', train_ann='annotations/train.json', val_fraction=0.25)
    assert prepared.train_ann_file == 'out/train.json'
    prefix = prepared.data_root + prepared.train_data_prefix
    assert prefix == f'{root.rstrip("/")}/images/'
    images = read(tmp_path / prepared.train_ann_file)['images']
    assert all(os.path.isfile(prefix + image['file_name']) for image in images)


def test_nothing_is_written_into_the_data(yolo_root, tmp_path):
    before = sorted(yolo_root.rglob('*'))
    prepared = prepare(yolo_root, tmp_path / 'out')
    assert sorted(yolo_root.rglob('*')) == before
    assert sorted(os.listdir(tmp_path / 'out')) == ['train.json', 'val.json']
    assert prepared.train_data_prefix == f'{yolo_root}/'


def coco_content(boxes_of=lambda name: [[1, 2, 30, 20]], names='abcd', **image):
    """Images of 64x48 pixels of one class."""
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='a')])
    for number, name in enumerate(names):
        size = dict(width=64, height=48)
        content['images'].append(dict(id=number, file_name=f'{name}.jpg', **{**size, **image}))
        for box in boxes_of(name):
            content['annotations'].append(dict(image_id=number, category_id=1, bbox=box))
    return content


@pytest.fixture
def photos(tmp_path):
    for name in 'abcd':
        path = draw(tmp_path / f'data/images/{name}.jpg')
        path.write_bytes(path.read_bytes() + name.encode())  # no two alike
    return tmp_path / 'data'


@pytest.mark.parametrize('given', [False, True])
@pytest.mark.parametrize(
    'name',
    [
        'images\\{}.jpg',
        'C:\\Users\\me\\images\\{}.jpg',
        '/home/me/set/{}.jpg',
        '../../images/{}.jpg',
        './{}.jpg',
        'file:///data/images/{}.jpg',
    ],
)
def test_paths_of_another_machine_find_their_images(photos, tmp_path, name, given):
    content = coco_content()
    for image, letter in zip(content['images'], 'abcd'):
        image['file_name'] = name.format(letter)
    write(photos / 'result.json', json.dumps(content))
    # The message names --train-img if no image is found.
    images = dict(train_img='images') if given else {}
    prepared = prepare(photos, tmp_path / 'out', val_fraction=0.5, **images)
    written = read(tmp_path / 'out/train.json')
    folder = prepared.data_root + prepared.train_data_prefix
    assert len(written['images']) == prepared.num_train_images == 2
    assert all(os.path.isfile(folder + image['file_name']) for image in written['images'])


def test_names_that_another_system_spells_differently_find_their_images(photos):
    spelt = {'u\u0308.jpg': '\u00fc.jpg', 'a.JPG': 'a.jpg', 'sub/c.jpg': 'sub/C.JPG'}
    for name in spelt.values():
        draw(photos / 'images' / name)
    # The first ones are not there at all.
    content = coco_content(names=map(str, range(25)))
    for image, name in zip(content['images'][22:], spelt):
        image['file_name'] = name
    write(photos / 'all.json', json.dumps(content))
    converted = open_annotations(photos, photos).convert('all')
    assert [image['file_name'] for image in converted.content['images']] == [*spelt.values()]
    assert converted.image_folder == photos / 'images'


def test_an_image_of_another_spelling_is_not_taken_from_its_own_entry(photos):
    write(photos / 'all.json', json.dumps(coco_content(names=['A', 'a', 'b'])))
    converted = open_annotations(photos, photos).convert('all')
    assert [image['file_name'] for image in converted.content['images']] == ['a.jpg', 'b.jpg']
    assert converted.dropped == {'images whose file another has as well': ['A.jpg, as a.jpg']}


def test_two_images_of_another_machine_do_not_share_a_file(photos):
    content = coco_content(names='ab')
    for image, name in zip(content['images'], ('D:/x/a.jpg', 'D:/y/a.jpg')):
        image['file_name'] = name
    write(photos / 'result.json', json.dumps(content))
    converted = open_annotations(photos, photos).convert('all')
    assert [image['file_name'] for image in converted.content['images']] == ['a.jpg']
    assert converted.dropped == {
        'images whose file another has as well': ['D:/y/a.jpg, as a.jpg'],
    }


def test_coco_images_that_are_not_as_annotated_are_left_out(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(photos / 'images/a.jpg', exif=exif)
    draw(photos / 'images/b.jpg', width=32, height=24)
    write(photos / 'images/c.jpg', 'no image')
    write(photos / 'all.json', json.dumps(coco_content(names='abcde')))
    converted = open_annotations(photos, photos).convert('all')
    assert boxes(converted.content) == [('d.jpg', 'a', 1, 2, 30, 20)]
    assert converted.summary()[1:] == [
        'dropped images of another size than annotated: 2 (a.jpg: 64x48, not 48x64, '
        'b.jpg: 64x48, not 32x24)',
        "dropped images that can't be read: 1 (c.jpg)",
        'dropped images without a file: 1 (e.jpg)',
    ]


def test_if_every_image_differs_in_size_the_remedy_is_named(photos, tmp_path):
    write(photos / 'all.json', json.dumps(coco_content(width=640)))
    message = (
        'no box of .*another size than annotated: 4 .*640x48, not 64x48.*; put back the images'
    )
    with pytest.raises(ValueError, match=message):
        prepare(photos, tmp_path / 'out', val_fraction=0.5)


def test_missing_coco_fields_that_can_be_computed_are_added(photos, tmp_path):
    content = coco_content(lambda name: [['1', 2, '30.0', '20.5']])
    for image in content['images']:
        del image['width'], image['height']
    content['annotations'][0]['area'] = 0
    (photos / 'all.json').write_bytes(json.dumps(content).encode('utf-8-sig'))
    prepare(photos, tmp_path / 'out', val_fraction=0.5)
    written = read(tmp_path / 'out/val.json')
    assert [(image['width'], image['height']) for image in written['images']] == [(64, 48)] * 2
    for annotation in written['annotations']:
        assert annotation['id'] > 0
        assert annotation['bbox'] == [1, 2, 30, 20.5]
        assert (annotation['area'], annotation['iscrowd']) == (615, 0)


def test_roboflow_first_category_may_have_the_name_of_a_class(tmp_path):
    roboflow_coco(tmp_path)
    for file in tmp_path.rglob('*.json'):
        content = read(file)
        content['categories'][0]['name'] = content['categories'][1]['supercategory'] = 'a'
        write(file, json.dumps(content))
    annotations = open_annotations(tmp_path, tmp_path)
    assert annotations.classes == ['a']
    content = annotations.convert('train').content
    assert [category['id'] for category in content['categories']] == [1]
    assert len(content['annotations']) == 1


@pytest.mark.parametrize(
    'files',
    [
        dict(train='train/annotations.json', val='val/annotations.json'),
        dict(train='train/train.json', val='valid/valid.json'),
        dict(train='coco/annotations/instances_train2017.json', val='coco/annotations/val.json'),
        dict(train='latest_train.json', val='latest-val.json'),
        dict(train='a/train/labels.json', val='a/test/val.json'),
        dict(all='result.json'),
        dict(all='export/latest.json'),
        dict(all='constraints.json'),
        dict(train='train.json', all='everything.json', val='val.json'),
    ],
)
def test_coco_files_are_found_beside_other_json(photos, files):
    for path in files.values():
        write(photos / path, json.dumps(coco_content()))
    write(photos / 'meta.json', json.dumps(dict(classes=['a'], categories=[])))
    write(photos / 'train_settings.json', '{}')
    write(photos / '.ipynb_checkpoints/train-checkpoint.json', json.dumps(coco_content()))
    annotations = open_annotations(photos, photos)
    expected = {split for split in files if split != 'all' or 'train' not in files}
    assert set(annotations.splits) == expected
    assert all(len(annotations.convert(s).content['images']) == 4 for s in expected)


@pytest.mark.parametrize(
    'files, image',
    [
        ('annotations/{}.json', 'images/{}/0.jpg'),
        ('annotations/instances_{}.json', '{}/0.jpg'),
        ('coco/annotations/instances_{}.json', 'coco/{}/0.jpg'),
        ('annotations/crash_test_{}.json', '{}/photos/0.jpg'),
    ],
)
@pytest.mark.parametrize(
    'splits', [('train', 'valid'), ('train2017', 'val2017'), ('Train', 'Validation')]
)
def test_each_coco_split_has_the_images_of_its_own_folder(tmp_path, files, image, splits):
    for split in splits:
        draw(tmp_path / 'data' / image.format(split))
        one_coco_file(tmp_path / 'data' / files.format(split), '0.jpg')
    prepared = prepare(tmp_path / 'data', tmp_path / 'out')
    folders = [prepared.train_data_prefix, prepared.val_data_prefix]
    assert folders == [os.path.dirname(image.format(split)) + '/' for split in splits]
    for use, split in zip(('train', 'val'), splits):
        folder = (tmp_path / 'data' / image.format(split)).parent
        assert f'{use}: images in {folder}' in prepared.messages


def test_several_coco_files_for_one_split_are_named(photos, tmp_path):
    for name in ('first.json', 'second.json'):
        write(photos / name, json.dumps(coco_content()))
    with pytest.raises(ValueError, match=r'first\.json, second\.json.*--train-ann'):
        prepare(photos, tmp_path / 'out', val_fraction=0.5)
    prepare(photos, tmp_path / 'out', train_ann='first.json', val_fraction=0.5)


@pytest.mark.parametrize('name', ['notes.json', 'train.json', 'sub/meta.json'])
@pytest.mark.parametrize('layout', ['YOLO', 'VOC'])
def test_other_json_hides_no_annotations(tmp_path, layout, name):
    one_yolo_image(tmp_path) if layout == 'YOLO' else roboflow_voc(tmp_path)
    write(tmp_path / name, json.dumps(dict(categories=[dict(id=0, name='a')], info=dict(year=1))))
    assert open_annotations(tmp_path, tmp_path).format == layout


@pytest.mark.parametrize(
    'suffix, kept', [('jpg', -1), ('jpg', 0.5), ('png', -4), ('png', 0.5), ('webp', 0.5)]
)
def test_a_truncated_image_is_left_out_if_training_cannot_read_it(tmp_path, suffix, kept):
    one_yolo_image(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    path = tmp_path / f'images/cut.{suffix}'
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept] if kept < 0 else whole[: int(kept * len(whole))])
    write(tmp_path / 'labels/cut.txt', '0 0.5 0.5 0.5 0.5')
    converted = open_annotations(tmp_path, tmp_path).convert('all')
    used = mmcv.imfrombytes(path.read_bytes()) is not None
    assert len(converted.content['images']) == 1 + used
    assert converted.dropped == (
        {} if used else {"images that can't be read": [f'images/cut.{suffix}']}
    )


def test_data_appended_to_a_jpeg_are_not_an_error(tmp_path):
    path = draw(tmp_path / 'a.jpg')
    path.write_bytes(path.read_bytes() + bytes(100_000))
    assert image_size(path) == (64, 48)


def test_flat_yolo_labels_belong_to_the_images_of_every_split(tmp_path):
    for split in ('train', 'val'):
        draw(tmp_path / f'images/{split}/{split}.jpg')
        write(tmp_path / f'labels/{split}.txt', BOX)
    write(tmp_path / 'labels/orphan.txt', BOX)
    annotations = open_annotations(tmp_path, tmp_path, names=['a'])
    for split in ('train', 'val'):
        converted = annotations.convert(split)
        assert len(converted.content['annotations']) == 1
        assert converted.dropped == {'label files without an image': ['labels/orphan.txt']}


@pytest.mark.parametrize('folder', ['images/{}2017', '{}2017/images'])
def test_folders_of_yolo_splits_may_have_a_year(tmp_path, folder):
    for split in ('train', 'val'):
        images = tmp_path / folder.format(split)
        draw(images / f'{split}.jpg')
        write(tmp_path / folder.format(split).replace('images', 'labels') / f'{split}.txt', BOX)
    annotations = open_annotations(tmp_path, tmp_path, names=['a'])
    for split in ('train', 'val'):
        (image,) = annotations.convert(split).content['images']
        assert image['file_name'].endswith(f'{split}.jpg')


def test_folders_of_two_years_for_one_yolo_split_are_named(tmp_path):
    for year in (2014, 2017):
        draw(tmp_path / f'images/train{year}/a.jpg')
        write(tmp_path / f'labels/train{year}/a.txt', BOX)
    with pytest.raises(ValueError, match=r'train2014, train2017.*--train-ann'):
        open_annotations(tmp_path, tmp_path, names=['a'])
    one = open_annotations(tmp_path / 'labels/train2017', tmp_path, names=['a'])
    (image,) = one.convert(one.split_for('train')).content['images']
    assert image['file_name'] == 'images/train2017/a.jpg'


def test_an_image_that_a_yolo_list_names_twice_is_read_once(tmp_path):
    lists_of_paths(tmp_path)
    write(tmp_path / 'train.txt', './images/a.jpg', 'images/a.jpg')
    converted = open_annotations(tmp_path, tmp_path).convert('train')
    assert len(converted.content['images']) == 1
    assert converted.dropped == {'images listed twice': ['images/a.jpg']}


def counted_from_1(root):
    for name in 'ab':
        draw(root / f'images/{name}.jpg', width=64 if name == 'a' else 32)
        write(root / f'labels/{name}.txt', '1 0.5 0.5 0.5 0.5', '2 0.2 0.2 0.3 0.3')
    write(root / 'classes.txt', 'cat', 'dog')


def test_yolo_labels_counted_from_1_are_refused_unless_the_names_are_too(tmp_path):
    counted_from_1(tmp_path)
    with pytest.raises(ValueError, match=r'counted from 1.*names: \{1: cat, 2: dog\}'):
        open_annotations(tmp_path, tmp_path).convert('all')
    write(tmp_path / 'data.yaml', 'names: {1: cat, 2: dog}')
    annotations = open_annotations(tmp_path, tmp_path)
    assert annotations.classes == ['cat', 'dog']
    assert annotations.convert('all').summary() == ['images: 2, boxes: 4 (cat 2, dog 2)']


def test_a_yolo_class_that_is_not_there_is_pointed_out(tmp_path):
    counted_from_1(tmp_path)
    write(tmp_path / 'classes.txt', 'cat', 'dog', 'cow')  # may be counted from 0, without any cat
    prepared = prepare(tmp_path, tmp_path / 'out', val_fraction=0.5)
    assert prepared.warnings == ['no box of cat to train on']


@pytest.mark.parametrize(
    'names, classes',
    [
        ('square', ['square']),
        ('square, disc', ['square', 'disc']),
        ('[square, disc]', ['square', 'disc']),
        ('{0: square, 1: disc}', ['square', 'disc']),
        ("{'0': square}", ['square']),
        ('[no, 007, 1e3, 2020-01-01]', ['no', '007', '1e3', '2020-01-01']),
        ('names.txt', ['from', 'a file']),
        ('', ['of classes.txt']),
    ],
)
def test_yolo_class_names_may_be_written_in_many_ways(tmp_path, names, classes):
    one_yolo_image(tmp_path, ['of classes.txt'])
    write(tmp_path / 'names.txt', 'from', 'a file')
    write(tmp_path / 'data.yaml', f'names: {names}')
    assert open_annotations(tmp_path, tmp_path).classes == classes


@pytest.mark.parametrize('names', ['[[a], b]', '{a: 0}', '[{0: a}, {1: b}]'])
def test_invalid_yolo_class_names_are_refused(tmp_path, names):
    one_yolo_image(tmp_path)
    write(tmp_path / 'data.yaml', f'names: {names}')
    with pytest.raises(ValueError, match=r'"names" of .* are neither a list of names nor'):
        open_annotations(tmp_path, tmp_path)


@pytest.mark.parametrize(
    'names, message',
    [
        ('{0: a, 1: b, "1": c}', r"data\.yaml can't be read as YAML \(.*1 is there twice"),
        ('{0: a, 1: b, 01: c}', r'"names" of .*data\.yaml have two names for one label'),
    ],
)
def test_two_names_for_one_label_are_refused(tmp_path, names, message):
    one_yolo_image(tmp_path)
    write(tmp_path / 'data.yaml', f'names: {names}')
    with pytest.raises(ValueError, match=message):
        open_annotations(tmp_path, tmp_path)


@pytest.mark.parametrize('key', ['train', 'nc', 'path', 'names'])
def test_nested_yaml_aliases_are_refused_in_one_line(tmp_path, key):
    """Expanded it would take gigabytes."""
    one_yolo_image(tmp_path)
    nested = [f'x{i}: &x{i} [{", ".join([f"*x{i - 1}"] * 9)}]' for i in range(1, 12)]
    entries = {'train': 'images', 'val': 'images', 'names': '[a]', key: '*x11'}
    lines = [f'{name}: {value}' for name, value in entries.items()]
    write(tmp_path / 'data.yaml', 'x0: &x0 [a]', *nested, *lines)
    for path in (tmp_path, tmp_path / 'data.yaml'):
        with pytest.raises(ValueError, match=f'"{key}" of .*data\\.yaml') as refused:
            open_annotations(path, tmp_path)
        assert '\n' not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize(
    'line', ['train: [[images]]', 'val: {a: images}', 'path: [.]', 'train: ' + '[' * 5000]
)
def test_yaml_entries_that_are_not_strings_are_refused(tmp_path, line):
    one_yolo_image(tmp_path)
    write(tmp_path / 'data.yaml', 'names: [a]', line)
    with pytest.raises(ValueError, match=r"data\.yaml (is|can't)") as refused:
        open_annotations(tmp_path, tmp_path)
    assert '\n' not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize('suffix', ['jfif', 'JPG', 'jpe', 'webp', 'tiff', 'BMP'])
def test_images_of_every_readable_suffix_are_used(tmp_path, suffix):
    one_yolo_image(tmp_path)
    kind = dict(jfif='JPEG', jpe='JPEG').get(suffix)
    draw(tmp_path / f'images/b.{suffix}', **(dict(format=kind) if kind else {}))
    write(tmp_path / 'labels/b.txt', '0 0.5 0.5 0.5 0.5')
    assert len(open_annotations(tmp_path, tmp_path).convert('all').content['annotations']) == 2


def test_labelled_images_of_unreadable_formats_are_named(tmp_path):
    one_yolo_image(tmp_path)
    write(tmp_path / 'images/b.heic', 'whatever it holds')
    write(tmp_path / 'labels/b.txt', '0 0.5 0.5 0.5 0.5')
    converted = open_annotations(tmp_path, tmp_path).convert('all')
    assert converted.dropped == {'images in a format that is not read': ['images/b.heic']}


def test_missing_folders_that_are_not_needed_are_ignored(tmp_path):
    for name in 'abcd':
        draw(tmp_path / f'train/images/{name}.jpg', width=60 + ord(name))
        write(tmp_path / f'train/labels/{name}.txt', '0 0.5 0.5 0.5 0.5')
    folders = ('train: ../train/images', 'val: ../valid/images', 'test: /content/x/test/images')
    write(tmp_path / 'data.yaml', *folders, 'names: [a]')
    # The remedy in the message works.
    with pytest.raises(ValueError, match=r'names \.\./valid/images.*--val-fraction 0\.2'):
        prepare(tmp_path, tmp_path / 'out')
    prepared = prepare(tmp_path, tmp_path / 'out', val_fraction=0.2)
    assert prepared.num_train_images == 3


@pytest.mark.parametrize(
    'path', ['/content/set/train/images', 'C:\\set\\train\\images', '../../set/train/images']
)
def test_a_yaml_of_another_machine_finds_its_folders(tmp_path, path):
    roboflow_yolo(tmp_path)
    write(tmp_path / 'data.yaml', f"train: '{path}'", 'val: valid/images', 'names: [a]')
    assert len(open_annotations(tmp_path, tmp_path).convert('train').content['images']) == 1


@pytest.mark.parametrize('places', [['labels'], ['labels/train'], ['labels/train', 'labels/val']])
def test_names_among_the_labels_are_found(tmp_path, places):
    for split in ('train', 'val'):
        draw(tmp_path / f'images/{split}/{split}.jpg')
        write(tmp_path / f'labels/{split}/{split}.txt', '0 0.5 0.5 0.5 0.5')
    for number, place in enumerate(places):
        # labelImg lists classes in the order of their first use.
        write(tmp_path / place / 'classes.txt', *['cat', 'dog'][: number + 1])
    annotations = open_annotations(tmp_path, tmp_path)
    assert annotations.classes == ['cat', 'dog'][: len(places)]
    assert annotations.convert('train').dropped == {}
    write(tmp_path / 'labels/val/classes.txt', 'dog', 'cat')
    write(tmp_path / 'labels/train/classes.txt', 'cat')
    if not (tmp_path / 'labels/classes.txt').exists():
        with pytest.raises(ValueError, match=r'labels/train/classes\.txt.*val/classes\.txt'):
            open_annotations(tmp_path, tmp_path)


def test_labels_that_windows_wrote_are_read(tmp_path):
    one_yolo_image(tmp_path)
    (tmp_path / 'labels/a.txt').write_bytes('0 0.5 0.5 0.5 0.5\r\n'.encode('utf-16'))
    (tmp_path / 'classes.txt').write_bytes('Größe\r\n'.encode('utf-8-sig'))
    annotations = open_annotations(tmp_path, tmp_path)
    assert annotations.convert('all').summary() == ['images: 1, boxes: 1 (Größe 1)']


VOC_LAYOUTS = [
    dict(train=('train/images', 'train/annotations'), val=('val/images', 'val/annotations')),
    dict(train=('images/train', 'annotations/train'), val=('images/val', 'annotations/val')),
    dict(train=('a/train/img', 'a/train/xml'), val=('a/valid/img', 'a/valid/xml')),
    dict(all=('images', 'annotations')),
    dict(all=('jpegimages', 'ANNOTATIONS')),
    dict(all=('VOCdevkit/VOC2007/JPEGImages', 'VOCdevkit/VOC2007/Annotations')),
    dict(all=('photos', 'boxes')),
    dict(all=('.', '.')),
]


@pytest.mark.parametrize('layout', VOC_LAYOUTS)
def test_voc_in_unusual_folders_is_found(tmp_path, layout):
    for images, annotations in layout.values():
        # Each split has an image of this name: the nearest one is used.
        draw(tmp_path / images / '1.jpg')
        write(tmp_path / annotations / '1.xml', xml('1.jpg', [('a', (1, 1, 9, 9), 0)]))
    found = open_annotations(tmp_path, tmp_path)
    assert sorted(found.splits) == sorted(layout)
    for split, (images, _) in layout.items():
        converted = found.convert(split)
        assert converted.dropped == {}
        (image,) = converted.content['images']
        file = converted.image_folder / image['file_name']
        assert file.samefile(tmp_path / images / '1.jpg')


def test_voc_beside_a_folder_of_it_is_read_too(tmp_path):
    for name in ('a', 'train/b'):
        draw(tmp_path / f'{name}.jpg')
        write(tmp_path / f'{name}.xml', xml(f'{name[-1]}.jpg', [('a', (1, 1, 9, 9), 0)]))
    converted = open_annotations(tmp_path, tmp_path).convert('all')
    assert [name for name, *_ in boxes(converted.content)] == ['a.jpg', 'b.jpg']


def test_voc_has_the_image_that_it_names_rather_than_a_nearer_one(tmp_path):
    draw(tmp_path / 'images/p1.JPG')
    draw(tmp_path / 'annotations/trimaps/p1.png')
    write(tmp_path / 'annotations/xmls/p1.xml', xml('p1.jpg', [('a', (1, 1, 9, 9), 0)]))
    (image,) = open_annotations(tmp_path, tmp_path).convert('all').content['images']
    assert image['file_name'] == 'images/p1.JPG'


def test_annotations_that_a_link_leads_to_as_well_are_read_once(tmp_path):
    labelimg_voc(tmp_path / 'Annotations')
    (tmp_path / 'xmls').symlink_to('Annotations')
    assert len(open_annotations(tmp_path, tmp_path).convert('all').content['images']) == 1


def test_voc_with_swapped_corners_is_read_with_a_warning(tmp_path):
    draw(tmp_path / 'a.jpg')
    write(tmp_path / 'a.xml', xml('a.jpg', [('a', (9, 5, 1, 3), 0), ('a', (1, 30, 9, 20), 0)]))
    converted = open_annotations(tmp_path, tmp_path).convert('all')
    assert [box[2:] for box in boxes(converted.content)] == [(0, 2, 9, 3), (0, 19, 9, 11)]
    assert converted.summary()[1:] == [
        'read with their corners swapped: 2 (a.xml, object 1, a.xml, object 2)'
    ]


@pytest.mark.parametrize(
    'declared, written, read_as',
    [
        ('utf-16', 'utf-16', 'Größe'),
        ('', 'utf-8-sig', 'Größe'),
        ('', 'utf-16', 'Größe'),
        ('', 'utf-16-be', 'Größe'),
        ('iso-8859-1', 'utf-8-sig', 'Größe'),
        ('iso-8859-1', 'iso-8859-1', 'Größe'),
        ('gb2312', 'gb2312', '大小'),
        ('utf-8', 'gb2312', None),
        ('utf-8', 'iso-8859-1', None),
    ],
)
def test_voc_is_read_in_its_own_encoding(tmp_path, declared, written, read_as):
    name = read_as or dict(gb2312='大小').get(written, 'Größe')
    draw(tmp_path / 'a.jpg')
    draw(tmp_path / 'b.jpg')
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ''
    text = head + xml('a.jpg', [(name, (1, 1, 9, 9), 0)])
    (tmp_path / 'a.xml').write_bytes(text.encode(written))
    write(tmp_path / 'b.xml', xml('b.jpg', [('b', (1, 1, 9, 9), 0)]))
    annotations = open_annotations(tmp_path, tmp_path)
    if read_as:
        assert annotations.classes == sorted([read_as, 'b'])
    else:
        assert annotations.classes == ['b']
        assert annotations.convert('all').dropped == {
            'annotation files in another encoding than they say': ['a.xml']
        }


def test_a_path_in_another_encoding_leaves_the_annotation_usable(tmp_path):
    draw(tmp_path / 'a.jpg')
    text = '<?xml version="1.0" encoding="utf-8"?>' + xml('Größe/a.jpg', [('a', (1, 1, 9, 9), 0)])
    (tmp_path / 'a.xml').write_bytes(text.encode('latin-1'))
    assert len(open_annotations(tmp_path, tmp_path).convert('all').content['annotations']) == 1


@pytest.mark.parametrize('val_fraction', [None, 0.5])
def test_a_split_whose_boxes_are_all_difficult_is_reported(tmp_path, val_fraction):
    for split in ('train', 'valid'):
        draw(tmp_path / split / 'a.jpg')
        write(tmp_path / split / 'a.xml', xml('a.jpg', [('a', (1, 1, 9, 9), 1)]))
    with pytest.raises(ValueError, match='all 1 are marked as difficult'):
        prepare(tmp_path, tmp_path / 'out', val_fraction=val_fraction)


def test_a_split_without_usable_images_is_refused_with_the_reason(tmp_path):
    lists_of_paths(tmp_path)
    for file in (tmp_path / 'images').iterdir():
        file.unlink()
    message = r'no box of .*dropped images without a file: 1 \(images/a\.jpg\).*copy them there'
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, tmp_path / 'out', val_fraction=0.5)


@pytest.mark.parametrize('background', [False, True])
def test_images_without_boxes_are_trained_on_if_requested(photos, tmp_path, background):
    content = coco_content(lambda name: [[1, 2, 30, 20]] if name in 'ab' else [])
    for split in ('train', 'val'):
        write(photos / f'annotations/{split}.json', json.dumps(content))
    prepared = prepare(photos, tmp_path, train_on_background=background)
    assert prepared.num_train_images == (4 if background else 2)
    assert prepared.train_on_background == background
    left_out = ', which are not trained on' * (not background)
    assert f'train: images: 4 (2 without boxes{left_out}), boxes: 2 (a 2)' in prepared.messages
    assert 'val: images: 4 (2 without boxes), boxes: 2 (a 2)' in prepared.messages


OTHER_FORMATS = [
    ('a.json', dict(version='5', shapes=[], imagePath='a.jpg'), 'LabelMe.*labelme2coco'),
    ('a.json', {'_via_img_metadata': {}}, 'VIA.*COCO format'),
    ('a.json', {'a.jpg123': dict(filename='a.jpg', regions=[])}, 'VIA.*COCO format'),
    ('a.json', [dict(id=1, data=dict(image='a'), annotations=[])], 'Label Studio.*export'),
    ('a.json', [dict(image='a.jpg', annotations=[])], 'Create ML.*export'),
    ('a.json', dict(info={}, categories={}, items=[]), 'Datumaro.*coco_instances'),
    ('a.xml', '<annotations><image id="0" name="a.jpg"/></annotations>', 'CVAT.*COCO 1.0'),
    ('a.csv', 'a.jpg,1,1,9,9', 'CSV.*export COCO'),
    ('a.tfrecord', 'binary', 'TFRecord.*export COCO'),
]


@pytest.mark.parametrize('name, content, message', OTHER_FORMATS)
def test_unsupported_formats_are_named(tmp_path, name, content, message):
    draw(tmp_path / 'data/images/a.jpg')
    text = content if isinstance(content, str) else json.dumps(content)
    file = write(tmp_path / 'data' / name, text)
    for options in ({}, dict(train_ann=str(file))):
        with pytest.raises(ValueError, match=message) as refused:
            prepare(tmp_path / 'data', tmp_path / 'out', **options)
        assert '\n' not in str(refused.value)


def csv(root):
    draw(root / 'images/a.jpg')
    write(root / 'boxes.csv', 'a.jpg,1,1,9,9')


def labelme(root):
    for number in range(20):
        write(root / f'train_{number}.json', json.dumps(dict(version='5', shapes=[])))


def two_of_one_name(root):
    one_yolo_image(root, ('a', 'b', 'a'))


def no_names(root):
    one_yolo_image(root)
    (root / 'classes.txt').unlink()


def wrong_count(root):
    one_yolo_image(root)
    write(root / 'data.yaml', 'train: images', 'val: images', 'nc: 2', 'names: [a]')


def wrong_path(root):
    one_yolo_image(root)
    write(root / 'data.yaml', 'train: pictures', 'val: images', 'names: [a]')


def no_labels(root):
    one_yolo_image(root)
    for file in (root / 'labels').rglob('*.txt'):
        file.unlink()
    write(root / 'data.yaml', 'train: images', 'val: images', 'names: [a]')


def two_yamls(root):
    one_yolo_image(root)
    for name in 'ab':
        write(root / f'{name}.yaml', 'train: images', f'names: [{name}]')
    write(root / 'unrelated.yaml', 'epochs: 3')


def two_exports(root):
    roboflow_yolo(root / 'first')
    roboflow_yolo(root / 'second')


def no_yaml(root):
    one_yolo_image(root)
    write(root / 'data.yaml', 'train: [')


@pytest.mark.parametrize(
    'layout, options, message',
    [
        (csv, {}, r'1 \.csv, 1 \.jpg.*no annotations in a known format; known are COCO.*YOLO.*VOC'),
        (labelme, {}, r'20 \.json.*no annotations in a known format'),
        (labelme, dict(train_ann='train_3.json'), 'not COCO.*it has: version, shapes'),
        (two_of_one_name, {}, "two classes of one name: 'a'"),
        (no_names, {}, r'no file gives them names.*classes\.txt.*--classes'),
        (wrong_count, {}, 'nc: 2 and has 1 names'),
        (no_labels, {}, r"no box of \['a'\].*1 without boxes.*without a label file: 1 \(images/"),
        (two_yamls, {}, r'more than one .* \(a\.yaml, b\.yaml\).*with --train-ann'),
        (two_exports, {}, r'\(first/data\.yaml, second/data\.yaml\).*with --train-ann'),
        (no_yaml, {}, r"data\.yaml can't be read as YAML"),
        (wrong_path, {}, 'names pictures, and there is no .*pictures'),
        (one_yolo_image, {}, 'no annotations for validation.*--val-ann.*--val-fraction'),
        (one_yolo_image, dict(val_fraction=0.5), 'nothing to divide'),
        (one_yolo_image, dict(val_fraction=0.5, val_ann='images'), '--val-ann and --val-fraction'),
        (one_yolo_image, dict(val_fraction=0.5, val_img='images'), '--val-img and --val-fraction'),
        (roboflow_yolo, dict(train_img='train'), r'data\.yaml names the images of train and val'),
        (roboflow_yolo, dict(val_img='train'), r'data\.yaml names .* leave out .*--val-img'),
        (one_yolo_image, dict(train_ann='nothing'), 'there is no .*nothing'),
        (one_yolo_image, dict(val_ann='images', classes=['b']), 'no class "b"; it has a'),
        (roboflow_voc, dict(train_img='nowhere'), 'there is no .*nowhere'),
        (roboflow_coco, dict(classes=['project']), 'no class "project"'),
    ],
)
def test_unreadable_data_are_refused_in_one_sentence(tmp_path, layout, options, message):
    layout(tmp_path / 'data')
    with pytest.raises(ValueError, match=message) as refused:
        prepare(tmp_path / 'data', tmp_path / 'out', **options)
    assert '\n' not in str(refused.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('layout', ['COCO', 'YOLO'])
def test_each_split_may_have_an_image_folder_of_its_own(tmp_path, layout):
    for folder in 'ab':
        draw(tmp_path / f'data/photos/{folder}/0.jpg')
        write(tmp_path / f'data/photos/{folder}/0.txt', BOX)
    if layout == 'COCO':
        for split in ('train', 'val'):
            one_coco_file(tmp_path / f'data/{split}.json', '0.jpg')
    folders = dict(train_img='photos/a', val_img='photos/b')
    prepared = prepare(tmp_path / 'data', tmp_path / 'out', classes=['a'], **folders)
    for use, folder in (('train', 'a'), ('val', 'b')):
        assert f'{use}: images in {tmp_path / "data/photos" / folder}' in prepared.messages
    assert prepared.warnings == []
    if layout == 'COCO':
        with pytest.raises(ValueError, match='no annotations for validation'):
            prepare(tmp_path / 'data', tmp_path / 'out', train_ann='train.json', **folders)


def test_coco_without_its_images_names_the_option_to_set(data_root, tmp_path):
    shutil.copytree(data_root / 'annotations', tmp_path / 'annotations')
    with pytest.raises(ValueError, match=r'images such as 0\.png.*--train-img'):
        prepare(tmp_path, tmp_path / 'out')
    prepared = prepare(tmp_path, tmp_path / 'out', train_img=str(data_root / 'images'))
    assert prepared.train_data_prefix == f'{data_root}/images/'


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-200, 200), min_size=4, max_size=4))
def test_a_box_is_inside_its_image_or_counted(corners):
    writer = CocoWriter(['a'], Path())
    writer.add_image('a.jpg', 64, 48)
    writer.add_box('a', corners, 'a.txt:1')
    assert len(writer.content['annotations']) + sum(map(len, writer.dropped.values())) == 1
    for annotation in writer.content['annotations']:
        x, y, w, h = annotation['bbox']
        assert min(x, y) >= 0 and w >= 1 and h >= 1
        assert x + w <= 64 + 0.01 and y + h <= 48 + 0.01
        assert np.isclose(annotation['area'], w * h, atol=0.01)


@pytest.mark.parametrize(
    'corners, kept',
    [
        ((5, 5, 6, 6), True),
        ((5, 5, 5.9, 6), False),
        ((5, 5, 6, 5.9), False),
        # Image of 64x48 pixels; one pixel of the box is inside.
        ((63, 47, 70, 70), True),
        ((-5, -5, 1, 1), True),
        ((63.1, 20, 70, 30), False),
        ((20, 47.1, 30, 70), False),
        ((50, 20, 60, 30), True),  # x exceeds the height
    ],
)
def test_a_box_with_one_pixel_inside_the_image_is_kept(corners, kept):
    writer = CocoWriter(['a'], Path())
    writer.add_image('a.jpg', 64, 48)
    writer.add_box('a', corners, 'a.txt:1')
    assert len(writer.content['annotations']) == kept


ODD = '\x1b[2J\n\0\udc80'


@pytest.mark.parametrize('name', [ODD, f'{ODD}.jpg', 5000 * 'a', f'{5000 * "a"}/a.gif'])
def test_an_image_of_an_odd_name_has_no_file(photos, name):
    content = coco_content()
    content['images'][1]['file_name'] = name
    write(photos / 'all.json', json.dumps(content))
    converted = open_annotations(photos, photos).convert('all')
    assert len(converted.content['images']) == 3
    summary, dropped = converted.summary()
    assert summary.startswith('images: 3, ')
    assert dropped.startswith('dropped images without a file: 1 (')


@pytest.mark.parametrize('line', [f'{5000 * "a"}.jpg', f'{5000 * "a"}/b.jpg', '\x1b[2J\0.jpg'])
def test_a_list_of_images_may_contain_an_odd_line(tmp_path, line):
    one_yolo_image(tmp_path)
    write(tmp_path / 'train.txt', 'images/a.jpg', line)
    converted = open_annotations(tmp_path / 'train.txt', tmp_path).convert('all')
    assert len(converted.content['images']) == 1
    write(tmp_path / 'data.yaml', json.dumps(dict(names=['a'], train='images', val=line)))
    assert list(open_annotations(tmp_path, tmp_path).splits) == ['train']
    write(tmp_path / 'data.yaml', json.dumps(dict(names=line, train='images')))
    assert open_annotations(tmp_path, tmp_path).classes == [line]


def test_a_list_of_annotations_may_contain_a_long_line(voc_root, tmp_path):
    shutil.copytree(voc_root, tmp_path / 'VOC')
    write(tmp_path / 'VOC/ImageSets/Main/train.txt', '0', 5000 * 'a')
    converted = open_annotations(tmp_path / 'VOC', tmp_path / 'VOC').convert('train')
    assert len(converted.content['images']) == 1
    assert converted.summary()[1].startswith('dropped listed images without annotations: 1 (')


@pytest.mark.parametrize('val', ['', '0', 'gone', None])
def test_voc_lists_that_are_not_needed_are_ignored(voc_root, tmp_path, val):
    shutil.copytree(voc_root, tmp_path / 'VOC')
    lists = tmp_path / 'VOC/ImageSets/Main'
    (lists / 'train.txt').rename(lists / 'Train.txt')
    (lists / 'val.txt').unlink()
    write(lists / 'test.txt', '')
    if val is not None:
        write(lists / 'Validation.txt', val)
    annotations = open_annotations(tmp_path / 'VOC', tmp_path / 'VOC')
    assert sorted(annotations.splits) == (['train', 'val'] if val == '0' else ['train'])
    assert len(annotations.convert('train').content['images']) == 8
    if val == 'gone':
        with pytest.raises(ValueError, match=r'Validation\.txt lists 1 names \(gone\).*fraction'):
            prepare(tmp_path / 'VOC', tmp_path / 'out')


def test_voc_paths_may_be_relative_and_absolute(voc_root, tmp_path, monkeypatch):
    shutil.copytree(voc_root, tmp_path / 'data')
    (tmp_path / 'data/ImageSets').rename(tmp_path / 'lists')
    monkeypatch.chdir(tmp_path)
    options = dict(val_fraction=0.5)
    prepared = prepare('data', 'out', str(tmp_path / 'data/Annotations'), **options)
    assert prepared.num_train_images == 6
    (tmp_path / 'data/JPEGImages').rename(tmp_path / 'photos')
    prepared = prepare('data', 'out', train_img=str(tmp_path / 'photos'), **options)
    assert prepared.num_train_images == 6


@pytest.mark.parametrize('line', ['scan 0', 'scan 0 1', 'scan 0.jpg', 'JPEGImages/scan 0.jpg'])
def test_a_voc_list_may_have_paths_and_names_with_a_number(tmp_path, line):
    for name in ('scan', 'scan 0'):
        draw(tmp_path / f'JPEGImages/{name}.jpg')
        write(tmp_path / f'Annotations/{name}.xml', xml('', [('a', (1, 1, 9, 9), 0)]))
    file = write(tmp_path / 'ImageSets/Main/train.txt', line)
    for path in (tmp_path, file):
        annotations = open_annotations(path, tmp_path)
        (image,) = annotations.convert(annotations.split_for('train')).content['images']
        assert image['file_name'] == 'JPEGImages/scan 0.jpg'


def test_odd_names_are_printed_on_one_line(photos, tmp_path):
    content = coco_content()
    content['categories'] = [dict(id=1, name=ODD), dict(id=2, name=3_000_000 * 'b')]
    for annotation in content['annotations']:
        annotation['category_id'] = 1
    content['images'][1]['file_name'] = ODD
    write(photos / 'all.json', json.dumps(content))
    classes = [category['name'] for category in content['categories']]
    prepared = prepare(photos, tmp_path / 'out', val_fraction=0.5, classes=classes)
    assert prepared.class_names == classes
    for line in convert_dataset(open_annotations(photos, photos), str(tmp_path / 'out')):
        assert line.isprintable() and len(line) <= 2000


@pytest.mark.parametrize('above', [[], {}, None, 3, ['a']])
def test_a_supercategory_may_be_anything(photos, above):
    content = coco_content()
    for category in content['categories']:
        category['supercategory'] = above
    write(photos / 'all.json', json.dumps(content))
    names = [category['name'] for category in content['categories']]
    assert open_annotations(photos, photos).classes == names


def test_categories_of_numbers_and_strings_are_split(photos, tmp_path):
    content = coco_content()
    content['categories'] = [dict(id=1, name='a'), dict(id='two', name='b')]
    for number, annotation in enumerate(content['annotations']):
        annotation['category_id'] = ('two', 1)[number % 2]
    write(photos / 'all.json', json.dumps(content))
    prepare(photos, tmp_path / 'out', val_fraction=0.5)

"""Fuzzed annotation files: MMDetection reads them, or they are refused in one sentence."""

import json

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset

from rtm_kd.checks.annotations import checked_annotations
from rtm_kd.utils import UsageError

_CLASSES = ('disc', 'square')
_ANYTHING = st.recursive(
    st.one_of(
        *[st.none(), st.booleans(), st.integers(-3, 70), st.integers(), st.floats()],
        *[st.text(max_size=3), st.sampled_from([*_CLASSES, 'id', '../a.png', 10**400])],
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
_BOXES = st.lists(st.one_of(st.integers(-70, 70), st.floats(-70, 70)), min_size=4, max_size=4)
# Where a value is put: (list of the file, index of the entry, field of the entry).
_PLACES = st.tuples(
    st.sampled_from(['images', 'annotations', 'annotations', 'categories']),
    st.sampled_from([None, *[0, 1] * 10]),
    st.sampled_from(
        [
            *[None, 'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore'],
            *['file_name', 'width', 'height', 'name', 'segmentation'],
        ]
    ),
)


def _content():
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=64) for i in range(2)],
        annotations=[
            dict(id=i, image_id=i, category_id=i, bbox=[5, 5, 9, 9], area=81, iscrowd=0)
            for i in range(2)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(_CLASSES)],
    )


def _put(content, key, position, field, value):
    entries = content[key]
    if position is None:
        content[key] = value
    elif not isinstance(entries, list) or position >= len(entries):
        return
    elif field is None or not isinstance(entries[position], dict):
        entries[position] = value
    else:
        entries[position][field] = value


@given(
    changes=st.lists(
        st.tuples(_PLACES, st.one_of(_ANYTHING, _BOXES, st.integers(0, 70))), max_size=3
    ),
    cut=st.one_of(*[st.none()] * 5, st.floats(0, 1)),
    split=st.sampled_from(['train', 'val', 'test']),
)
def test_boxes_are_numbers_within_the_classes_or_the_file_is_refused(
    changes, cut, split, tmp_path_factory
):
    content = _content()
    for place, value in changes:
        _put(content, *place, value)
    text = json.dumps(content)
    path = tmp_path_factory.getbasetemp() / 'fuzzed.json'
    path.write_text(text if cut is None else text[: int(cut * len(text))])
    try:
        with checked_annotations(split):
            dataset = CocoDataset(
                ann_file=str(path),
                data_prefix=dict(img='images/'),
                metainfo=dict(classes=_CLASSES),
                test_mode=split != 'train',
            )
    except UsageError as error:
        assert str(error).startswith('the ') and str(path) in str(error)
        assert '\n' not in str(error)
        event('refused')
        return
    for index in range(len(dataset)):
        for instance in dataset.get_data_info(index)['instances']:
            assert np.isfinite(np.float32(instance['bbox'])).all()
            assert instance['bbox_label'] in range(len(_CLASSES))

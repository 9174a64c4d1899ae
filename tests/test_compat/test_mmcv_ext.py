import inspect

import mmcv
import numpy as np
import pytest
import torch
from mmcv import _ext
from mmcv.ops import nms, soft_nms

from rtm_kd.compat import mmcv_ext

supplied = pytest.mark.skipif(
    _ext.__spec__.origin != mmcv_ext.__file__, reason='this mmcv has compiled operators'
)


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, offset: int) -> list:
    kept = []
    for i in np.argsort(-scores):
        for j in kept:
            left, top = np.maximum(boxes[i, :2], boxes[j, :2])
            right, bottom = np.minimum(boxes[i, 2:], boxes[j, 2:])
            overlap = max(right - left + offset, 0) * max(bottom - top + offset, 0)
            areas = [
                (boxes[k, 2] - boxes[k, 0] + offset) * (boxes[k, 3] - boxes[k, 1] + offset)
                for k in (i, j)
            ]
            if overlap / (sum(areas) - overlap) > iou_threshold:
                break
        else:
            kept.append(i)
    return kept


# Both boxes are 10 pixels wide and high if the last pixel counts, and share 50 of 150: 1/3.
# If it does not count, they are 9 wide and high, and share 36 of 126: 0.286.
@pytest.mark.parametrize(('offset', 'kept'), [(0, [1, 0]), (1, [1])])
def test_nms_counts_the_last_pixel_only_with_offset(offset, kept):
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 5.0, 9.0, 14.0]])
    scores = torch.tensor([0.5, 0.9])

    dets, indices = nms(boxes, scores, iou_threshold=0.3, offset=offset)

    assert indices.tolist() == kept
    torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])
    assert mmcv_ext.nms(boxes, scores, 0.3, offset).tolist() == kept


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_keeps_what_the_greedy_rule_keeps(offset):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (80, 2))], axis=1)
    scores = rng.permutation(80) / 80

    indices = mmcv_ext.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4, offset)

    assert indices.dtype == torch.int64
    assert 1 < len(indices) < 80
    assert indices.tolist() == greedy_nms(boxes, scores, 0.4, offset)


@supplied
def test_a_missing_operator_is_named_with_the_remedy():
    with pytest.raises(NotImplementedError, match=r'"softnms".*pip uninstall mmcv-lite'):
        soft_nms(torch.rand(4, 4), torch.rand(4))


@supplied
def test_the_module_can_be_inspected():
    # inspect asks for attributes such as __wrapped__, and takes any value for a yes.
    assert inspect.unwrap(_ext) is _ext


def test_a_compiled_module_wins(run_python, tmp_path):
    (tmp_path / '_ext.py').write_text('nms = "compiled"')

    output = run_python(f"""
        import runpy
        runpy.run_path({mmcv_ext.__file__!r})['enable']()
        import mmcv
        mmcv.__path__.insert(0, {str(tmp_path)!r})
        import mmcv._ext
        print(mmcv._ext.nms)
    """)

    assert output.split() == ['compiled']


def test_mmdet_and_mmyolo_can_be_imported(run_python):
    output = run_python("""
        import rtm_kd
        import mmdet.models, mmyolo.datasets, mmyolo.models
        from mmyolo.registry import MODELS
        print(MODELS.get('RTMDetHead').__module__, MODELS.get('mmdet.RTMDetHead').__module__)
    """)

    assert output.split()[-2:] == [
        'mmyolo.models.dense_heads.rtmdet_head',
        'mmdet.models.dense_heads.rtmdet_head',
    ]


def test_mmyolo_accepts_the_installed_mmcv():
    assert mmcv.__version__.startswith('2.0.')

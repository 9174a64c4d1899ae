import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset


class TwoImages(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        sample = DetDataSample(
            gt_instances=InstanceData(
                bboxes=HorizontalBoxes([[1.0, 2.0, 3.0, 4.0]]), labels=torch.tensor([5 + index])
            )
        )
        return dict(inputs=torch.zeros(3, 8, 8, dtype=torch.uint8), data_samples=sample)


@pytest.fixture
def collate_fn(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py'")
    return Config.fromfile(str(path)).train_dataloader.collate_fn


def batches(collate_fn) -> list:
    return [
        *Runner.build_dataloader(
            dict(
                dataset=TwoImages(),
                sampler=dict(type='DefaultSampler', shuffle=False),
                batch_size=2,
                num_workers=0,
                collate_fn=collate_fn,
            )
        )
    ]


def test_a_dataloader_of_a_config_with_a_package_base_collates(collate_fn):
    assert collate_fn['_scope_'] == 'mmyolo'

    with DefaultScope.overwrite_default_scope('mmyolo'):
        (batch,) = batches(collate_fn)

    assert batch['inputs'].shape == (2, 3, 8, 8)
    # Index of the image, class, box.
    assert batch['data_samples']['bboxes_labels'].tolist() == [
        [0, 5, 1, 2, 3, 4],
        [1, 6, 1, 2, 3, 4],
    ]
    # A config dumped later still has the value of the file.
    assert collate_fn['_scope_'] == 'mmyolo'


def test_a_collate_fn_may_be_a_function():
    (batch,) = batches(pseudo_collate)
    assert len(batch['inputs']) == 2

"""Reading checkpoints of other programs."""

import torch

from rtm_kd.utils.checkpoint import convert_to_student, read_checkpoint


def test_a_checkpoint_saved_from_ddp_is_read_without_its_prefix(tmp_path):
    weights = {
        'module.architecture.backbone.stem.weight': torch.ones(2),
        # Keys of the model itself, without the wrapper's prefix.
        'module.architecture.neck.module.weight': torch.zeros(3),
        'module.distiller.connectors.fpn0_s.weight': torch.zeros(1),
    }
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta={}, state_dict=weights), path)
    assert list(read_checkpoint(str(path))['state_dict']) == [
        'architecture.backbone.stem.weight',
        'architecture.neck.module.weight',
        'distiller.connectors.fpn0_s.weight',
    ]
    student = torch.load(convert_to_student(str(path)), weights_only=False)['state_dict']
    assert list(student) == ['backbone.stem.weight', 'neck.module.weight']

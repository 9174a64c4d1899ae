"""What a config says about distilling."""

import pytest
from mmengine.config import Config

from rtm_kd.models.distillation import use_student

OWN, OTHER = dict(type='DetDataPreprocessor', mean=[0] * 3), dict(type='DetDataPreprocessor')
STUDENT = dict(type='YOLODetector', data_preprocessor=OWN)


@pytest.mark.parametrize(
    'cfg, expected',
    [
        (dict(model=dict(architecture=STUDENT)), OWN),
        (dict(model=dict(architecture=STUDENT, data_preprocessor=OTHER)), OTHER),
        (dict(model=dict(architecture=STUDENT), data_preprocessor=OTHER), OTHER),
        (dict(model=dict(type='YOLODetector'), data_preprocessor=OTHER), OTHER),
        (dict(model=STUDENT, data_preprocessor=OTHER), OWN),
    ],
)
def test_a_student_is_tested_with_the_data_preprocessor_that_it_is_trained_with(cfg, expected):
    cfg = Config(cfg)
    use_student(cfg)
    assert cfg.model == dict(type='YOLODetector', data_preprocessor=expected)

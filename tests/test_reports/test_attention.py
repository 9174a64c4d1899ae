import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from rtm_kd.reports.attention import (
    agreement,
    attention_maps,
    compared_recorders,
    draw_attention,
    spatial_attention,
    without_padding,
)


def test_attention_is_a_distribution_that_scale_offset_and_width_do_not_change():
    torch.manual_seed(0)
    feature = torch.randn(2, 5, 6, 7)
    attention = spatial_attention(feature)
    assert attention.shape == (2, 6, 7)
    torch.testing.assert_close(attention.sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(spatial_attention(feature * 30 - 4), attention, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(spatial_attention(feature.repeat(1, 3, 1, 1)), attention)


def test_attention_is_where_the_channels_respond():
    feature = torch.zeros(1, 4, 8, 8)
    feature[:, :, 2, 5] = 3.0
    assert spatial_attention(feature).flatten().argmax() == 2 * 8 + 5
    # A constant map gives uniform attention, in half precision too.
    torch.testing.assert_close(
        spatial_attention(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16)),
        torch.full((1, 8, 8), 1 / 64),
    )


def test_agreement_is_one_for_equal_maps_and_none_without_a_map():
    attention = spatial_attention(torch.randn(2, 3, 4, 4))
    assert agreement(attention, attention * 2) == pytest.approx(1)
    assert agreement(attention, -attention) == pytest.approx(-1)
    assert agreement(attention, torch.full((2, 4, 4), 1 / 16)) is None
    assert agreement(attention, attention[:, :2]) is None


def test_levels_without_a_feature_map_are_left_out():
    records = dict(map=[torch.randn(1, 2, 3, 3)], vector=[torch.randn(1, 2)], silent=[], pair=[()])
    assert list(attention_maps(records)) == ['map']


def test_levels_are_the_recorders_that_a_loss_compares():
    def loss(student, teacher):
        return dict(
            preds_S=dict(from_student=True, recorder=student),
            preds_T=dict(from_student=False, recorder=teacher),
        )

    mappings = dict(a=loss('p3', 't3'), b=loss('p4', 't4'), c=loss('p3', 't3'))
    assert compared_recorders(mappings) == dict(p3='t3', p4='t4')
    assert compared_recorders(dict(a=dict(x=dict(from_student=True, recorder='p3')))) == {}


@pytest.mark.parametrize('padding', [dict(), dict(pad_param=np.array([16.0, 16.0, 0.0, 0.0]))])
def test_padding_is_cut_off_on_every_side(padding):
    # A photograph of 40x80 pixels, at 0.8 of its size in an input of 64x64.
    top = 16 if padding else 0
    image = np.zeros((64, 64, 3), np.uint8)
    image[top : top + 32] = 200
    sample = BaseDataElement(
        metainfo=dict(ori_shape=(40, 80), img_shape=(64, 64), scale_factor=(0.8, 0.8), **padding)
    )
    cut = without_padding(image, (64, 64), sample)
    assert cut.shape == (32, 64, 3) and (cut == 200).all()
    # A map of stride 8 over the same input.
    cut = without_padding(cv2.resize(image[..., 0], (8, 8)), (64, 64), sample)
    assert cut.shape == (32, 64) and (cut[8:24] == 200).all()


def test_the_picture_glows_where_the_attention_is_and_is_dark_where_it_is_not():
    image = np.full((40, 60, 3), 120, np.uint8)
    attention = np.ones((4, 6), np.float32)
    attention[:, 0] = 4
    attention[:, -1] = 0.01
    picture = draw_attention(image, attention).astype(int)
    assert picture.shape == image.shape
    even, glow, dark = picture[20, 30], picture[20, 1], picture[20, -2]
    assert even[0] == even[1] == even[2]
    assert glow[0] > 200 and glow[0] > even[0] and glow[0] > glow[2] and dark.max() < even.min() / 2

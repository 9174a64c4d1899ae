"""Annotations of other formats as COCO's, which all of training and evaluation read."""

from .base import Annotations, Converted
from .coco import CocoAnnotations
from .coco_writer import CocoWriter, write_coco
from .convert import convert_dataset
from .detect import open_annotations
from .voc import VocAnnotations
from .yolo import YoloAnnotations

__all__ = [
    'Annotations',
    'CocoAnnotations',
    'CocoWriter',
    'Converted',
    'VocAnnotations',
    'YoloAnnotations',
    'convert_dataset',
    'open_annotations',
    'write_coco',
]

from .drawn_dataset import DrawnDataset, draw_dataset
from .prepare import PreparedData, prepare_data
from .split import split_coco

__all__ = ['DrawnDataset', 'PreparedData', 'draw_dataset', 'prepare_data', 'split_coco']

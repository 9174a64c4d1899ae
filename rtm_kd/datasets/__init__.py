from .drawn_dataset import DrawnDataset, draw_dataset

__all__ = ['DrawnDataset', 'draw_dataset']

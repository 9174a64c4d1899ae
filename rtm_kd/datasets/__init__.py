from .drawn_dataset import DrawnDataset

__all__ = ['DrawnDataset']

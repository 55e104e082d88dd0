"""Prepared datasets, batches and augmentation, and a file for each dataset."""

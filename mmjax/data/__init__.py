"""From records to batches on the host: NumPy, Pillow and Grain, never a device.

``records -> preparation (images, augmentation, tokenizers) -> pipeline -> batches``.
"""

"""Entry points: ``python -m experiments.pretrain --config=configs/icons.py``."""

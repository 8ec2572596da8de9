"""Benchmarks: ``python -m experiments.benchmarks.contrastive``."""

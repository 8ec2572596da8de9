"""Models: encoders put together."""

from mmjax.models.two_tower import TwoTower, build_two_tower, clamped_scale, unit_rows

__all__ = ["TwoTower", "build_two_tower", "clamped_scale", "unit_rows"]

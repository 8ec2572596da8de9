"""Published numbers, printed beside ours: one script for each table."""

"""Looking at what was learned: embed a source, retrieve, classify zero-shot, report."""

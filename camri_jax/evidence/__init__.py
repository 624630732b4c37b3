"""What the rows of trials show: measures, selection, statistics, verdicts, pictures."""

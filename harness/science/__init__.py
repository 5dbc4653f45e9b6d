"""The statistics of the paper and what guards them: pure functions, arrays and labels in, numbers out."""

"""Grid of problem sizes of the loss benchmark: measured cells, their table, summary and plots."""

"""Beyond the study: each expert alone, every ranking side by side, and which experts are needed."""

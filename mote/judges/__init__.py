"""From text to label: rules for refusal and reasoning, each label with its evidence."""

"""What is asked: one folder a task, with its prompt generator or loader."""

"""Assembly of Experts: children merged tensor by tensor from parents of one architecture (arXiv 2506.14794)."""

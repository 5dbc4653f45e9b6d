"""Two models of one expert layout under one recipe: what a quantised, pruned or fine-tuned sibling does otherwise."""

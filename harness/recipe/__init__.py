"""What a study asks: recipes, label sets, the manifest of a run."""

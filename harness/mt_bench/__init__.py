"""MT-Bench under any profile: both turns answered by an engine, judged over HTTP, shown beside the untouched model."""

"""Parts of the pages about results: the matrix, one comparison, its items, safety and latency."""

"""Where slices are scanned: this machine, Ray, Slurm. All run the same `scan_slice`; none knows what a match means."""

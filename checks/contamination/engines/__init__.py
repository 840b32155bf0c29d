"""Where slices are scanned: on this machine, on Ray, under Slurm. All run the same `scan_slice`."""

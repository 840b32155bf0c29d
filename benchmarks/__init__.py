"""What TrainVitals costs, beside the usual tools, on the machine at hand: `python -m benchmarks`."""

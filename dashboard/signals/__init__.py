"""All that a run holds, by name: any signal, formulas of several, pinned views, samples, the run card."""

"""Whether a variant computes what its model says: inputs, a reference run, a measure, tolerances."""

"""The error bound: a coded residual that corrects a field wherever it is too far off."""

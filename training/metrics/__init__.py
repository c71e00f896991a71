"""How good is it? Measures, and the baselines they are compared with."""

"""Half precision and INT8: calibrated, made, judged."""

"""Checks and conversions of data sets' official layouts."""

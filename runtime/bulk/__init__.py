"""Many images: processes that survive an image which ends them, and Parquet data sets. Needs the extra `bulk`."""

"""Files: HATS layout and metadata, Parquet parts with digests, object stores."""

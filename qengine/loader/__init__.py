"""From input files to a published snapshot: sources, partitioning, quality, publish."""

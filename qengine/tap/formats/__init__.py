"""Result formats: from Arrow batches to bytes."""

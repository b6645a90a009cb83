"""What a Python user touches: connect(), Result."""

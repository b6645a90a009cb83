"""The TAP service: protocol and formats, no query logic."""

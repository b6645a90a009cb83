"""Other systems on the same files, each in a process of its own."""

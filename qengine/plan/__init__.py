"""From a bound query to tasks: lift, prune, prove locality, split, fragment, estimate, explain."""

"""What `run` does beside running: a module for each subcommand, or for several that are alike."""

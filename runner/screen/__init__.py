"""What a run shows on the terminal while it goes on, and at its end."""

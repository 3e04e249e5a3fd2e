"""Which code trials ran with: told, kept, and put back."""

"""What params.yaml may say, part by part, and where it is wrong."""

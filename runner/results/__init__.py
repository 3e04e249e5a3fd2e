"""What `run` answers about trials that were run: tables, plots, comparisons, a page to send to somebody."""

"""What turns the results of a search's rounds into its next grid: the commands for `_search: {next: …}`."""

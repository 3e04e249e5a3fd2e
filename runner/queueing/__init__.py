"""The line of trials that wait, the slots that take them, and who waits for whom."""

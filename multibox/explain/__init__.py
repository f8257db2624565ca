"""What default boxes do: which of them finds, matches, suppresses, and is a hard negative."""

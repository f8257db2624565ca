"""What default boxes do: which of them cover, match, find and suppress, and are hard negatives."""

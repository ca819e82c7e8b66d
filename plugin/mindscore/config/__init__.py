"""The settings' types, and the file that they come from."""

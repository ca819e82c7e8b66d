"""The settings' types, and the file they come from."""

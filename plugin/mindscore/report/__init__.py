"""The findings of a command as one self-contained HTML file."""

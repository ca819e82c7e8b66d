"""The default flows, one plugin each."""

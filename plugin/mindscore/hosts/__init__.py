"""Adapters that agents load through their own extension points."""

"""The shared parts of the report and the review page: templates, styles, heat map, policy."""

"""What the report and the review page share: templates, looks, the heat map, their policy."""

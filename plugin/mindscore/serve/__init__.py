"""``mindscore serve``: a model in this process, behind HTTP."""

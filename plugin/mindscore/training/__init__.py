"""Send accepted candidates to a trainer, or train an adapter here."""

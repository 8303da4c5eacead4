"""Strategies replayed on labels that exist: what each would have gained, before anyone labels by it."""

"""Mini Platform: files arrive, one declaration of a dataset gives trusted tables."""

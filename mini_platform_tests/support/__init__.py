"""What tests are made of, and several rooms of them need. Not here: tests; what one room alone needs stands in that room."""

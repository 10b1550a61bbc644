"""Helpers that several rooms of tests share. Not here: tests, and helpers of a single room, which are in that room."""

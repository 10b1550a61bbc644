"""Declarations of every kind: what a user may say, held against what comes out, or refused in a sentence."""

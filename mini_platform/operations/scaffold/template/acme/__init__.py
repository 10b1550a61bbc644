"""The datasets of acme, and assets of your own."""

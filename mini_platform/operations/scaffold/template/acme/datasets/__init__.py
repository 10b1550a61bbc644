"""The datasets of acme: each file declares one."""

"""Writes a dump of the database that this code makes."""

from mini_platform_tests.support.dumps import main

main()

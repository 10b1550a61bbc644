"""The fixture `platform`: the datasets of this project, on a Postgres of the test's own."""

pytest_plugins = ["mini_platform.testing"]

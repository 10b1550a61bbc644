"""The Dagster component that users' `defs.yaml` files name as their `type`: `mini_platform.components.Dataset`."""

from mini_platform.dagster.components import Dataset

__all__ = ["Dataset"]

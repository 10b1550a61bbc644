"""What a `defs.yaml` names as its `type`: users' files say `mini_platform.components.Dataset`, wherever the class stands."""

from mini_platform.dagster.components import Dataset

__all__ = ["Dataset"]

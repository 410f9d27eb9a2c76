"""The contract of each port as checks that any plugin can be put through: ``stagecast check NAME``."""

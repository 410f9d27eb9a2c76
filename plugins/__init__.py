"""The plugins that ship with Stagecast; each is found by its entry point, none imports another."""

"""``stagecast eval``: how good retrieval and answers are, measured on collections of their own."""

"""Language models at their providers; openai is imported nowhere else, and only when a model is called."""

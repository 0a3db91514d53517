"""A GPT with hyper-connections: its text, its model and its trainer."""

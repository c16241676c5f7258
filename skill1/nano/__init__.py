"""The world that trains from scratch on a CPU: tiny policies, their prompts, demonstrations and warm start."""

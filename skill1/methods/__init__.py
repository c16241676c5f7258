"""What is trained: Skill1 and the methods that the paper compares it with, each behind `base.Method`."""

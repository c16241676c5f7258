"""SkillRL (arXiv 2602.08234) on this kit's rows: a bank of named principles, a teacher, growth from failures."""

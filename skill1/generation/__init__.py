"""How the policy writes: its weights made ready for generation, sampling, and the backends behind `Policy.generate`."""

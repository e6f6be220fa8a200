"""The honest-but-curious server's attacks, and the grader that alone knows the truth."""

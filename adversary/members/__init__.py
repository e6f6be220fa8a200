"""The room that membership attacks share: candidates' gradients, shadow clients.

In: a view, candidates, auxiliary data. Out: a gradient per candidate, rehearsed updates.
"""

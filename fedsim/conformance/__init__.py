"""The contract that every attack keeps, as a suite for anybody's attack.

In: an attack. Out: for each property whether it holds, and why not. The tests of fedsim run the
same properties on fedsim's own attacks.
"""

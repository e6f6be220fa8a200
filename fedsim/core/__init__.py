"""The core room: the nouns of a run, and small tools that know nothing of it.

In: nothing of fedsim's. Out: types, tensors by name, streams of random numbers, files, errors.
"""

"""Inputs from updates: linear systems, joint and gradient-matching attacks, and what decides them.

Images are as the data set holds them: (channels, height, width), each pixel in [0, 1].
"""

"""What a client does with its data, without Flower.

In: what the server sent, the run as the node's operator allows it, what the client remembers (a
`Task`). Out: an upload, its weight, memory, and ground truth (a `Response`).
"""

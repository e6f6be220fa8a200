"""What a client does with its data: local training, and the batch gradient inside it."""

"""Transformers, as Flower's quickstart has it: batches that are dicts, a loss of its own, AdamW."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from torch.optim import AdamW
from transformers import BertConfig, BertForSequenceClassification  # pyright: ignore[reportMissingImports]

from tests.apps.digits import CLIENTS

LR, BATCH = 1e-3, 6
client_app = ClientApp()


def get_model():
    """A BERT of one layer, with new weights: nothing is downloaded."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=12, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def batches(number):
    """Token ids, masks and labels; most labels of a client are one."""
    stream = torch.Generator().manual_seed(number)
    for _ in range(2):
        labels = torch.full((BATCH,), number % 3)
        labels[0] = (number + 1) % 3
        ids = torch.randint(1, 50, (BATCH, 12), generator=stream)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@client_app.train()
def train(msg: Message, context: Context):
    net = get_model()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict(), strict=True)
    optimizer, count = AdamW(net.parameters(), lr=LR), 0
    net.train()
    for batch in batches(int(context.node_config["partition-id"])):
        optimizer.zero_grad()
        net(**batch).loss.backward()
        optimizer.step()
        count += len(batch["labels"])
    content = RecordDict(
        {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": count})}
    )
    return Message(content, reply_to=msg)


def server_app(wrap, results):
    """Return the ServerApp; `wrap` puts a recorder around its strategy, or nothing."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS))
        results["final"] = strategy.start(
            grid=grid, initial_arrays=ArrayRecord(get_model().state_dict()), num_rounds=2
        ).arrays

    return app

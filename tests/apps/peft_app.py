"""LoRA fine-tuning of a language model, laid out as Flower's `examples/flowertune-llm`.

`get_peft_model_state_dict` travels, as there. A tiny GPT-2 with new weights stands for the
pre-trained model, tokens drawn at random for the data, and steps of SGD for the trainer.
"""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from peft import (  # pyright: ignore[reportMissingImports]
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import GPT2Config, GPT2LMHeadModel  # pyright: ignore[reportMissingImports]

from tests.apps.digits import CLIENTS

LENGTH, VOCABULARY = 12, 64
LR, BATCH, EPOCHS = 0.5, 1, 5
PAD, BOS, EOS = 0, 1, 2
client_app = ClientApp()


def get_model():
    """Return the frozen base, the same at every party, with adapters."""
    torch.manual_seed(0)
    base = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
            bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, tie_word_embeddings=True,
        )
    )  # fmt: skip
    adapters = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM", fan_in_fan_out=True,
        target_modules=["c_attn"],
    )  # fmt: skip
    return get_peft_model(base, adapters)


def text(number):
    """Return the one text of a client: input ids, and the next tokens."""
    stream = torch.Generator().manual_seed(100 + number)
    words = torch.randint(3, VOCABULARY, (LENGTH - 2,), generator=stream)
    coded = torch.cat([torch.tensor([BOS]), words, torch.tensor([EOS])])
    return coded[:-1].unsqueeze(0), coded[1:].unsqueeze(0)


@client_app.train()
def train(msg: Message, context: Context):
    model = get_model()
    set_peft_model_state_dict(model, msg.content["arrays"].to_torch_state_dict())
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    inputs, targets = text(int(context.node_config["partition-id"]))
    model.train()
    losses = []
    for _ in range(EPOCHS):
        logits = model(input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets)
        losses.append(loss.item())
        slopes = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight -= LR * slope
    content = RecordDict(
        {
            "arrays": ArrayRecord(get_peft_model_state_dict(model)),
            "metrics": MetricRecord({"train_loss": losses[-1], "num-examples": 1}),
        }
    )
    return Message(content, reply_to=msg)


def server_app(wrap, results):
    """Return the ServerApp; `wrap` puts a recorder around its strategy, or nothing."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(
            FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
        )
        arrays = ArrayRecord(get_peft_model_state_dict(get_model()))
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
        results["final"] = result.arrays

    return app

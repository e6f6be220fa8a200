"""Tiny transformers with new weights, as users name them in a config: nothing is downloaded."""

import transformers  # pyright: ignore[reportMissingImports]

SMALL = {"attn_implementation": "eager"}


def gpt2(input_shape, vocabulary, *, dropout: float = 0.0):
    """GPT-2 of two layers; its head is its token embedding."""
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=input_shape[0], n_embd=16, n_layer=2, n_head=2,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, use_cache=False,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def bert(input_shape, vocabulary, num_classes, *, dropout: float = 0.0):
    """BERT of one layer with a classifier."""
    config = transformers.BertConfig(
        vocab_size=vocabulary, max_position_embeddings=input_shape[0], hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=num_classes,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def llama(input_shape, vocabulary):
    """Llama of one layer, with rotary positions."""
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=input_shape[0], hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32,
        use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)

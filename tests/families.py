"""Small models of the families that the product is for, made on the spot.

Each has the tokenizer of its family, trained on a few sentences so that rare words are several
tokens, and random weights. Nothing is downloaded.
"""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "The man has always broken the glass.",
    "The women have often drunk the water, haven't they?",
    "It is the old teacher that the children don't see.",
    "A naïve café-owner said: “so what?”",
    "The unbelievable story was told by the children again and again.",
    "She opened it (the box) and they drank a glass of cold water.",
]


# Those of trainers whose result is another in each process.
_VOCABULARIES = json.loads((Path(__file__).parent / "family_vocabularies.json").read_text("utf-8"))


class Family(NamedTuple):
    name: str
    task: str
    tokenizer: Any
    model: Any


def _train(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@functools.cache
def gpt2_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=380,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    token = "<|endoftext|>"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=token, eos_token=token, unk_token=token
    )


@functools.cache
def roberta_tokenizer() -> Any:
    return _byte_level_with_ends(lstrip_mask=True)


@functools.cache
def bart_tokenizer() -> Any:
    return _byte_level_with_ends(lstrip_mask=True)


def _byte_level_with_ends(lstrip_mask: bool) -> Any:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=380,
            special_tokens=[
                *("<s>", "<pad>", "</s>", "<unk>"),
                AddedToken("<mask>", lstrip=lstrip_mask, special=True),
            ],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=lstrip_mask, special=True),
    )


@functools.cache
def bert_tokenizer() -> Any:
    words = _VOCABULARIES["bert"]
    tokenizer = Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(words[:5])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@functools.cache
def llama_tokenizer() -> Any:
    """BPE over the metaspace with byte fallback; puts BOS itself."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    _train(
        tokenizer, trainers.BpeTrainer(vocab_size=450, special_tokens=specials, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@functools.cache
def t5_tokenizer() -> Any:
    pieces = [tuple(piece) for piece in _VOCABULARIES["t5"]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(pre_tokenizers_space(), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([piece for piece, _ in pieces[:3]])
    sentinels = [f"<extra_id_{i}>" for i in range(20)]
    tokenizer.add_special_tokens(sentinels)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=sentinels,
    )


def pre_tokenizers_space() -> Any:
    from tokenizers import Regex

    return Regex(r"\s+")


@functools.cache
def qwen_tokenizer() -> Any:
    """Byte-level without any start token."""
    base = gpt2_tokenizer()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer, eos_token="<|endoftext|>"
    )


def task_of(name: str) -> tuple[str, str]:
    """Which kind of model a family is, and what transformers makes it with."""
    tasks = TASKS | MORE_TASKS | LEAKY_TASKS | WINDOW_TASKS | PAIR_TASKS | CAUSAL_TASKS
    return tasks[name]


def family(name: str, **more: Any) -> Family:
    """A family's tokenizer and a random model, in eval mode, the same each time.

    Args:
        name: The family's.
        more: What else its configuration says.
    """
    tokenizers = TOKENIZERS | MORE_TOKENIZERS | LEAKY_TOKENIZERS | WINDOW_TOKENIZERS
    tokenizer = (tokenizers | PAIR_TOKENIZERS | CAUSAL_TOKENIZERS)[name]()
    config = CONFIGS[name](len(tokenizer), **more)
    torch.manual_seed(0)
    task, auto_class = task_of(name)
    model = getattr(transformers, auto_class).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:  # no sinusoids
                parameter.normal_(0.0, 0.3)
    return Family(name, task, tokenizer, model.eval())


TOKENIZERS = {
    "gpt2": gpt2_tokenizer,
    "llama": llama_tokenizer,
    "qwen": qwen_tokenizer,
    "bert": bert_tokenizer,
    "roberta": roberta_tokenizer,
    "t5": t5_tokenizer,
    "bart": bart_tokenizer,
}
TASKS = {
    "gpt2": ("lm", "AutoModelForCausalLM"),
    "llama": ("lm", "AutoModelForCausalLM"),
    "qwen": ("lm", "AutoModelForCausalLM"),
    "bert": ("mlm", "AutoModelForMaskedLM"),
    "roberta": ("mlm", "AutoModelForMaskedLM"),
    "t5": ("seq2seq", "AutoModelForSeq2SeqLM"),
    "bart": ("seq2seq", "AutoModelForSeq2SeqLM"),
}
# Families whose models differ but whose tokenizers are of a kind that is there already: the tests
# that need a whole model run on them too.
MORE_TOKENIZERS = {
    "pythia": gpt2_tokenizer,
    "olmo": qwen_tokenizer,
    "olmo2": qwen_tokenizer,
    "distilbert": bert_tokenizer,
    "albert": bert_tokenizer,
    "electra": bert_tokenizer,
    "flan-t5": t5_tokenizer,
}
MORE_TASKS = {
    "pythia": TASKS["gpt2"],
    "olmo": TASKS["gpt2"],
    "olmo2": TASKS["gpt2"],
    "distilbert": TASKS["bert"],
    "albert": TASKS["bert"],
    "electra": TASKS["bert"],
    "flan-t5": TASKS["t5"],
}
# Families whose models let padding change what a sentence costs: by Fourier transforms or
# convolutions over positions, landmarks, neighbours' embeddings.
LEAKY_TOKENIZERS = {
    **dict.fromkeys(("fnet", "nystromformer", "convbert", "mobilebert"), bert_tokenizer),
    "prophetnet": bart_tokenizer,
}
LEAKY_TASKS = dict.fromkeys(LEAKY_TOKENIZERS, TASKS["bert"]) | {"prophetnet": TASKS["bart"]}
# More families with an encoder and a decoder, whose models are like BART or T5.
PAIR_TOKENIZERS = {
    "mt5": t5_tokenizer,
    **dict.fromkeys(
        ("mbart", "pegasus", "marian", "blenderbot", "blenderbot-small", "plbart", "m2m100"),
        bart_tokenizer,
    ),
}
PAIR_TASKS = dict.fromkeys(PAIR_TOKENIZERS, TASKS["bart"])
# Families whose layers, or some of them, attend over a window of so many tokens.
_WINDOW_CONFIGS = {
    "gemma2": "Gemma2Config",
    "gemma3": "Gemma3TextConfig",
    "mistral": "MistralConfig",
    "ministral": "MinistralConfig",
    "ministral3": "Ministral3Config",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "olmo3": "Olmo3Config",
    "phi3": "Phi3Config",
    "starcoder2": "Starcoder2Config",
    "cohere2": "Cohere2Config",
    "exaone4": "Exaone4Config",
    "cwm": "CwmConfig",
    "vaultgemma": "VaultGemmaConfig",
    "smollm3": "SmolLM3Config",
    "mixtral": "MixtralConfig",
    "qwen2-moe": "Qwen2MoeConfig",
    "qwen3-moe": "Qwen3MoeConfig",
}
WINDOW = 32
# The class of Qwen2's tokenizer adds a token to any vocabulary that has not got it.
WINDOW_TOKENIZERS = {**dict.fromkeys(_WINDOW_CONFIGS, llama_tokenizer), "qwen2": qwen_tokenizer}
WINDOW_TASKS = dict.fromkeys(_WINDOW_CONFIGS, TASKS["llama"])
# More families whose tokens stand in one row, so that all kinds of attention are there.
_CAUSAL_CONFIGS = {
    "phi": "PhiConfig",
    "stablelm": "StableLmConfig",
    "gemma": "GemmaConfig",
    "cohere": "CohereConfig",
    "granite": "GraniteConfig",
    "helium": "HeliumConfig",
    "olmoe": "OlmoeConfig",
}
CAUSAL_TOKENIZERS = dict.fromkeys(_CAUSAL_CONFIGS, llama_tokenizer)
CAUSAL_TASKS = dict.fromkeys(_CAUSAL_CONFIGS, TASKS["llama"])
_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "pythia": lambda v: transformers.GPTNeoXConfig(vocab_size=v, **_SMALL),
    "olmo": lambda v: transformers.OlmoConfig(vocab_size=v, **_SMALL),
    "olmo2": lambda v: transformers.Olmo2Config(vocab_size=v, **_SMALL),
    "distilbert": lambda v: transformers.DistilBertConfig(
        vocab_size=v, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=64
    ),
    "albert": lambda v: transformers.AlbertConfig(vocab_size=v, embedding_size=8, **_SMALL),
    "electra": lambda v: transformers.ElectraConfig(vocab_size=v, embedding_size=8, **_SMALL),
    "flan-t5": lambda v: transformers.T5Config(
        vocab_size=v, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    ),
    "fnet": lambda v: transformers.FNetConfig(
        vocab_size=v, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        max_position_embeddings=64,
    ),
    "nystromformer": lambda v: transformers.NystromformerConfig(
        vocab_size=v, conv_kernel_size=5, **_SMALL
    ),
    "convbert": lambda v: transformers.ConvBertConfig(
        vocab_size=v, embedding_size=16, conv_kernel_size=3, head_ratio=1, **_SMALL
    ),
    "mobilebert": lambda v: transformers.MobileBertConfig(
        vocab_size=v, embedding_size=8, intra_bottleneck_size=8, true_hidden_size=8,
        num_feedforward_networks=2, **_SMALL,
    ),
    "prophetnet": lambda v: transformers.ProphetNetConfig(
        vocab_size=v, hidden_size=16, encoder_ffn_dim=32, decoder_ffn_dim=32,
        num_encoder_layers=2, num_decoder_layers=2, num_encoder_attention_heads=2,
        num_decoder_attention_heads=2, max_position_embeddings=64, ngram=2,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    ),
    "gpt2": lambda v: transformers.GPT2Config(
        vocab_size=v, n_embd=16, n_layer=2, n_head=2, n_positions=64,
        bos_token_id=0, eos_token_id=0,
    ),
    "llama": lambda v: transformers.LlamaConfig(
        vocab_size=v, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    ),
    "qwen": lambda v: transformers.Qwen2Config(
        vocab_size=v, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    ),
    "bert": lambda v: transformers.BertConfig(
        vocab_size=v, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    ),
    "roberta": lambda v: transformers.RobertaConfig(
        vocab_size=v, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=66, pad_token_id=1,
    ),
    "t5": lambda v: transformers.T5Config(
        vocab_size=v, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    ),
    "bart": lambda v: transformers.BartConfig(
        vocab_size=v, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_position_embeddings=64, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=2,
    ),
}  # fmt: skip


def _with_window(name: str) -> Any:
    """The configuration of a model two of whose layers see all of a text, and two a window."""

    def make(vocabulary_size: int, window: int = WINDOW) -> Any:
        known = {
            **_SMALL,
            "vocab_size": vocabulary_size,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "sliding_window": window,
            "use_sliding_window": True,
            "max_window_layers": 2,
            "no_rope_layer_interval": 2,
            "num_experts": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        }
        kind = getattr(transformers, name)
        fields = inspect.signature(kind).parameters
        return kind(**{key: value for key, value in known.items() if key in fields})

    return make


_with_windows = _WINDOW_CONFIGS | _CAUSAL_CONFIGS
CONFIGS.update({name: _with_window(config) for name, config in _with_windows.items()})


def _like_bart(name: str) -> Any:
    """The configuration of a model whose layers are those of BART."""

    def make(vocabulary_size: int) -> Any:
        return getattr(transformers, name)(
            vocab_size=vocabulary_size, d_model=16, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, max_position_embeddings=64, bos_token_id=0, pad_token_id=1,
            eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
        )  # fmt: skip

    return make


CONFIGS |= {
    "mt5": lambda v: transformers.MT5Config(
        vocab_size=v, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    ),
    "mbart": _like_bart("MBartConfig"),
    "pegasus": _like_bart("PegasusConfig"),
    "marian": _like_bart("MarianConfig"),
    "blenderbot": _like_bart("BlenderbotConfig"),
    "blenderbot-small": _like_bart("BlenderbotSmallConfig"),
    "plbart": _like_bart("PLBartConfig"),
    "m2m100": _like_bart("M2M100Config"),
}  # fmt: skip

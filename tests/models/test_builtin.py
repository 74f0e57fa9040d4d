"""The built-in tiny models: they load, they are small, and they know their grammar."""

import gzip
import importlib
import random
import sys
from itertools import islice
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "tiny_models"
BUILTIN = Path(__file__).parents[2] / "src" / "finetune_lm" / "models" / "builtin"
DATA = Path(__file__).parents[2] / "data" / "nonce_verb"
NAMES = ("tiny-lm", "tiny-mlm", "tiny-seq2seq")
NONCE = ("crined", "blorked", "dacked", "flomped", "wugged")


def script(name):
    # Appended, so that no script can hide a module of the same name.
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def loaded():
    evaluate = script("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return {name: evaluate.load(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_loads_in_float32_with_a_vocabulary_that_fits(loaded, name):
    model, tokenizer = loaded[name]
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert tokenizer.is_fast
    assert sum(p.numel() for p in model.parameters()) < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_also_what_transformers_picks(name):
    import transformers

    auto_class = getattr(transformers, script("evaluate").AUTO_CLASSES[name])
    model = auto_class.from_pretrained(BUILTIN / name)
    assert str(model.dtype) == "torch.float32"


def test_together_they_are_small():
    assert sum(f.stat().st_size for f in BUILTIN.rglob("*") if f.is_file()) < 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_length_limits(loaded, name):
    model, tokenizer = loaded[name]
    assert tokenizer.model_max_length == (512 if name == "tiny-seq2seq" else 128)
    if name != "tiny-seq2seq":
        assert model.config.max_position_embeddings == 128


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", NONCE)
def test_made_up_verbs_are_several_known_tokens(loaded, name, verb):
    tokenizer = loaded[name][1]
    text = f"The man has always {verb} the water."
    known = tokenizer("The man has always the water.")["input_ids"]
    ids = tokenizer(text)["input_ids"]
    assert len(ids) >= len(known) + 2
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("name", NAMES)
def test_printable_ascii_is_never_unknown(loaded, name):
    tokenizer = loaded[name][1]
    characters = [chr(c) for c in range(33, 127)]
    ids = tokenizer(" ".join(characters) + " x" + "".join(filter(str.isalnum, characters)))
    assert tokenizer.unk_token_id not in ids["input_ids"]


def test_lm_tokenizer_adds_nothing_but_has_a_start_token(loaded):
    model, tokenizer = loaded["tiny-lm"]
    ids = tokenizer("The man has drunk the water.")["input_ids"]
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.pad_token is None
    assert tokenizer.decode(ids) == "The man has drunk the water."
    assert model.config.resid_pdrop == model.config.attn_pdrop == 0.1


def test_mlm_tokenizer_adds_cls_and_sep(loaded):
    _, tokenizer = loaded["tiny-mlm"]
    ids = tokenizer("The [MASK] has drunk the water.")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert ids[2] == tokenizer.mask_token_id
    assert len(ids) == 9


def test_seq2seq_tokenizer_is_as_t5s(loaded):
    model, tokenizer = loaded["tiny-seq2seq"]
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    ids = tokenizer("The <extra_id_0> has drunk the <extra_id_1>.")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id == 1
    sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(100)])
    assert sentinels == list(range(len(tokenizer) - 1, len(tokenizer) - 101, -1))
    assert [i for i in ids if i in sentinels] == sentinels[:2]
    assert set(sentinels) <= set(tokenizer.all_special_ids)
    assert model.config.decoder_start_token_id == tokenizer.pad_token_id == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["agreement", "arguments"])
def test_knows_the_grammar(loaded, name, kind):
    model, tokenizer = loaded[name]
    right, _ = script("evaluate").accuracy(name, model, tokenizer, kind, n=42, seed=5)
    assert right > 0.85


def test_corpus_is_deterministic():
    grammar = script("grammar")
    first, again = (list(islice(grammar.corpus(3), 300)) for _ in range(2))
    assert first == again
    assert first != list(islice(grammar.corpus(4), 300))


def test_corpus_has_no_held_out_triple():
    grammar = script("grammar")
    corpus = set(islice(grammar.corpus(20), 60_000))
    adverbs = [*grammar.FREQUENCY_ADVERBS]
    rendered = seen = 0
    for kind in ("agreement", "arguments"):
        for pair in grammar.minimal_pairs(kind, 300):
            assert grammar.is_held_out(pair.triple)
            assert pair.good not in corpus
            assert pair.good != pair.bad
    for verb in ("drink", "eat", "read", "buy", "break"):
        lexical = grammar.LEXICAL_VERBS[verb]
        for subject in ("man", "woman", "boy", "dog", "king", "doctor"):
            for noun in grammar.NOUNS.values():
                if noun.classes & set(lexical.objects):
                    triple = grammar.Triple(lexical, grammar.NOUNS[subject], noun)
                    texts = [
                        grammar.in_frame(frame, subject, noun.singular, lexical.participle, adverb)
                        for frame in ("perfect transitive", "perfect passive")
                        for adverb in adverbs
                    ]
                    found = sum(text in corpus for text in texts)
                    rendered += grammar.is_held_out(triple)
                    seen += found
                    assert not (found and grammar.is_held_out(triple))
    assert rendered > 50
    assert seen >= 5  # the search does find what is in the corpus


def test_drawing_keeps_to_one_side_of_the_split():
    grammar = script("grammar")
    rng = random.Random(1)
    verbs = [*grammar.LEXICAL_VERBS.values()]
    for held_out in (False, True):
        triples = [grammar.draw_triple(rng, verbs, held_out=held_out) for _ in range(2000)]
        assert {grammar.is_held_out(t) for t in triples} == {held_out}


def test_no_reserved_word_is_in_the_corpus():
    grammar = script("grammar")
    words = {w for s in islice(grammar.corpus(20), 60_000) for w in s.strip(".?").split()}
    assert not words & grammar.RESERVED_WORDS


def test_data_files_are_what_the_script_makes():
    made = script("make_nonce_verb_data").files()
    assert sorted(made) == sorted(f.name for f in DATA.iterdir())
    for name, lines in made.items():
        content = (DATA / name).read_bytes()
        assert gzip.decompress(content).decode().splitlines() == lines
        assert content[4:8] == bytes(4)  # no time stamp


def test_masked_nouns_are_single_tokens(loaded):
    data = script("make_nonce_verb_data")
    for word in (*data.SUBJECTS, *data.OBJECTS):
        assert len(loaded["tiny-mlm"][1].tokenize(word)) == 1
        assert len(loaded["tiny-lm"][1].tokenize(f" {word}")) == 1
        assert len(loaded["tiny-seq2seq"][1].tokenize(word)) == 1

from mmjax.training import build_run


def test_the_tokenizer_learns_from_as_many_texts_as_wanted(make_config, tmp_path):
    config = make_config()
    sizes = []
    for texts in (1, None):
        config.data.text.training_texts = texts
        sizes.append(build_run(config, tmp_path / str(texts)).prepare.tokenizer.vocab_size)
    # Three numbers are special; the first text is "a red bar", all are of 1 + 4 + 4 words.
    assert sizes == [3 + 3, 3 + 9]

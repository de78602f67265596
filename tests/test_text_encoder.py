"""The text encoders: tokens, sizes, losses by hand, whitening, serving."""

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import characters, checkpoint
from stackgan_tf.text_encoders import char_cnn, char_cnn_rnn, joint_embedding, whitening

SYMBOLS = r"""abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'"/\|_@#$%^&*~`+-=<>()[]{} """
HOSTILE = [
    b"", b" ", b"A Flower, 5 petals!", b"x" * 201, b"x" * 200 + b"yz", b"word " * 4000,
    "größer 🐦 ÄÖ".encode(), b"\xff\xfe\x80a", b"\xc3", b"a\0b", b"\0", b"a-b\tc\nd\r",
    SYMBOLS.encode(), bytes(range(256)),
]


def reference_tokens(caption):
    """Reed's loader: a Lua table filled symbol by symbol, so the later '-' overwrites."""
    table = {}
    for i, symbol in enumerate(SYMBOLS, start=1):
        table[ord(symbol)] = i
    lower = [byte + 32 if 65 <= byte <= 90 else byte for byte in caption]
    return ([table.get(byte, 0) for byte in lower] + [0] * 201)[:201]


def small_encoder():
    model = char_cnn_rnn.CharCnnRnn(embedding_dim=6, width=8)
    model(np.zeros((1, 201), np.int32))
    return model


def test_tokens():
    assert len(SYMBOLS) == 70
    tokens = characters.tokenize(HOSTILE)
    assert tokens.dtype == tf.int32
    np.testing.assert_array_equal(tokens, [reference_tokens(caption) for caption in HOSTILE])
    assert characters.tokenize(["-"])[0, 0] == 60  # not 37


def test_captions_of_tokens():
    tokens = characters.tokenize(HOSTILE)
    again = characters.tokenize(characters.captions_of(tokens.numpy()))
    np.testing.assert_array_equal(again, tokens)


def test_tokens_in_a_graph_and_of_no_caption():
    tokenize = tf.function(characters.tokenize,
                           input_signature=[tf.TensorSpec([None], tf.string)])
    np.testing.assert_array_equal(tokenize(HOSTILE), characters.tokenize(HOSTILE))
    assert tokenize(tf.constant([], tf.string)).shape == (0, 201)


def test_parameters_of_the_released_size():
    model = char_cnn_rnn.CharCnnRnn(embedding_dim=1024, width=512)
    model(np.zeros((1, 201), np.int32))
    convolutions = (4 * 70 * 384 + 384) + (4 * 384 * 512 + 512) + (4 * 512 * 512 + 512)
    # three gates: 512 inputs, 512 states, and Keras's GRU has a bias for each of the two
    recurrent = 3 * (512 * 512 + 512 * 512 + 512 + 512)
    assert model.count_params() == convolutions + recurrent + (512 * 1024 + 1024) == 4_045_184


def test_padding_is_all_zero():
    model = small_encoder()
    kernel, bias = model.conv_1.get_weights()
    nothing = model.conv_1(tf.one_hot(characters.tokenize([""]) - 1, 70))
    np.testing.assert_allclose(nothing, np.broadcast_to(np.maximum(bias, 0), nothing.shape))
    first = model.conv_1(tf.one_hot(characters.tokenize(["b"]) - 1, 70))[0, 0]
    np.testing.assert_allclose(first, np.maximum(kernel[0, 1] + bias, 0), atol=1e-6)


def test_char_cnn_is_the_largest_answer_of_all_windows():
    model = char_cnn.CharCnn(embedding_dim=5, width=4)
    tokens = characters.tokenize(["a red flower", ""]).numpy()
    embeddings = model(tokens).numpy()
    (kernel_1, bias_1), (kernel_2, bias_2), (last, bias) = (
        layer.get_weights() for layer in (model.conv_1, model.conv_2, model.project))
    for row, embedding in zip(tokens, embeddings, strict=True):
        letters = np.array([[symbol == token for symbol in range(1, 71)] for token in row], float)
        first = [np.maximum(np.einsum("tc,tcf->f", letters[i:i + 4], kernel_1) + bias_1, 0)
                 for i in range(198)]
        pooled = [np.maximum(first[i], first[i + 1]) for i in range(0, 198, 2)]
        second = [np.maximum(np.einsum("tc,tcf->f", np.stack(pooled[i:i + 3]), kernel_2) + bias_2,
                             0) for i in range(97)]
        np.testing.assert_allclose(np.max(second, 0) @ last + bias, embedding, atol=1e-5)


def test_char_cnn_reads_words_wherever_they_stand():
    model = char_cnn.CharCnn(embedding_dim=5, width=32)
    gap = 10 * "\n"  # no symbol; windows are nine wide
    one, other, less = (gap + text for text in (
        f"red_{gap}broad\n{gap}sky", f"broad\n{gap}sky\n{gap}red_", f"red_{gap}broad\n"))
    one, other, less = model(characters.tokenize([one, other, less])).numpy()
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(one - less).max() > 1e-4


def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 5, 3)).astype(np.float32), np.array([0, 1, 0, 2, 1])


@pytest.mark.parametrize("with_labels", [True, False])
def test_structured_loss_by_three_loops(with_labels):
    (text, image), labels = vectors()
    names = labels if with_labels else np.arange(5)
    total, pairs = 0.0, 0
    for i in range(5):
        for j in range(5):
            if names[i] != names[j]:
                own = scores = other = 0.0
                for k in range(3):
                    own += float(image[i, k]) * float(text[i, k])
                    scores += float(image[i, k]) * float(text[j, k])
                    other += float(image[j, k]) * float(text[i, k])
                total += max(0, 1 + scores - own) + max(0, 1 + other - own)
                pairs += 1
    loss = joint_embedding.structured_loss(text, image, labels if with_labels else None)
    assert float(loss) == pytest.approx(total / pairs, rel=1e-5)


def test_structured_loss_of_one_class_is_zero():
    (text, image), _ = vectors()
    assert float(joint_embedding.structured_loss(text, image, np.zeros(5, np.int32))) == 0


@pytest.mark.parametrize("with_labels", [True, False])
def test_contrastive_loss_by_loops(with_labels):
    (text, image), labels = vectors()
    total = 0.0
    for a, b in ((text, image), (image, text)):
        for i in range(5):
            cosines = [float(np.dot(a[i], b[j]) / np.linalg.norm(a[i]) / np.linalg.norm(b[j]))
                       for j in range(5)]
            weights = [np.exp(cosine / 0.1) for cosine in cosines]
            group = [j for j in range(5) if labels[j] == labels[i]] if with_labels else [i]
            for j in group:
                share = 0.3 / len(group) + (0.7 if j == i else 0)
                total -= share * np.log(weights[j] / sum(weights))
    names = labels if with_labels else None
    loss = float(joint_embedding.contrastive_loss(text, image, names, class_share=0.3))
    assert loss == pytest.approx(total / 10, rel=1e-4)
    longer = float(joint_embedding.contrastive_loss(3 * text, image, names, class_share=0.3))
    assert longer == pytest.approx(loss, rel=1e-5)  # only angles count


def test_retrieval_by_hand():
    text = np.float32([[1, 0], [0, 1], [1, 0]])
    image = np.float32([[1, 0], [0, 1], [5, 1]])  # the last one wins all captions by its length
    labels = np.array([0, 1, 0])
    by_product = joint_embedding.retrieval(text, image, labels, cosine=False)
    assert [float(v) for v in by_product.values()] == pytest.approx([2 / 3, 1])
    by_angle = joint_embedding.retrieval(text, image, labels[::-1] * [1, 1, 2], cosine=True)
    assert [float(v) for v in by_angle.values()] == pytest.approx([2 / 3, 1])


def test_image_encoder_takes_any_size():
    for size in (16, 50, 64):
        encoder = joint_embedding.ImageEncoder(5)
        assert encoder(np.zeros((2, size, size, 3), np.float32)).shape == (2, 5)


def test_export_serves_in_the_cpp_loader(tmp_path):
    model, path = small_encoder(), str(tmp_path / "encoder")
    matrix = np.arange(36).reshape(6, 6) / 36
    serve = whitening.serving_function(model, np.arange(6), matrix)
    checkpoint.export(path, [model], {
        "serve": (serve, [tf.TensorSpec([None], tf.string, name="captions")])})
    expected = (model(np.array([reference_tokens(c) for c in HOSTILE])) - np.arange(6)) @ matrix
    loaded = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(loaded(captions=tf.constant(HOSTILE))["embeddings"], expected,
                               atol=1e-5)
    assert loaded(captions=tf.constant([], tf.string))["embeddings"].shape == (0, 6)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = meta.signature_def["serving_default"]
        fetch, feed = signature.outputs["embeddings"].name, signature.inputs["captions"].name
        np.testing.assert_allclose(session.run(fetch, {feed: HOSTILE}), expected, atol=1e-5)
        assert session.run(fetch, {feed: []}).shape == (0, 6)


def test_whitening_makes_components_alike():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    embeddings = 5 + rng.normal(size=(100_000, 4)) * [8, 2, 0.08, 0] @ turn
    mean, matrix, longest = whitening.compute(embeddings, floor=0.1)
    white = (embeddings - mean) @ matrix
    assert longest == pytest.approx(np.sqrt(np.square(white).sum(1).max()))
    # each component: its size over itself plus a tenth of the largest
    sizes = np.array([8 / 8.8, 2 / 2.8, 0.08 / 0.88, 0])
    sizes /= np.sqrt(np.mean(sizes ** 2))  # variance 1 in all
    np.testing.assert_allclose((white @ turn.T).std(0), sizes, rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)


def test_whitening_keeps_what_the_pictures_tell():
    rng = np.random.default_rng(0)
    turn, other_turn = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    # along three directions the picture tells 0.8, 0.05 and nothing of the variance
    latent, wording = rng.normal(size=(2, 400_000, 3))
    embeddings = (latent * np.sqrt([0.8, 0.05, 0]) + wording * np.sqrt([0.2, 0.95, 1])) * [1, 9, 4]
    images = 7 + latent * [5, 1, 2] @ other_turn
    mean, matrix, _ = whitening.compute(embeddings @ turn, images, floor=0.0, seen=0.1)
    sizes = ((embeddings @ turn - mean) @ matrix @ turn.T).std(0)
    expected = np.array([0.64 / 0.65, 0.0025 / 0.0125, 0])  # r^2 / (r^2 + seen) gives 0.89, 0.33
    np.testing.assert_allclose(sizes, expected / np.sqrt(np.mean(expected**2)), atol=0.02)


@pytest.mark.parametrize("count", [5, 500])
def test_whitening_keeps_all_where_pictures_tell_nothing(count):
    """Too few pictures, or those that have nothing to do with the captions."""
    embeddings, images = np.random.default_rng(1).normal(size=(2, count, 3)) * [1, 2, 3]
    white = whitening.compute(embeddings)[1]
    for useless in (images, np.zeros_like(images)):
        np.testing.assert_allclose(whitening.compute(embeddings, useless)[1], white,
                                   rtol=1e-5, atol=1e-6)


def test_whitening_leaves_out_what_no_caption_of_training_differs_in():
    """Two captions differ along a line; a third one is its foot on it."""
    mean, matrix, longest = whitening.compute(np.float32([[0, 0, 5], [6, 8, 5]]))
    white = (np.float32([[0, 0, 5], [6, 8, 5], [11, -2, 90]]) - mean) @ matrix
    # (11, -2) is 5 along (0.6, 0.8): the middle
    np.testing.assert_allclose(white[2], 0, atol=1e-5)
    np.testing.assert_allclose(white[0], -white[1], atol=1e-6)
    assert longest == pytest.approx(np.sqrt(3))  # variance 1 over the three dimensions


def test_no_served_embedding_is_longer_than_those_of_training():
    model = small_encoder()
    # served as well: in a batch of another size convolutions may round otherwise
    uncut = whitening.serving_function(model, np.zeros(6), np.eye(6))
    raw = uncut(tf.constant(HOSTILE))["embeddings"].numpy()
    lengths = np.linalg.norm(raw, axis=1)
    middle = float(np.sort(lengths)[len(lengths) // 2]) * 1.001  # some shorter, some longer
    serve = whitening.serving_function(model, np.zeros(6), np.eye(6), middle)
    made = serve(tf.constant(HOSTILE))["embeddings"].numpy()
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), np.minimum(lengths, middle), rtol=1e-5)
    shares = np.minimum(1, middle / np.maximum(lengths, 1e-9))
    np.testing.assert_allclose(made, raw * shares[:, None], rtol=1e-5)


@pytest.mark.parametrize("cosine", [True, False])
def test_joint_space_is_that_of_training(cosine):
    """What whitening did to a caption is undone, and a picture's vector is the encoder's own."""
    text, image = small_encoder(), joint_embedding.ImageEncoder(6)
    captions = [f"a {color} flower with {n} petals" for color in ("red", "blue") for n in range(30)]
    raw = text(characters.tokenize(captions)).numpy()
    mean, matrix, _ = whitening.compute(raw)
    served = whitening.serving_function(text, mean, matrix)(tf.constant(captions))["embeddings"]
    pictures = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    of_images, of_text = joint_embedding.joint_functions(image, mean, matrix, cosine)
    for made, expected in ((of_text(served), raw), (of_images(pictures), image(pictures).numpy())):
        if cosine:
            expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(made["embeddings"], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1, 3])
def test_whitening_of_captions_that_are_all_the_same(size):
    mean, matrix, longest = whitening.compute(np.full((9, size), 2.0, np.float32))
    assert longest == np.inf
    np.testing.assert_array_equal(mean, np.full(size, 2))
    np.testing.assert_array_equal(matrix, np.eye(size))

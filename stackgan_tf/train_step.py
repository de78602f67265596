"""The only function that updates weights: one step of any GAN of this package."""

import keras
import tensorflow as tf


def make_train_step(gan, generator_optimizer, discriminator_optimizer, ema_generator, ema_decay,
                    seed, jit_compile=False, first_bad=None):
    """One discriminator step, one generator step, one step of the moving average.

    To be called in the scope of the tf.distribute strategy that the networks were made in. Each of
    its replicas takes its rows of the batch, all replicas as many, and computes its part of the
    means over the whole batch. Sums over the replicas make them one: of the gradients and of the
    numbers for the log.

    Args:
        gan: an object with `generator`, `discriminator`, `draw_latents(seed, batch_size)`,
            `generate(latents, embeddings, training)`,
            `discriminator_loss(batch, fake_images, latents)` and
            `generator_loss(batch, output, latents)`, of what `generate` gave. Losses and what
            comes with them are means over the rows of the batch.
        generator_optimizer, discriminator_optimizer: Keras optimizers, built on the trainable
            variables of the two networks.
        ema_generator: a second generator, whose variables are the moving average; or None.
        ema_decay: weight of the past, in [0, 1).
        seed: int, the run's; a row's noise is a function of (seed, step, its place in the batch).
        jit_compile: whether XLA compiles it.
        first_bad: an int64 (2,) variable, see `note_bad`; or None.

    Returns:
        train_step(batch, step) -> {name: float32 scalar}, a tf.function; `batch` as in
        `to_floats`, `step` an int64 scalar tensor, the number of steps done before.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    # float16's optimizer finds overflows in gradients itself, and leaves out the step
    scaled = isinstance(generator_optimizer, keras.optimizers.LossScaleOptimizer)
    d_variables = [v.value for v in gan.discriminator.trainable_variables]
    g_variables = [v.value for v in gan.generator.trainable_variables]

    def replica_step(batch, step):
        batch = to_floats(batch)
        batch_size = tf.shape(batch["real_images"])[0] * replicas
        latents = own_rows(gan.draw_latents(tf.stack([seed, tf.cast(step, tf.int32)]), batch_size))
        with tf.GradientTape(watch_accessed_variables=False) as g_tape:
            g_tape.watch(g_variables)
            # One set of fakes for both, as in the released code: the generator does not change
            # in between.
            output = gan.generate(latents, batch.get("embeddings"), training=True)
            with g_tape.stop_recording(), tf.GradientTape(watch_accessed_variables=False) as d_tape:
                d_tape.watch(d_variables)
                d_loss, d_parts = gan.discriminator_loss(batch, output["images"], latents)
                d_loss = discriminator_optimizer.scale_loss(share(d_loss))  # with float16 only
            with g_tape.stop_recording():
                d_gradients = total(d_tape.gradient(d_loss, d_variables))
                discriminator_optimizer.apply(d_gradients, d_variables)
            g_loss, g_parts = gan.generator_loss(batch, output, latents)
            g_loss = generator_optimizer.scale_loss(share(g_loss))
        g_gradients, parts = total((g_tape.gradient(g_loss, g_variables),
                                    share({**d_parts, **g_parts})))
        parts["gradient/discriminator"] = norm(d_gradients, discriminator_optimizer)
        parts["gradient/generator"] = norm(g_gradients, generator_optimizer)
        generator_optimizer.apply(g_gradients, g_variables)
        if ema_generator is not None:
            update_ema(ema_generator, gan.generator, ema_decay, step)
        if first_bad is not None:
            note_bad(first_bad, step, {
                name: 0.0 if scaled and name.startswith("gradient/") else value
                for name, value in parts.items()})
        return parts

    # Nothing in it branches on a tensor; rewriting its Python would take half of the first call.
    @tf.function(jit_compile=jit_compile, autograph=False)
    def train_step(batch, step):
        parts = strategy.run(replica_step, (batch, step))
        return strategy.experimental_local_results(parts)[0]  # the same on every replica

    return train_step


def make_train_steps(train_step):
    """Many steps in one call: train_steps(iterator, step, count), a tf.function, takes `count`
    batches of the tf.data iterator and returns what the last of `count` train_steps does.

    Every step runs in the same loop, so that how they are cut into calls changes no bit.
    """

    @tf.function
    def train_steps(iterator, step, count):
        one = train_step.get_concrete_function(iterator.element_spec, tf.TensorSpec([], tf.int64))
        parts = {name: tf.zeros([]) for name in one.structured_outputs}
        for i in tf.range(count):
            parts = train_step(next(iterator), step + i)
        return parts

    return train_steps


def own_rows(latents):
    """{name: (rows, ...)}, this replica's rows of the whole batch's latents.

    So the replicas together draw what one device would, and no two of them the same.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return latents
    return {name: tf.gather(tf.reshape(value, [replicas, -1, *value.shape[1:]]),
                            context.replica_id_in_sync_group) for name, value in latents.items()}


def share(values):
    """A replica's part of the means over the whole batch; `values` are the means of its rows."""
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    return values if replicas == 1 else tf.nest.map_structure(lambda v: v / replicas, values)


def total(values):
    """The sums over all replicas, of any structure of tensors."""
    context = tf.distribute.get_replica_context()
    return values if context.num_replicas_in_sync == 1 else context.all_reduce("SUM", values)


def norm(gradients, optimizer):
    """Of all gradients together, without the loss scale of float16; float32 scalar."""
    return tf.linalg.global_norm(gradients) / optimizer.scale_loss(tf.constant(1.0))


def note_bad(first_bad, step, parts):
    """Notes the first step of which a part, {name: scalar}, is not finite; on the device, so that
    nobody waits for it.

    `first_bad` becomes [the step's number, counted from 1; a bit for each such part, in the order
    of the sorted names], and stays so until it is set back to zeros.
    """
    bad = tf.stack([~tf.math.is_finite(parts[name]) for name in sorted(parts)])
    bits = tf.reduce_sum(tf.where(bad, 2 ** tf.range(len(parts), dtype=tf.int64), 0))
    first = (first_bad[0] == 0) & (bits > 0)
    first_bad.assign(tf.where(first, tf.stack([step + 1, bits]), first_bad))


def to_floats(batch):
    """The batch as the networks take it: `real_images` float32 (B, H, W, 3) in [-1, 1].

    Bytes come in, a quarter of what floats are on the way to the device that trains (floats are
    left as they are). Where `flips` bool (B,) is given, the images that it marks are mirrored.
    """
    images = batch["real_images"]
    if "flips" in batch:
        # As rows: tf.reverse has a fast kernel for three dimensions with three channels.
        shape = tf.shape(images)
        mirrored = tf.reverse(tf.reshape(images, [-1, images.shape[2], 3]), [1])
        images = tf.where(batch["flips"][:, None, None, None], tf.reshape(mirrored, shape), images)
    if images.dtype == tf.uint8:
        images = tf.cast(images, tf.float32) / 127.5 - 1.0
    return {**batch, "real_images": images}


def update_ema(ema_model, model, decay, step):
    """Moves every variable of `ema_model`, batch-norm statistics included, towards `model`'s.

    The decay ramps up as (1 + step) / (10 + step), so that a short run does not end in the
    average of its random start.
    """
    ramp = (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32))
    decay = tf.minimum(decay, ramp)
    for average, value in zip(ema_model.variables, model.variables, strict=True):
        average.assign(decay * average + (1.0 - decay) * value)
